"""Quantized bundles from beginning to end: exported, opened, read, answering alike, refused when asked wrong."""

import hashlib
import itertools
import json

import numpy as np
import pytest
from patient_networks import with_bias
from small_networks import TASK
from traced_networks import expected_products, traced
from ungated import build_bundle

from hrm_edge.bundle import open_bundle
from hrm_edge.bundle.quantization import QUANTIZATION, read_quantization
from hrm_edge.data.choose import gate_puzzles
from hrm_edge.data.leaks import fingerprints
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.build import ExportOptions
from hrm_edge.exporters.search import decide as quantize
from hrm_edge.exporters.search.decide import Quantizing
from hrm_edge.models import load_checkpoint, quantized_layers, save_checkpoint
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import load_engine

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("untrained", "patient_exports")

TARGETS, LOOPS, PRECISIONS = ("onnx", "openvino"), ("graph", "host"), ("int8", "int8-weights", "int4-weights")
REPORT, REPORTED = {"report.json", "report.md", "report.html"}, "onnx-int8-graph"
QUICK = Quantizing(calibration=12, sensitivity=0, max_drop=100.0)


@pytest.fixture(scope="module")
def exported(patient, tmp_path_factory):
    """Each kind of bundle, exported once: (folder, what the export returned, puzzles of its gate)."""
    root, made = tmp_path_factory.mktemp("bundles"), {}

    def get(target, precision, loop):
        pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
        options = ExportOptions(target, precision, loop)
        if options not in made:
            source = load_checkpoint(patient)
            puzzles = gate_puzzles(source, None, 16)
            folder = root / options.suffix
            # One report is enough to see that it is there; measuring for it takes longest.
            gate = GateOptions(puzzles, max_drop=100, report=options.suffix == REPORTED)
            made[options] = folder, export_bundle(source, options, folder, gate, QUICK, threads=1), puzzles
        return made[options]

    return get


def kinds(*columns):
    """All combinations; those of OpenVINO with weight-only precisions are left to the slow set."""
    for values in itertools.product(*columns):
        late = "openvino" in values and ("int8-weights" in values or "int4-weights" in values)
        yield pytest.param(*values, marks=[pytest.mark.slow] * late)


KINDS = list(kinds(TARGETS, PRECISIONS, LOOPS))


@pytest.mark.parametrize(("target", "precision", "loop"), KINDS)
def test_a_bundle_opens_and_tells_how_it_was_quantized(exported, patient, target, precision, loop):
    folder, made, puzzles = exported(target, precision, loop)
    bundle = open_bundle(folder)
    manifest, record = bundle.manifest, read_quantization(bundle)
    assert record == made.quantization
    assert manifest == made.manifest
    assert (manifest.target, manifest.precision, manifest.loop) == (target, precision, loop)
    assert manifest.gate.passed is True
    model = load_checkpoint(patient)
    assert (record.precision, record.checkpoint) == (precision, model.content_hash)
    assert manifest.source["content_hash"] == model.content_hash
    asked = expected_products(model.model)
    assert (record.products.expected, record.products.found, record.products.missing) == (
        len(asked),
        len(asked),
        (),
    )
    assert {layer.name for layer in record.layers} == set(quantized_layers(model.model))
    kind = precision.removesuffix("-weights")
    assert {layer.dtype for layer in record.layers if not layer.kept} == {kind}
    assert manifest.precision_parts["weights"].startswith(kind)
    assert len(record.sites) == (0 if "weights" in precision else len({layer.name for layer in record.layers}))
    assert not set(record.calibration.fingerprints) & set(fingerprints(puzzles))
    assert record.calibration.n <= QUICK.calibration
    # A quarter or an eighth of what the blocks weigh; embeddings and heads stay as they were.
    blocks = sum(model.model.get_submodule(name).weight.numel() for name in quantized_layers(model.model))
    saved = record.float_weights_bytes - record.weights_bytes
    assert (0.68 if kind == "int8" else 0.8) * 4 * blocks < saved < (0.75 if kind == "int8" else 0.875) * 4 * blocks
    stored = sum(file.stat().st_size for file in folder.glob("*.onnx" if target == "onnx" else "*.bin"))
    assert record.weights_bytes * 0.9 < stored < record.weights_bytes + 60_000


def names_in(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("target", "precision", "loop"), KINDS)
def test_report_files_are_in_the_bundle_where_one_was_asked_for(exported, target, precision, loop):
    folder, made, _ = exported(target, precision, loop)
    names = names_in(folder)
    assert QUANTIZATION in names
    assert names >= REPORT if folder.name == REPORTED else not names & REPORT
    assert names - {"manifest.json"} == set(made.manifest.files)
    if names >= REPORT:
        report = json.loads((folder / "report.json").read_text())
        assert report["bundle"]["precision"] == precision
        assert report["quantization"] is not None


@pytest.mark.parametrize("precision", ["int8", *(pytest.param(p, marks=pytest.mark.slow) for p in PRECISIONS[1:])])
def test_both_backends_and_both_loops_answer_alike(exported, precision):
    """The same quantized numbers: only the order of sums, and what a kernel rounds on its way, differ."""
    questions = generate_puzzles(TASK, 40, 77, "ordinary").questions
    engines = {
        (target, loop): load_engine(exported(target, precision, loop)[0], threads=1)
        for target, loop in itertools.product(TARGETS, LOOPS)
    }
    answers = {kind: engine.solve(questions, max_think_steps=2, halt="fixed") for kind, engine in engines.items()}
    for target in TARGETS:
        one, other = (answers[target, loop] for loop in LOOPS)
        assert (one.tokens == other.tokens).mean() > 0.97, target
        np.testing.assert_allclose(one.q, other.q, atol=0.05)
    for loop in LOOPS:
        one, other = (answers[target, loop] for target in TARGETS)
        # 8-bit: alike. 4-bit has another set of scales for none of them.
        assert (one.tokens == other.tokens).mean() > 0.95, loop
        np.testing.assert_allclose(one.q, other.q, atol=0.15)


@pytest.mark.parametrize(("target", "precision"), kinds(TARGETS, PRECISIONS))
def test_answers_are_near_those_of_the_checkpoint(exported, patient, target, precision):
    """Far nearer than another network's: the bundle holds this one."""
    questions = generate_puzzles(TASK, 40, 77, "ordinary").questions
    ours = load_engine(exported(target, precision, "host")[0], threads=1)
    theirs = TorchEngine(load_checkpoint(patient))
    one, other = (engine.solve(questions, max_think_steps=1, halt="fixed") for engine in (ours, theirs))
    assert (one.tokens == other.tokens).mean() > (0.95 if precision != "int4-weights" else 0.75)
    spread = np.abs(other.q - other.q.mean(axis=0)).mean()
    assert np.abs(one.q - other.q).mean() < (0.2 if precision != "int4-weights" else 1) * spread


@pytest.mark.parametrize(
    ("target", "precision"), [("onnx", "int8"), ("onnx", "int8-weights"), ("openvino", "int4-weights")]
)
def test_the_same_export_twice_is_the_same_bytes(patient, tmp_path, target, precision):
    """Graphs, record and manifest."""
    found = []
    for i in range(2):
        folder = tmp_path / str(i) / "b"
        folder.parent.mkdir()
        quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
        export_bundle(load_checkpoint(patient), ExportOptions(target, precision), folder, GateOptions(None), quick)
        found.append({file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in names_in(folder)})
    assert found[0] == found[1]


def test_layers_are_kept_until_the_budget_holds_and_the_record_says_why(patient, tmp_path, monkeypatch):
    """Trials told what to say: nothing holds before two layers stay in float."""
    from hrm_edge.bundle.quantization import Trial
    from hrm_edge.exporters.search import budget as search

    def scripted(plan, what, segment, trials, max_drop=None):
        alone = len(plan.keep) == len(quantized_layers(load_checkpoint(patient).model)) - 1
        lost = ("down_proj" in what) * 9 if alone else 10 * (len(plan.keep) < 2)
        return Trial(what, 100, 0.5, 0.5, lost, 0, 1.0, 1.0, 0.5, 1.0)

    monkeypatch.setattr(search, "try_plan", scripted)
    monkeypatch.setattr(quantize, "try_plan", scripted)
    source = load_checkpoint(patient)
    gate = GateOptions(gate_puzzles(source, None, 8), max_drop=100, report=False)
    options, wanted = ExportOptions("onnx", "int8", "host"), Quantizing(calibration=8, sensitivity=4, max_drop=1.0)
    made = export_bundle(source, options, tmp_path / "b", gate, wanted, threads=1)
    record = read_quantization(open_bundle(tmp_path / "b"))
    kept = {layer.name: layer for layer in record.layers if layer.kept}
    assert set(kept) == {f"{level}_level.layers.0.mlp.down_proj" for level in "HL"}
    assert all(layer.dtype == "float32" and "loses 9" in layer.kept for layer in kept.values())
    assert all(made.manifest.precision_parts[f"layer {name}"] == "float32" for name in kept)
    assert record.products.found == record.products.expected == len(expected_products(source.model)) - 2
    assert record.products.kinds["float32 × float32"] >= 3  # the two, and the head
    assert [trial.lost for trial in record.budget][-1] == 0
    assert len(record.sensitivity) == 8
    assert not {site.name.rpartition("/")[0] for site in record.sites} & set(kept)


@pytest.mark.parametrize("target", TARGETS)
def test_layers_with_wide_inputs_are_audited_and_say_why(patient, tmp_path, monkeypatch, target):
    """Trials told what to say: nothing holds before two layers have 16 bits of input."""
    from hrm_edge.bundle.quantization import Trial
    from hrm_edge.exporters.search import budget as search

    def scripted(plan, what, segment, trials, max_drop=None):
        lost = ("down_proj" in what) * 9 if len(plan.keep) == 7 else 10 * (len(plan.wide) < 2)
        return Trial(what, 100, 0.5, 0.5, lost, 0, 1.0, 1.0, 0.5, 1.0)

    monkeypatch.setattr(search, "try_plan", scripted)
    monkeypatch.setattr(quantize, "try_plan", scripted)
    source = load_checkpoint(patient)
    gate = GateOptions(gate_puzzles(source, None, 8), max_drop=100, report=False)
    options, wanted = ExportOptions(target, "int8"), Quantizing(calibration=8, sensitivity=4, max_drop=1.0)
    made = export_bundle(source, options, tmp_path / "b", gate, wanted, threads=1)
    record = read_quantization(open_bundle(tmp_path / "b"))
    wide = {layer.name: layer for layer in record.layers if layer.kept}
    assert set(wide) == {f"{level}_level.layers.0.mlp.down_proj" for level in "HL"}
    assert all(layer.dtype == "int8" and "loses 9" in layer.kept for layer in wide.values())
    assert record.products.found == record.products.expected == len(expected_products(source.model)) + 2
    assert sum(any(name in part for name in wide) for part in made.manifest.precision_parts) == 2


def test_a_failed_gate_publishes_nothing_and_keeps_what_was_there(patient, tmp_path, monkeypatch):
    source = load_checkpoint(patient)
    puzzles = gate_puzzles(source, None, 8)
    good = export_bundle(source, ExportOptions("onnx", "int8"), tmp_path / "b", GateOptions(None), QUICK).manifest
    real = build.wrap_in_loop

    def hasty(start, segment, *facts):
        return real(start, with_bias(segment, (50, -50)), *facts)

    monkeypatch.setattr(build, "wrap_in_loop", hasty)
    with pytest.raises(GateFailed, match=r"halting moved .* nothing was published"):
        export_bundle(source, ExportOptions("onnx", "int8"), tmp_path / "b", GateOptions(puzzles, 100.0), QUICK)
    assert open_bundle(tmp_path / "b").manifest == good
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_a_bundle_for_timing_is_audited_by_nobody_but_built_alike(patient, tmp_path):
    for precision in PRECISIONS:
        folder = tmp_path / precision
        folder.mkdir()
        manifest = build_bundle(load_checkpoint(patient), ExportOptions("onnx", precision), folder, "b")
        assert manifest.gate.ran is False
        assert manifest.precision == precision
        assert open_bundle(folder).manifest == manifest
        assert read_quantization(open_bundle(folder)) is None
        tokens = generate_puzzles(TASK, 2, 1, "ordinary").questions
        assert load_engine(folder, 1).solve(tokens).tokens.shape == (2, 16)


def test_a_float_bundle_has_no_record(patient, tmp_path):
    source = load_checkpoint(patient)
    gate = GateOptions(gate_puzzles(source, None, 8), max_drop=100)
    made = export_bundle(source, ExportOptions("onnx", "fp32"), tmp_path / "b", gate, threads=1)
    assert made.quantization is None
    assert not {file.name for file in (tmp_path / "b").iterdir()} & {QUANTIZATION, *REPORT}
    assert read_quantization(open_bundle(tmp_path / "b")) is None


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_called_many_times_are_stored_once_in_the_bundle(tmp_path, monkeypatch, precision):
    """A network with three calls of its L layer, through both targets and both loops."""
    for i, name in enumerate(("trace_start", "trace_segment")):
        monkeypatch.setattr(build, name, lambda model, i=i: traced("learned")[1 + i])
    folder = save_checkpoint(tmp_path / "learned", traced("learned")[0], TASK.name, "card")
    source = load_checkpoint(folder)
    asked = expected_products(source.model)
    blocks = sum(source.model.get_submodule(name).weight.numel() for name in quantized_layers(source.model))
    for target, loop in itertools.product(TARGETS, LOOPS):
        options, quick = ExportOptions(target, precision, loop), Quantizing(calibration=8, sensitivity=0)
        made = export_bundle(source, options, tmp_path / options.suffix, GateOptions(None), quick)
        assert made.quantization.products.found == len(asked) == 28
        assert made.quantization.weights_bytes < made.quantization.float_weights_bytes - 0.68 * 4 * blocks
        assert len(made.quantization.sites) in (0, 16)


def test_weights_that_do_not_fill_blocks_are_one_line(tmp_path):
    from onnx import numpy_helper

    model, start, segment = traced("grid")
    for tensor in segment.graph.initializer:
        if tensor.name.endswith("H_level.layers.0.self_attn.o_proj.weight"):
            tensor.CopyFrom(numpy_helper.from_array(np.ones((40, 32), np.float32), tensor.name))
    from small_networks import checkpoint

    source = checkpoint(model)
    options = ExportOptions("onnx", "int4-weights", "host")
    plan = build.quick_plan(source, start, traced("grid")[2], "int4-weights", "onnx")
    with pytest.raises(InputError, match=r"o_proj\.weight has 40 rows") as caught:
        build.build_graphs(source, start, segment, options, plan)
    assert "\n" not in str(caught.value)
