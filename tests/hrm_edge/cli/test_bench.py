"""`hrm-edge bench` from the outside; it exports what it is not given."""

import json

import pytest
from toys import TASK, write_toy_bundle

from hrm_edge.cli import main
from hrm_edge.measure import speed as module

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from hrm_edge.models import HRMConfig, build_model, save_checkpoint  # noqa: E402

QUICK = ("--rounds", "2", "--segments", "2", "--threads", "1", "--no-memory")


@pytest.fixture(autouse=True)
def quick_ceiling(monkeypatch):
    monkeypatch.setattr(module, "_SGEMM", 32)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write_toy_bundle(folder / "toy-host", loop="host")
    write_toy_bundle(folder / "toy-graph", loop="graph")
    write_toy_bundle(folder / "toy-four", batch=4)
    sizes = {"hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "H_cycles": 1, "L_cycles": 1}
    config = HRMConfig(TASK.vocab_size, TASK.seq_len, **sizes)
    save_checkpoint(folder / "tiny", build_model(config, TASK), TASK.name, "# tiny", {})
    return folder


def run(capsys, *arguments):
    """(exit code, stdout, stderr)"""
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *map(str, arguments)])
    output = capsys.readouterr()
    return stopped.value.code or 0, output.out, output.err


def test_bundles_alone(folder, capsys):
    code, out, err = run(capsys, folder / "toy-host", folder / "toy-graph", *QUICK)
    assert code == 0
    for word in ("onnx fp32, host loop", "onnx fp32, graph loop", "ms/segment", "× eager", "2 interleaved rounds"):
        assert word in out
    assert "no ratio" in out
    assert "2 engines, 2 rounds, 1 threads, batch 1" in err


def test_json_is_one_object_and_nothing_else(folder, capsys):
    code, out, _ = run(capsys, folder / "tiny", folder / "toy-host", "--json", "--n", 6, *QUICK)
    content = json.loads(out)
    assert code == 0
    assert [row["engine"] for row in content["rows"]] == ["tiny", "toy-host"]
    assert content["rows"][0]["ratio_vs_eager"] == 1.0
    assert content["puzzles"] == 6
    assert "sgemm_32_gflops" in content["ceilings"]


@pytest.mark.slow
def test_a_checkpoint_alone_is_exported_for_every_backend_and_loop(
    folder, capsys, tmp_path, monkeypatch, one_trace
):
    pytest.importorskip("openvino")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    code, out, _ = run(capsys, folder / "tiny", "--json", *QUICK)
    rows = [row for row in json.loads(out)["rows"] if row["backend"] in ("torch", "onnx", "openvino")]
    assert code == 0
    assert [(row["backend"], row["loop"]) for row in rows] == [
        ("torch", "host"),
        *((target, loop) for target in ("onnx", "openvino") for loop in ("graph", "host")),
    ]
    assert all(row["ratio_vs_eager"] > 0 for row in rows)
    assert len({row["exact"] for row in rows}) == 1
    assert not list(tmp_path.glob("hrm-edge-bench-*")), "what was made for the measurement is gone"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a checkpoint or bundles to bench"),
        (["tiny", "--random-weights", "paper"], "but not both"),
        (["--random-weights", "huge"], "unknown size; choose paper"),
        (["toy-four"], "bench it with --batch 4"),
        (["toy-host", "--torch-compile"], "--torch-compile needs a checkpoint"),
        (["nowhere"], "nowhere"),
    ],
)
def test_one_line_and_exit_2(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    code, out, err = run(capsys, *arguments, *QUICK)
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]
    assert "Traceback" not in err
