"""`hrm-edge compile`: engines before they are needed, with a GPU (simulated) and without one (really built)."""

import json

import pytest
import toys

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import simulated_trt
from trt_bundles import write_trt_bundle
from typer.testing import CliRunner

from hrm_edge.cli import compile as compile_
from hrm_edge.errors import InputError
from hrm_edge.runtimes import load_engine

RTX = "tensorrt-rtx 1.7.1.116"


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))


def run(*arguments):
    """→ (standard output, standard error); a user's mistake comes out as InputError."""
    import typer

    app = typer.Typer()
    app.command()(compile_.command)
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_on_a_device_it_builds_loads_and_runs_once(monkeypatch, tmp_path):
    machine = simulated_trt.machine(monkeypatch, RTX)
    path = write_trt_bundle(tmp_path / "b")
    out, _ = run(path)
    lines = out.splitlines()
    for graph in ("start", "segment"):
        start = f"{graph}, compute capability 8.9, tensorrt-rtx 1.7.1.116: built in "
        assert sum(line.startswith(start) for line in lines) == 1
    assert lines[2].startswith("next, on that GPU: hrm-edge check SPEC")
    assert sum(context.runs for context in machine.only.contexts) == 2
    machine.check()
    # What was compiled is what the runtime wants: neither engines nor kernels are built again.
    after = simulated_trt.machine(monkeypatch, RTX)
    load_engine(path).solve(toys.puzzles(3))
    assert (after.only.built, after.only.compiled_kernels) == ([], 0)


def test_a_second_time_there_is_nothing_to_do_unless_forced(monkeypatch, tmp_path):
    simulated_trt.machine(monkeypatch, RTX)
    path = write_trt_bundle(tmp_path / "b", "graph")
    run(path)
    machine = simulated_trt.machine(monkeypatch, RTX)
    engines = json.loads(run(path, "--json")[0])["engines"]
    assert [(one["graph"], one["state"]) for one in engines] == [("model", "kept")]
    assert machine.only.built == []
    engines = json.loads(run(path, "--json", "--force")[0])["engines"]
    assert [one["state"] for one in engines] == ["built"]
    assert len(machine.only.built) == 1


def test_json_is_one_object(monkeypatch, tmp_path):
    simulated_trt.machine(monkeypatch, RTX)
    path = write_trt_bundle(tmp_path / "b", "graph")
    content = json.loads(run(path, "--json", "--compute-capability", "8.6,120")[0])
    assert content["bundle"] == str(path)
    assert [one["compute_capability"] for one in content["engines"]] == [86, 120]
    wanted = {"graph", "flavour", "version", "compute_capability", "state", "file", "seconds"}
    assert all(set(one) == wanted for one in content["engines"])
    assert all((tmp_path / one["file"]).is_file() for one in content["engines"])


def test_without_a_gpu_it_must_be_told_which(monkeypatch, tmp_path):
    simulated_trt.machine(monkeypatch, RTX, driver=0)
    path = write_trt_bundle(tmp_path / "b")
    with pytest.raises(InputError, match=r"there is no NVIDIA driver .* --compute-capability 8\.9"):
        run(path)


def test_tensorrt_itself_needs_its_gpu(monkeypatch, tmp_path):
    simulated_trt.machine(monkeypatch, "tensorrt 11.0.0.114", driver=0)
    path = write_trt_bundle(tmp_path / "b")
    with pytest.raises(InputError, match="tensorrt-rtx is not installed"):
        run(path, "--compute-capability", "8.9")


def test_a_gpu_that_rtx_does_not_know(monkeypatch, tmp_path):
    simulated_trt.machine(monkeypatch, RTX, driver=0)
    path = write_trt_bundle(tmp_path / "b")
    with pytest.raises(InputError, match=r"builds for compute capability 8\.0, .* not 9\.0"):
        run(path, "--compute-capability", "90")


@pytest.mark.parametrize("text", ["", "8", "sm86", "8.6;8.9", "86,", "8.66", "-86", "1234"])
def test_what_is_no_compute_capability(tmp_path, text):
    path = write_trt_bundle(tmp_path / "b")
    with pytest.raises(InputError, match=r"--compute-capability: .* is none; write them as"):
        run(path, f"--compute-capability={text}")


def test_other_targets_need_no_compiling(tmp_path):
    path = toys.write_toy_bundle(tmp_path / "b", "onnx")
    assert run(path)[0] == f"{path}: is for onnx, where nothing needs compiling\n"
    assert json.loads(run(path, "--json")[0]) == {"bundle": str(path), "engines": []}


def test_real_engines_for_a_gpu_that_is_not_here(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    path = write_trt_bundle(tmp_path / "b")
    engines = json.loads(run(path, "--json", "--compute-capability", "8.6")[0])["engines"]
    assert [(one["graph"], one["state"]) for one in engines] == [("segment", "built"), ("start", "built")]
    again = json.loads(run(path, "--json", "--compute-capability", "86")[0])["engines"]
    assert [one["state"] for one in again] == ["kept", "kept"]
