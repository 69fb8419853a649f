"""The pipeline as a whole: options, what the manifest says, and the same bytes every time."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import shared_traces
from small_networks import TASK, checkpoint, network
from ungated import build_bundle

from hrm_edge.bundle import open_bundle
from hrm_edge.errors import InputError
from hrm_edge.exporters import build
from hrm_edge.exporters.build import ExportOptions
from hrm_edge.packages import install

KINDS = [(target, loop) for target in ("onnx", "openvino") for loop in ("host", "graph")]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"target": "tflite"},
            "--target tflite: unknown; choose onnx or openvino or tensorrt or coreml or litert or c or executorch",
        ),
        (
            {"precision": "fp64"},
            "--precision fp64: unknown; choose fp32 or fp16 or int8 or int8-weights or int4-weights or bf16 or "
            "palette4-weights or palette6-weights",
        ),
        (
            {"target": "tensorrt", "precision": "int4-weights"},
            "--precision int4-weights: not for tensorrt; choose fp32 or fp16 or bf16 or int8",
        ),
        ({"target": "coreml", "batch": 1, "ios": 16}, "--ios 16: unknown; choose 17 or 18"),
        (
            {"target": "coreml"},
            "--batch dynamic: Core ML runs fixed shapes; give the number of rows of every call",
        ),
        ({"loop": "while"}, "--loop while: unknown; choose graph or host"),
        ({"batch": 0}, "--batch must be a number of rows, from 1 to 65535, or dynamic, not 0"),
    ],
)
def test_options_that_do_not_exist_are_refused_in_one_line(options, line):
    with pytest.raises(InputError) as error:
        ExportOptions(**options)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ExportOptions("onnx", "fp32", "graph", None)),
        ({"target": "openvino", "precision": "int8"}, ExportOptions("openvino", "int8", "graph", None)),
        ({"target": "coreml"}, ExportOptions("coreml", "fp32", "host", 1)),
        (
            {"target": "coreml", "loop": "graph", "batch": 4, "ios": 18},
            ExportOptions("coreml", "fp32", "graph", 4, ios=18),
        ),
        ({"batch": "7", "ios": None}, ExportOptions(batch=7)),
        ({"batch": "dynamic"}, ExportOptions()),
        (
            {"target": "tensorrt", "compute_capabilities": "8.6,120"},
            ExportOptions("tensorrt", compute_capabilities=(86, 120)),
        ),
        (
            {"target": "tensorrt", "compute_capabilities": (90,)},
            ExportOptions("tensorrt", compute_capabilities=(90,)),
        ),
    ],
)
def test_python_gets_the_defaults_of_the_command_line(given, expected):
    assert ExportOptions.for_target(**given) == expected


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"ios": 18}, "--ios: has no meaning with --target onnx, only with coreml"),
        (
            {"target": "tflite", "compute_capabilities": "8.6"},
            "--compute-capability: has no meaning with --target tflite, only with tensorrt",
        ),
        (
            {"target": "tflite"},
            "--target tflite: unknown; choose onnx or openvino or tensorrt or coreml or litert or c or executorch",
        ),
        ({"batch": "0"}, "--batch must be a number of rows, from 1 to 65535, or dynamic, not '0'"),
        (
            {"target": "coreml", "batch": "dynamic"},
            "--batch dynamic: Core ML runs fixed shapes; give the number of rows of every call",
        ),
        (
            {"target": "tensorrt", "compute_capabilities": "x"},
            "--compute-capability: 'x' is none; write them as 8.6,8.9 or 86,89",
        ),
    ],
)
def test_what_a_target_does_not_know_is_one_line(given, line):
    with pytest.raises(InputError) as error:
        ExportOptions.for_target(**given)
    assert str(error.value) == line


def test_an_option_that_no_target_has_is_a_mistake_in_the_code():
    with pytest.raises(TypeError, match="no target has an option 'android'; there are compute_capabilities, ios"):
        ExportOptions.for_target(android=12)


def test_asking_for_the_facts_of_targets_imports_nothing_heavy():
    script = (
        "import sys; from hrm_edge.exporters.targets import all_targets\n"
        "facts = [(t.name, t.precisions, t.suffix) for t in all_targets().values()]\n"
        "heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'openvino', 'coremltools', 'tensorrt_rtx_bindings'}\n"
        "print(len(facts) > 3, sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "True []", result.stderr


def test_bundles_say_what_they_are_and_are_the_same_bytes_when_built_again(tmp_path, one_trace):
    source = checkpoint(network(H_cycles=1, L_cycles=1))
    for target, loop in KINDS:
        for precision, batch in (("fp32", None), ("fp16", 2)):
            options = ExportOptions(target, precision, loop, batch)
            folders = [tmp_path / f"{options.suffix}-{i}" for i in range(2)]
            for folder in folders:
                folder.mkdir()
                build_bundle(source, options, folder, "small")
            assert hashes(folders[0]) == hashes(folders[1])
            _check_manifest(open_bundle(folders[0]).manifest, options)


def _check_manifest(manifest, options):
    assert (manifest.target, manifest.precision, manifest.loop) == (options.target, options.precision, options.loop)
    rows = options.batch or "batch"
    assert manifest.batch == (options.batch or "dynamic")
    assert manifest.precision_parts["norms"] == manifest.precision_parts["carried state"] == "float32"
    assert manifest.precision_parts["weights"] == {"fp32": "float32", "fp16": "float16"}[options.precision]
    assert manifest.gate.ran is False
    assert {"torch", "onnx", "hrm-edge"} <= set(manifest.tools)
    assert ("openvino" in manifest.tools) == (options.target == "openvino")
    if options.loop == "graph":
        inputs = [(t.name, t.dtype, t.shape) for t in manifest.inputs["model"]]
        scalars = [("max_think_steps", "int32", ()), ("halt", "int32", ())]
        assert inputs == [("tokens", "int32", (rows, TASK.seq_len)), *scalars]
        assert [t.name for t in manifest.outputs["model"]] == ["answer", "steps", "q"]
    else:
        assert [t.name for t in manifest.inputs["segment"]] == ["z_H", "z_L", "e"]
        assert [t.shape[0] for t in manifest.outputs["segment"]] == [rows] * 4


BUILD_ALL = """
import sys
from pathlib import Path
from test_build import build_all
build_all(Path(sys.argv[1]))
"""


def build_all(place):
    """Bundles of each kind, from one trace of the network that is made here."""
    source = checkpoint(network(H_cycles=1, L_cycles=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_traces, "folder", place / "own traces")
        for name in ("trace_start", "trace_segment"):
            patch.setattr(build, name, getattr(shared_traces, name))
        kinds = [("onnx", "fp16", "graph"), ("openvino", "fp32", "host"), ("openvino", "int8", "graph")]
        kinds += [("onnx", "int8", "host"), ("onnx", "int4-weights", "graph"), ("openvino", "int4-weights", "host")]
        for target, precision, loop in kinds:
            folder = place / "bundles" / f"{target}-{precision}"
            folder.mkdir(parents=True)
            build_bundle(source, ExportOptions(target, precision, loop), folder, "small")


@pytest.mark.slow
def test_another_process_with_another_hash_seed_writes_the_same_bytes(tmp_path):
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # this process has any other
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    other = subprocess.Popen([sys.executable, "-c", BUILD_ALL, str(tmp_path / "there")], env=environment)
    try:
        build_all(tmp_path / "here")
    finally:
        code = other.wait()
    assert code == 0
    kinds = sorted(folder.name for folder in (tmp_path / "here" / "bundles").iterdir())
    assert len(kinds) == 6
    for kind in kinds:
        first, second = (hashes(tmp_path / name / "bundles" / kind) for name in ("here", "there"))
        assert first == second, kind
        assert first


def test_nothing_of_the_machine_is_in_the_files(tmp_path, one_trace):
    source = checkpoint(network(H_cycles=1, L_cycles=1))
    for target in ("onnx", "openvino"):
        folder = tmp_path / target
        folder.mkdir()
        build_bundle(source, ExportOptions(target), folder, "small")
        for file in (path for path in folder.rglob("*") if path.is_file()):
            content = file.read_bytes()
            for trace in (str(tmp_path), str(Path.home()) + os.sep, ".py", "site-packages"):
                assert trace.encode() not in content, (file.name, trace)


@pytest.mark.slow
def test_the_artifact_does_not_grow_with_the_number_of_cycles(tmp_path, one_trace):
    """Three times the steps: more nodes, no more weights."""
    sizes: dict[tuple[str, int], int] = {}
    for cycles in (1, 2):
        model = network(hidden_size=96, H_cycles=cycles, L_cycles=cycles)
        for target, stored in (("onnx", "model.onnx"), ("openvino", "model.bin")):
            folder = tmp_path / f"{target}-{cycles}"
            folder.mkdir()
            build_bundle(checkpoint(model), ExportOptions(target), folder, "small")
            sizes[target, cycles] = (folder / stored).stat().st_size
            weights = 4 * sum(parameter.numel() for parameter in model.parameters())
            assert sizes[target, cycles] < 1.1 * weights
    assert sizes["onnx", 2] < 1.1 * sizes["onnx", 1]
    assert sizes["openvino", 2] < 1.001 * sizes["openvino", 1]


def test_a_missing_openvino_is_one_line(tmp_path, one_trace, monkeypatch):
    from hrm_edge.exporters.targets import openvino

    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape(install("openvino"))):
        build_bundle(checkpoint(network(H_cycles=1, L_cycles=1)), ExportOptions("openvino"), tmp_path, "small")


def test_weights_beyond_one_file_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(build, "_LARGEST", 1000)
    with pytest.raises(InputError, match="do not fit one ONNX file"):
        build.trace(checkpoint())
