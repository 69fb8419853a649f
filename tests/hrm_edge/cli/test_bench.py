"""`hrm-edge bench` from the outside; it exports what it is not given."""

import json

import commands
import pytest
from toys import TASK, write_toy_bundle

from hrm_edge.measure import ceilings

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from hrm_edge.models import HRMConfig, build_model, save_checkpoint  # noqa: E402

QUICK = ("--rounds", "2", "--segments", "2", "--threads", "1", "--cold", "0", "--no-streams")


@pytest.fixture(autouse=True)
def quick_ceiling(monkeypatch):
    monkeypatch.setattr(ceilings, "SIZE", 32)
    monkeypatch.setattr(ceilings, "COPIED", 1000)
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
    return commands.run(capsys, "bench", *arguments)


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
    assert content["rows"][0]["ratio_vs_eager"] in (1.0, None), "None: on a busy machine"
    assert content["n"] == 6
    assert {"fp32", "memory"} <= {row["kind"] for row in content["ceilings"]}


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
        ("onnx", "host"),  # the naive one
        *((target, loop) for target in ("onnx", "openvino") for loop in ("graph", "host")),
    ]
    assert rows[1]["engine"] == "naive export"
    assert all(row["of_ceiling_cpu"] > 0 for row in rows)
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


def test_several_threads_and_rows_cold_starts_streams_files_and_a_comparison(folder, capsys, tmp_path):
    """One run with everything that a bundle alone can show, then another that is compared with it."""
    written = [tmp_path / f"bench.{kind}" for kind in ("json", "md", "png")]
    more = ["--rounds", 2, "--segments", 1, "--n", 2]
    both = [folder / "toy-host", folder / "toy-graph"]
    outputs = [part for file in written for part in ("-o", file)]
    outputs.append("--profile")
    code, out, _ = run(capsys, *both, *more, "--threads", "1,2", "--batch", "1,3", *outputs)
    assert code == 0
    record = json.loads(written[0].read_text())
    cells = [(row["threads"], row["batch"]) for row in record["rows"]]
    assert cells == [cell for cell in ((1, 1), (1, 3), (2, 1), (2, 3)) for _ in range(2)]
    assert [row["engine"] for row in record["cold"]] == ["toy-host", "toy-graph"]
    assert all(row["peak_rss_mb"] >= row["above_bare_mb"] for row in record["cold"])
    assert {row["streams"] for row in record["throughput"]} >= {0, 1}
    assert {row["engine"] for row in record["profile"]} == {"toy-host"}, "the only one with a segment of its own"
    assert sum(row["share"] for row in record["profile"]) == pytest.approx(1)
    for heading in (
        "Where a segment's time goes",
        "Engines",
        "The machine's ceilings",
        "Cold start",
        "Puzzles a second",
    ):
        assert heading in out
        assert f"## {heading}" in written[1].read_text()
    assert written[2].read_bytes().startswith(b"\x89PNG")

    code, out, _ = run(capsys, *both, *QUICK, "--json", "--compare", written[0])
    assert code == 0
    content = json.loads(out)
    # There is no eager side; of a loop inside a graph the work is not known either.
    assert {change["by"] for change in content["changes"]} <= {"of ceiling"}
    assert any("graph loop" in note and "not compared" in note for note in content["changes_notes"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("{", "is no JSON"), ("{}", "give what `hrm-edge bench -o FILE.json` wrote")],
)
def test_a_file_that_is_no_benchmark_is_refused_in_one_line(folder, capsys, tmp_path, content, message):
    file = tmp_path / "then.json"
    if content is not None:
        file.write_text(content)
    code, out, err = run(capsys, folder / "toy-host", *QUICK, "--compare", file)
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fail-on-slower"], "slower than what"),
        (["--batch", "1,x"], "--batch 1,x: give whole numbers"),
        (["--threads", "0"], "--threads 0: give whole numbers"),
        (["-o", "bench.txt"], "end it in"),
    ],
)
def test_flags_that_say_nothing(folder, capsys, flags, message):
    arguments = [part for part in QUICK if part not in ("--threads", "1")] if "--threads" in flags else QUICK
    code, out, err = run(capsys, folder / "toy-host", *arguments, *flags)
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]
