"""Whose arithmetic an answer was computed with: the backend's version, and what its kernels find in the CPU.

Integer products, and so the answers of an INT8 bundle, may differ between kinds of CPU: what is proven on one with
VNNI is proven there.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from pathlib import Path

from ..packages import version_of
from ..runtimes import Engine, backends
from ..text import printable

# CPU features that decide how fast (and in which precision) a backend computes.
FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
# Those whose kernels round in their own way, and what people call them; the widest vector first.
_TOLD = {
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "avx": "AVX",
    "sse4_2": "SSE4.2",
    "sve": "SVE",
    "asimd": "NEON",
}
_UNITS = {
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "asimddp": "dot product",
    "i8mm": "int8 matrix product",
    "bf16": "bf16",
}
# What holds libraries to fewer instructions than the CPU has, or to other sums: oneDNN in OpenVINO and PyTorch,
# PyTorch's own kernels, MKL, and NumPy's BLAS.
_HOLDING = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "OPENBLAS_CORETYPE"),
)
_MACHINES = {"x86_64": "x86-64", "AMD64": "x86-64", "amd64": "x86-64", "arm64": "AArch64", "aarch64": "AArch64"}


def arithmetic_of(engine: Engine | str) -> str:
    """One line on what an engine, or the backend of that name, computes with here.

    "ONNX Runtime 1.30.0, x86-64, AVX-512, AVX-512 VNNI, AMX int8".
    """
    name = engine if isinstance(engine, str) else engine.backend
    return f"{_version(name)}, {cpu_arithmetic()}"


@functools.cache
def cpu_arithmetic() -> str:
    """The kind of this machine's CPU, and what libraries are held to: "x86-64, AVX-512, AVX-512 VNNI"."""
    held = [f"{name}={printable(os.environ[name])}" for name in _HOLDING if os.environ.get(name)]
    return ", ".join([_of_the_cpu(), *held])


def _of_the_cpu() -> str:
    model, features = cpu()
    machine = _MACHINES.get(platform.machine(), platform.machine() or "unknown machine")
    width = next((told for name, told in _TOLD.items() if name in features), None)
    units = [told for name, told in _UNITS.items() if name in features]
    if width is None and not units:  # a system that does not tell: its CPU's name says which kind it is
        return ", ".join(dict.fromkeys(part for part in (machine, model) if part))
    return ", ".join([machine, *([width] if width else []), *units])


def cpu() -> tuple[str, list[str]]:
    """(model name, those of :data:`FEATURES` that it has), as far as this system tells."""
    fields: dict[str, str] = {}
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                name, _, value = line.partition(":")
                fields.setdefault(name.strip().lower(), value.strip())
        except OSError:
            pass
    present = set((fields.get("flags") or fields.get("features") or "").split())
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, [name for name in FEATURES if name in present]


def _version(name: str) -> str:
    """Title and version of what is behind an engine: "coreml (interpreted)", "stand-in (onnxruntime)", "onnx"."""
    known = backends()
    first, _, inside = name.removesuffix(")").partition(" (")
    if inside == "interpreted" and first in known:
        return f"{known[first].title}, interpreted by NumPy {version_of('numpy')}"
    if inside:
        return f"{first}, {inside} {version_of(inside)}"
    if first in known:
        return f"{known[first].title} {known[first].available().version}"
    if first.startswith("torch"):
        return f"PyTorch {version_of('torch')}"
    return name
