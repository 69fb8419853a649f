"""A benchmark that is stopped or killed: what was made stands, the code says that it is not all, and it goes on."""

import signal
import time

import pytest
import shared_traces
from forked import Forked
from small_networks import TASK, network
from ungated import command_untrained

from hrm_edge.benchmark.rows import read_benchmark
from hrm_edge.bundle import open_bundle

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")


@pytest.mark.slow
def test_one_that_is_stopped_and_then_killed_goes_on(tmp_path):
    from hrm_edge.models import save_checkpoint

    held_out = {"seed": 5, "difficulty": "ordinary", "n": 40}
    model = save_checkpoint(
        tmp_path / "small", network(H_cycles=1, L_cycles=1), TASK.name, "", {"held_out": held_out}
    )
    folder, said = tmp_path / "table", tmp_path / "said"
    options = ["--target=onnx", "--precision=fp32,fp16", "--gate-puzzles=8", "--max-drop=100", "--rounds=1"]
    arguments = ["benchmark", str(model), *options, "-o", str(folder)]

    def started():
        return Forked(said, command_untrained, arguments, shared_traces.folder)

    def wait(process, until):
        while process.poll() is None and not until():
            time.sleep(0.01)
        assert until(), said.read_text()

    def one():
        return (folder / "benchmark.json").exists() and len(read_benchmark(folder).rows) == 1

    process = started()
    wait(process, one)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert said.read_text().splitlines()[-1] == "hrm-edge: stopped"
    (kept,) = read_benchmark(folder).rows
    assert not any(path.name.startswith(".") for path in folder.iterdir())

    process = started()
    wait(process, lambda: any(path.name.startswith(".onnx-fp16") for path in folder.iterdir()))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert read_benchmark(folder).rows == (kept,)

    assert started().wait() == 0, said.read_text()
    rows = read_benchmark(folder).rows
    assert [row.name for row in rows] == ["onnx fp32", "onnx fp16"]
    assert rows[0].manifest == kept.manifest
    assert all(row.ms_per_puzzle for row in rows)
    for row in rows:
        open_bundle(folder / row.bundle)
    assert not any(path.name.startswith(".") for path in folder.iterdir())
