"""`hrm-edge export` to a quantized bundle: what it says, what its flags do to the record, and what it refuses."""

import json

import pytest
from commands import export as command
from small_networks import TASK
from traced_networks import expected_products, traced

from hrm_edge.bundle import open_bundle
from hrm_edge.bundle.quantization import read_quantization
from hrm_edge.data.choose import gate_puzzles
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.exporters.quantize.plan import Recipe
from hrm_edge.exporters.search import decide as quantize
from hrm_edge.models import load_checkpoint

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("untrained", "patient_exports")


@pytest.mark.parametrize(("target", "precision"), [("onnx", "int8"), ("openvino", "int4-weights")])
def test_the_command_exports_and_says_what_it_did(patient, tmp_path, capsys, target, precision):
    flags = ["--target", target, "--precision", precision, "--gate-puzzles", 12, "--max-drop", 100, "--threads", 1]
    flags += ["--calibration", 8, "--no-report"] + (["--sensitivity", 0] if precision == "int8" else [])
    assert command(patient, *flags) == 0
    folder = tmp_path / "bundles" / f"small-{target}-{precision}-graph"
    record = read_quantization(open_bundle(folder))
    assert record.precision == precision
    out, err = capsys.readouterr()
    n = len(expected_products(traced("grid")[0]))
    assert f"{n} of {n} {precision} products compiled as such" in out
    assert f"{record.weights_bytes / record.float_weights_bytes:.3f} × fp32" in out
    assert "export: calibrating on 8 puzzles" in err


def test_json_has_the_figures_of_the_record(patient, tmp_path, capsys):
    flags = ["--precision", "int8", "--loop", "host", "--gate-puzzles", 8, "--max-drop", 100, "-o", "b", "--json"]
    assert command(patient, *flags, "--calibration", 8, "--sensitivity", 0, "--no-report", "--threads", 1) == 0
    result = json.loads(capsys.readouterr().out)
    record = read_quantization(open_bundle(tmp_path / "b"))
    facts = result["quantization"]
    assert facts["products"] == {"expected": record.products.expected, "found": record.products.found}
    assert facts["weights_ratio"] == record.weights_bytes / record.float_weights_bytes < 0.5
    assert facts["kept"] == {layer.name: layer.kept for layer in record.layers if layer.kept}


def test_calibration_flags_reach_the_record(patient, tmp_path):
    save_puzzles(generate_puzzles(TASK, 30, 600, "ordinary"), tmp_path / "mine.csv")
    flags = ["--precision", "int8", "--no-gate", "-o", "b", "--calibration", 9, "--calibration-data", "mine.csv"]
    flags += ["--calibration-method", "percentile", "--calibration-segments", "last", "--smooth", "0.5"]
    assert command(patient, *flags) == 0
    facts = read_quantization(open_bundle(tmp_path / "b")).calibration
    assert (facts.n, facts.estimator, facts.segments, facts.smooth) == (9, "percentile", "last", 0.5)
    assert facts.samples == 9
    assert facts.puzzles == "mine"


@pytest.mark.slow
def test_auto_compares_and_the_record_keeps_the_comparison(patient, tmp_path):
    flags = ["--precision", "int8", "-o", "b", "--gate-puzzles", 8, "--max-drop", 100, "--calibration", 6]
    assert command(patient, *flags, "--calibration-method", "auto", "--sensitivity", 0, "--no-report") == 0
    record = read_quantization(open_bundle(tmp_path / "b"))
    assert len(record.comparison) >= 10
    chosen = Recipe(record.calibration.estimator, record.calibration.segments, record.calibration.smooth)
    assert chosen.segments != "random"
    assert str(chosen) in [trial.what for trial in record.comparison]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--precision", "int7"], "--precision int7: unknown"),
        (["--precision", "int8", "--calibration-method", "average"], "average"),
        (["--precision", "int8", "--calibration-segments", "some"], "some"),
        (["--precision", "int8", "--smooth", "1.5"], "1.5"),
        (["--precision", "int8", "--smooth", "nan"], "nan"),
        (["--precision", "int8", "--smooth", "-0.5"], "-0.5"),
        (
            ["--precision", "int8", "--calibration-method", "auto", "--smooth", "0.5"],
            "compares segments and smoothing",
        ),
        (["--precision", "fp32", "--calibration", "8"], "--calibration: has no meaning with --precision fp32"),
        (["--precision", "fp16", "--smooth", "0.5"], "--smooth: has no meaning with --precision fp16"),
        (["--precision", "int8-weights", "--sensitivity", "8"], "--sensitivity: has no meaning"),
        (["--precision", "int8", "--calibration-data", "nowhere.csv"], "nowhere.csv"),
        (["--precision", "int8", "--calibration-data", "leak.csv"], "used for calibration"),
        (["--precision", "int8-weights", "--calibration-data", "leak.csv"], "used for calibration"),
        (["--precision", "int8", "--calibration-data", "text.csv"], "text.csv"),
    ],
)
def test_bad_flags_are_one_line_and_exit_2(patient, tmp_path, capsys, flags, what):
    source = load_checkpoint(patient)
    save_puzzles(gate_puzzles(source, None, 8), tmp_path / "leak.csv")
    (tmp_path / "text.csv").write_text("no puzzles\nat all\n")
    assert command(patient, "-o", "b", "--gate-puzzles", 8, *flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("export: ")]
    assert len(lines) == 1
    assert lines[0].startswith("hrm-edge: ")
    assert what in lines[0]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("flags", [["--calibration", "0"], ["--sensitivity", "-1"], ["--smooth", "much"]])
def test_numbers_out_of_range_exit_2(patient, tmp_path, flags):
    assert command(patient, "-o", "b", "--precision", "int8", *flags) == 2
    assert not (tmp_path / "b").exists()


def test_a_budget_nobody_meets_exits_1_with_a_way_out(patient, tmp_path, capsys, monkeypatch):
    from hrm_edge.bundle.quantization import Trial
    from hrm_edge.exporters.search import budget as search

    def lost(plan, what, segment, trials, max_drop=None):
        return Trial(what, 100, 0.4, 0.5, 10, 0, 1.0, 1.0, 0.5, 1.0)

    monkeypatch.setattr(search, "try_plan", lost)
    monkeypatch.setattr(quantize, "try_plan", lost)
    assert command(patient, "-o", "b", "--precision", "int8", "--gate-puzzles", 8, "--calibration", 8) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hrm-edge: no mix of int8")
    assert "--qat" in line
    assert not (tmp_path / "b").exists()
