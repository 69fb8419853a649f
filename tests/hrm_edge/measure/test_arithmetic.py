"""Whose arithmetic: the backend by its version, the CPU by what decides how products are rounded."""

import pytest

from hrm_edge.measure import arithmetic
from hrm_edge.measure.arithmetic import arithmetic_of, cpu_arithmetic
from hrm_edge.runtimes import backend


@pytest.fixture
def machine(monkeypatch):
    """A CPU by its name and features."""

    def pretend(kind, model, *features):
        monkeypatch.setattr(arithmetic.platform, "machine", lambda: kind)
        monkeypatch.setattr(arithmetic, "cpu", lambda: (model, list(features)))
        cpu_arithmetic.cache_clear()

    yield pretend
    cpu_arithmetic.cache_clear()


@pytest.mark.parametrize(
    ("kind", "features", "told"),
    [
        (
            "x86_64",
            ("avx", "avx2", "avx512f", "avx512_vnni", "amx_int8"),
            "x86-64, AVX-512, AVX-512 VNNI, AMX int8",
        ),
        ("AMD64", ("avx", "avx2", "fma"), "x86-64, AVX2"),
        ("x86_64", ("avx2", "avx_vnni"), "x86-64, AVX2, AVX VNNI"),
        ("aarch64", ("asimd", "asimddp", "i8mm"), "AArch64, NEON, dot product, int8 matrix product"),
        ("arm64", (), "AArch64, Some CPU"),
    ],
)
def test_a_cpu_is_told_by_what_rounds(machine, kind, features, told):
    machine(kind, "Some CPU", *features)
    assert cpu_arithmetic() == told


def test_the_backend_is_told_by_its_version(machine):
    machine("x86_64", "Some CPU", "avx2")
    onnx = backend("onnx").available().version
    assert arithmetic_of("onnx") == f"ONNX Runtime {onnx}, x86-64, AVX2"
    assert arithmetic_of("stand-in (onnxruntime)") == f"stand-in, onnxruntime {onnx}, x86-64, AVX2"
    assert arithmetic_of("coreml (interpreted)").startswith("Core ML, interpreted by NumPy ")
    assert arithmetic_of("torch").startswith("PyTorch ")


def test_this_machine_has_one_line():
    assert arithmetic_of("openvino").isprintable()


def test_what_holds_libraries_to_less_than_the_cpu_has_is_told(machine, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "")
    machine("x86_64", "Some CPU", "avx2", "avx512f")
    assert cpu_arithmetic() == "x86-64, AVX-512, ONEDNN_MAX_CPU_ISA=AVX2"
