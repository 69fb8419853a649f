"""`hrm-edge export`: a bundle appears only when the gate has passed, and never in part."""

import functools
import io
import json

import pytest
import shared_traces
from commands import export
from patient_networks import with_bias
from small_networks import TASK, network

from hrm_edge.bundle import open_bundle
from hrm_edge.exporters import build
from hrm_edge.measure.selftest import self_test
from hrm_edge.models import save_checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("untrained")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint folder that names its own held-out puzzles."""
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    held_out = {"seed": 5, "difficulty": "ordinary", "n": 40}
    return save_checkpoint(folder, network(H_cycles=1, L_cycles=1), TASK.name, "card", {"held_out": held_out})


@pytest.fixture(scope="module")
def traces(small):
    """The two graphs of the module's checkpoint: tracing takes seconds, and nothing here is about it."""
    from hrm_edge.models import load_checkpoint

    model = load_checkpoint(small).model
    names = ("trace_start", "trace_segment")
    return {name: getattr(shared_traces, name)(model).SerializeToString() for name in names}


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path, traces):
    import onnx

    for name, content in traces.items():
        restored = functools.partial(onnx.ModelProto.FromString, content)
        monkeypatch.setattr(build, name, lambda model, restored=restored: restored())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def spoil(monkeypatch):
    """Make the export move the halting bias: fewer segments, and so other answers."""
    wrap = build.wrap_in_loop

    def spoiled(start, segment, *facts):
        return wrap(start, with_bias(segment, (50, -50)), *facts)

    monkeypatch.setattr(build, "wrap_in_loop", spoiled)


def test_a_bundle_is_published_with_its_accuracy(small, tmp_path, capsys):
    assert export(small, "--gate-puzzles", 20, "--max-drop", 5, "--threads", 1) == 0
    folder = tmp_path / "bundles" / "small-onnx-fp32-graph"
    bundle = open_bundle(folder)
    assert bundle.manifest.gate.passed is True
    assert bundle.accuracy.n > 20  # no answer differs, and of 20 that says little: as many as the board has
    assert bundle.accuracy.reference_hash == bundle.manifest.source["content_hash"]
    assert bundle.accuracy.arithmetic.startswith("ONNX Runtime ")
    assert bundle.ungated_warning is None
    again = self_test(bundle)
    assert (again.n, again.answers_differ, again.proven) == (16, 0, bundle.accuracy.arithmetic)
    assert (again.q_differ, again.q_tolerance, again.equal) == (0, 0.01, True)
    facts = json.loads((folder / "facts.json").read_text())
    assert len(facts["examples"]) == 16
    assert facts["title"] == bundle.manifest.name
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    out, err = capsys.readouterr()
    assert f"gate passed on n={bundle.accuracy.n}" in out
    assert f"next: hrm-edge solve {folder.relative_to(tmp_path)}" in out
    assert "export: tracing one segment" in err


def test_json_is_one_object_and_nothing_else(small, capsys):
    assert export(small, "--loop", "host", "--gate-puzzles", 10, "--max-drop", 10, "-o", "b", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"bundle", "accuracy", "passed", "size_mb", "quantization"}
    assert result["quantization"] is None
    assert result["passed"] is True
    assert result["accuracy"]["n"] > 10
    assert result["size_mb"] > 0


def test_a_failed_gate_publishes_nothing(small, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch)
    assert export(small, "-o", "b", "--gate-puzzles", 20) == 1
    assert not (tmp_path / "b").exists()
    assert [entry for entry in tmp_path.iterdir() if entry.name.startswith((".b", "b"))] == []
    message = capsys.readouterr().err.splitlines()[-1]
    assert "halting moved" in message
    assert message.endswith("nothing was published")


def test_a_failed_gate_keeps_the_bundle_that_was_there(small, tmp_path, monkeypatch):
    assert export(small, "-o", "b", "--no-gate") == 0
    before = open_bundle(tmp_path / "b").manifest
    spoil(monkeypatch)
    assert export(small, "-o", "b", "--gate-puzzles", 20) == 1
    assert open_bundle(tmp_path / "b").manifest == before


def test_without_a_gate_the_bundle_says_so(small, tmp_path, capsys):
    assert export(small, "-o", "b", "--no-gate", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] is None
    bundle = open_bundle(tmp_path / "b")
    assert bundle.manifest.gate.ran is False
    assert "--no-gate" in bundle.ungated_warning


def test_a_fixed_batch_is_gated_too(small, tmp_path):
    assert export(small, "-o", "b", "--batch", 3, "--gate-puzzles", 10, "--max-drop", 10) == 0
    assert open_bundle(tmp_path / "b").manifest.batch == 3


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--target", "tflite"], "--target tflite: unknown; choose onnx or openvino or tensorrt or coreml or "),
        (["--target", "tensorrt", "--ios", 18], "--ios: has no meaning with --target tensorrt, only with coreml"),
        (["--compute-capability", "8.6"], "--compute-capability: has no meaning with --target onnx"),
        (["--target", "tensorrt", "--compute-capability", "8.6,x"], "--compute-capability: 'x' is none"),
        (["--target", "coreml", "--batch", "dynamic"], "--batch dynamic: Core ML runs fixed shapes"),
        (["--precision", "bf16"], "--precision bf16: not for onnx; choose fp32 or fp16 or int8"),
        (["--precision", "int2"], "--precision int2: unknown"),
        (["--batch", "many"], "--batch must be a number of rows"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--max-drop", "-1"], "--max-drop must be"),
        (["--no-gate"], "drop one or the other"),
    ],
)
def test_bad_flags_are_one_line_and_exit_2(small, tmp_path, capsys, arguments, what):
    assert export(small, "-o", "b", "--gate-puzzles", 10, *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hrm-edge: ")]
    assert len(lines) == 1
    assert what in lines[0]
    assert not (tmp_path / "b").exists()


def test_a_missing_checkpoint_is_one_line(capsys):
    assert export("nowhere") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hrm-edge: nowhere: no such checkpoint")


def test_only_bundles_are_replaced(small, tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("do not delete")
    assert export(small, "-o", "letters", "--no-gate") == 2
    assert (tmp_path / "letters" / "dear.txt").read_text() == "do not delete"
    assert "holds something else than a bundle" in capsys.readouterr().err
    assert export(small, "-o", "letters/dear.txt", "--no-gate") == 2


def test_a_checkpoint_without_puzzles_is_refused_before_any_work(tmp_path, capsys):
    folder = save_checkpoint(tmp_path / "bare", network(H_cycles=1, L_cycles=1), TASK.name, "card")
    assert export(folder) == 2
    err = capsys.readouterr().err
    assert "--data FILE" in err
    assert "tracing" not in err


def test_where_the_reference_solves_nothing_only_a_flag_publishes_and_the_bundle_says_so(
    small, tmp_path, monkeypatch, capsys
):
    from hrm_edge.measure.gate import GateReport

    monkeypatch.setattr(GateReport, "judged", property(lambda report: report.reference.exact > 0))
    monkeypatch.chdir(tmp_path)
    assert export(small, "-o", "b", "--gate-puzzles", 4, "--max-drop", 30) == 1
    assert "the reference solves none of these 4 puzzles" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    assert export(small, "-o", "b", "--gate-puzzles", 4, "--max-drop", 30, "--not-judged") == 0
    bundle = open_bundle(tmp_path / "b")
    assert (bundle.manifest.gate.ran, bundle.manifest.gate.passed) == (False, None)
    assert "not judged: the reference solves none" in bundle.ungated_warning
    assert bundle.accuracy.calls
    assert export(small, "-o", "c", "--no-gate", "--not-judged") == 2


class Lost(io.TextIOWrapper):
    """A stream that takes nothing."""

    def __init__(self, why: OSError):
        super().__init__(io.BytesIO(), encoding="ascii")
        self.why = why

    def write(self, text):
        raise self.why


@pytest.mark.parametrize(
    "stream",
    [
        lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
        lambda: io.TextIOWrapper(io.BytesIO(), encoding="cp1252"),
        lambda: Lost(BrokenPipeError(32, "Broken pipe")),
        lambda: Lost(OSError(28, "No space left on device")),
    ],
)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_exit_code_says_that_it_is_published_whatever_becomes_of_the_summary(
    small, tmp_path, monkeypatch, stream, more
):
    monkeypatch.setattr("sys.stdout", stream())
    assert export(small, "--gate-puzzles", "5", "-o", "b", *more) == 0
    assert open_bundle(tmp_path / "b").manifest.gate.passed
