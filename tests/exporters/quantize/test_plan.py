"""Plans: what is decided from calibration, what is applied, and what is found wrong in a graph afterwards."""

import dataclasses
import re

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import TASK, checkpoint
from traced_networks import calibration, expected_products, float_weights, plan, weight_plan

from hrm_edge.data.leaks import fingerprints
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.exporters.graph.edit import array_of, initializers
from hrm_edge.exporters.quantize import int8
from hrm_edge.exporters.quantize.plan import Calibrator, Recipe, wrong_scales
from hrm_edge.exporters.search import decide as quantize
from hrm_edge.exporters.search.decide import Quantizing, calibration_puzzles, decide, selection_puzzles
from hrm_edge.models import collect_ranges, quantized_layers
from hrm_edge.models.ranges import ESTIMATORS
from hrm_edge.models.trained_scales import TrainedScales

KEPT = "L_level.layers.0.mlp.gate_up_proj"
SITE = "L_level.layers.0.mlp.down_proj/2"


def sites(model) -> set[str]:
    calls = {"H_level": model.config.H_cycles, "L_level": model.config.H_cycles * model.config.L_cycles}
    return {f"{layer}/{k}" for layer in quantized_layers(model) for k in range(calls[layer.split(".")[0]])}


def applied(traced, wanted, target="openvino"):
    return wanted.apply(traced("rope")[2], target)[0]


def with_scale(segment: onnx.ModelProto, site: str, factor: float) -> onnx.ModelProto:
    """A copy in whose graph one scale is another."""
    copy = onnx.ModelProto.FromString(segment.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.name == f"{site}.input_scale":
            array = np.float32(array_of(tensor) * np.float32(factor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), tensor.name))
            return copy
    raise AssertionError(f"no scale of {site}")


# -- scales --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_site_has_the_scale_of_its_own_range(traced, estimator):
    model = traced("rope")[0]
    made = plan("rope", Recipe(estimator, "last", 0.0))
    ranges = collect_ranges(model, calibration().questions, segments="last")
    assert made.scales == {site: h.scale(estimator) for site, h in ranges.histograms.items()}
    assert set(made.scales) == sites(model)
    assert (made.precision, made.keep, made.factors) == ("int8", {}, {})


def test_smoothed_scales_are_of_smoothed_inputs(traced):
    model = traced("rope")[0]
    made, plain = plan("rope", Recipe("minmax", "all", 0.5)), plan("rope", Recipe("minmax", "all", 0.0))
    ranges = collect_ranges(model, calibration().questions, segments="all", smoothing=made.factors)
    for site, scale in made.scales.items():
        assert scale == pytest.approx(ranges.histograms[site].absmax / 127, rel=1e-6)
        changed = site.rpartition("/")[0] in made.factors
        assert changed == site.rpartition("/")[0].endswith(("o_proj", "down_proj"))
        assert changed or scale == plain.scales[site]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (
            {"estimator": "average"},
            "--calibration-method average: unknown; choose minmax, percentile, mse, entropy",
        ),
        ({"smooth": 1.0}, "--smooth 1: the strength must be at least 0 and below 1"),
        ({"smooth": -0.1}, "--smooth -0.1: the strength"),
        ({"smooth": float("nan")}, "--smooth nan: the strength"),
        ({"segments": "some"}, "--calibration-segments some: unknown; choose all"),
    ],
)
def test_recipes_that_do_not_exist_are_one_line(choice, said):
    with pytest.raises(InputError, match=f"^{re.escape(said)}") as caught:
        Recipe(**choice)
    assert "\n" not in str(caught.value)


def test_a_rollout_is_made_once_for_all_estimators(traced, monkeypatch):
    from hrm_edge.exporters.quantize import plan as module

    model, _, segment = traced("grid")
    asked, collect = [], module.collect_ranges
    monkeypatch.setattr(module, "collect_ranges", lambda *a, **k: asked.append(k["segments"]) or collect(*a, **k))
    calibrator = Calibrator(checkpoint(model), segment, calibration())
    for estimator in ESTIMATORS:
        calibrator.plan(Recipe(estimator, "first", 0.5))
    assert asked == ["first", "first"]  # plain, for the factors, and smoothed


def test_trained_scales_are_shared_by_all_calls(traced):
    model, _, segment = traced("rope")
    learned = {layer: 0.01 * (i + 1) for i, layer in enumerate(quantized_layers(model))}
    made = Calibrator(checkpoint(model), segment, calibration()).trained_plan(TrainedScales(8, learned, True, "x"))
    assert set(made.scales) == sites(model)
    for site, scale in made.scales.items():
        assert scale == learned[site.rpartition("/")[0]]
    assert (made.factors, made.recipe) == ({}, None)
    quantized = made.apply(segment, "openvino")[0]
    assert int8.input_scales(quantized) == {site: float(np.float32(scale)) for site, scale in made.scales.items()}
    # The weights were trained to be rounded to nearest, and so they are.
    tensors = initializers(quantized.graph)
    for name, weight in float_weights(model).items():
        nearest = np.rint(weight / (np.abs(weight).max(0) / np.float32(127)))
        np.testing.assert_array_equal(array_of(tensors[name]), nearest)


# -- applying ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4-weights"])
def test_applying_leaves_the_float_segment_and_gives_the_same_bytes(traced, target, precision):
    model, _, segment = traced("rope")
    before = segment.SerializeToString()
    made = plan("rope") if precision == "int8" else weight_plan("rope", precision)
    first, names = made.apply(segment, target)
    again, _ = made.apply(segment, target)
    assert segment.SerializeToString() == before
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert sorted(names) == sorted(expected_products(model))


def test_kept_layers_are_not_quantized_and_say_why(traced):
    model, _, segment = traced("rope")
    made = plan("rope").keeping({KEPT: "too sensitive"}).keeping({"H_level.layers.1.self_attn.o_proj": "this too"})
    assert set(made.keep) == {KEPT, "H_level.layers.1.self_attn.o_proj"}
    assert plan("rope").keep == {}
    graph, names = made.apply(segment, "openvino")
    kept = {"gate_proj", "up_proj"}
    assert set(expected_products(model)) - set(names) == {
        name
        for name in expected_products(model)
        if (name.startswith("L_level.layers.0.mlp.") and name.split(".")[-1].split("/")[0] in kept)
        or name.startswith("H_level.layers.1.self_attn.o_proj")
    }
    layers = {layer.name: layer for layer in made.layers(segment, "openvino")}
    assert (layers[KEPT].dtype, layers[KEPT].kept, layers[KEPT].error) == ("float32", "too sensitive", 0)
    assert made.parts("openvino")[f"layer {KEPT}"] == "float32"
    assert not any(site.name.startswith(KEPT) for site in made.sites())
    assert wrong_scales(made, graph) == []


@pytest.mark.parametrize("recipe", [Recipe(smooth=0.0), Recipe()])
def test_a_layers_error_is_that_of_its_products(traced, recipe):
    """With what int8 really stands for in the graph, over the inputs that calibration saw: E is x (W - stored)."""
    model, _, segment = traced("rope")
    made = plan("rope", recipe)
    stored = initializers(made.apply(segment, "onnx")[0].graph)
    weights = float_weights(model)
    layers = made.layers(segment, "onnx")
    assert [layer.name for layer in layers if layer.dtype == "int8"] == [layer.name for layer in layers]
    assert {layer.name for layer in layers} == set(quantized_layers(model))
    for layer in layers:
        if layer.name.endswith(("qkv_proj", "gate_up_proj")):
            continue  # v and up are divided by the next layer's factors, whose error that counts as
        name = f"{layer.name}.weight"
        s = made.factors.get(layer.name, np.ones(len(weights[name]), np.float32))[:, None]
        smoothed = weights[name] * s
        real = array_of(stored[name]) * array_of(stored[f"{name}_scale"])
        values, vectors = np.linalg.eigh(made.ranges.grams[layer.name])  # gram = XᵀX, so X may be its root
        x = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        error = np.linalg.norm(x @ (smoothed - real)) / np.linalg.norm(x @ smoothed)
        assert layer.error == pytest.approx(error, rel=1e-3)
        assert 0.0001 < layer.error < 0.05
        assert layer.absmax == np.abs(weights[name]).max()


def test_sites_tell_what_calibration_saw_and_what_is_clipped(traced):
    model = traced("rope")[0]
    made = plan("rope", Recipe("percentile", "all", 0.0))
    half = dataclasses.replace(made, scales={site: scale / 2 for site, scale in made.scales.items()})
    for wanted in (made, half):
        assert {site.name for site in wanted.sites()} == sites(model)
        for site in wanted.sites():
            seen = made.ranges.histograms[site.name]
            assert (site.absmax, site.scale) == (seen.absmax, wanted.scales[site.name])
            assert site.clipped == seen.beyond(127 * site.scale)
    assert max(site.clipped for site in made.sites()) < 0.001 < max(site.clipped for site in half.sites())


def test_parts_say_which_part_is_what(traced):
    assert plan("grid").parts("openvino")["matrix products"] == "int8"
    assert plan("grid").parts("openvino")["carried state"] == plan("grid").parts("openvino")["softmax"] == "float32"
    assert weight_plan("grid", "int4-weights").parts("openvino")["weights"] == "int4"
    assert weight_plan("grid", "int8-weights").parts("openvino")["matrix products"] == "float32"
    assert "int8" in weight_plan("grid", "int8-weights").parts("onnx")["matrix products"]


# -- what is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe("minmax", "all", 0.0)])
def test_nothing_is_wrong_with_what_was_just_quantized(traced, recipe, target):
    assert wrong_scales(plan("rope", recipe), applied(traced, plan("rope", recipe), target)) == []


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_weight_only_graphs_have_no_scales_to_be_wrong(traced, precision):
    made = weight_plan("rope", precision)
    assert wrong_scales(made, applied(traced, made)) == []


@pytest.mark.parametrize("factor", [4, 0.25, 1.3, 0.7])
def test_one_scale_that_is_another_is_named_with_its_factor(traced, factor):
    made = plan("rope")
    (line,) = wrong_scales(made, with_scale(applied(traced, made), SITE, factor))
    assert SITE in line
    assert f"{factor:.2f} ×" in line


@pytest.mark.parametrize("factor", [1.2, 0.85])
def test_a_scale_may_differ_a_little(traced, factor):
    made = plan("rope")
    assert wrong_scales(made, with_scale(applied(traced, made), SITE, factor)) == []


@settings(max_examples=30)
@given(st.integers(0, 7), st.floats(1.3, 100), st.booleans())
def test_any_site_is_looked_at(traced, number, factor, smaller):
    made = plan("grid")
    site = sorted(made.scales)[number]
    graph = with_scale(made.apply(traced("grid")[2], "onnx")[0], site, 1 / factor if smaller else factor)
    (line,) = wrong_scales(made, graph)
    assert site in line


def test_a_quantizer_that_is_not_there_is_named(traced):
    made = plan("rope")
    without = made.keeping({KEPT: "taken out unseen"})
    lines = wrong_scales(made, applied(traced, without))
    assert len(lines) == 4
    assert all(f"{KEPT}/{k} has no input scale" in lines for k in range(4))


def test_scales_that_clip_what_was_seen_are_named(traced):
    """Even where the plan itself asks for them."""
    made = plan("rope")
    narrow = dataclasses.replace(made, scales={**made.scales, SITE: made.scales[SITE] / 20})
    (line,) = wrong_scales(narrow, applied(traced, narrow))
    assert SITE in line
    assert "saturates" in line
    clipped = made.ranges.histograms[SITE].beyond(127 * narrow.scales[SITE])
    assert f"{clipped:.1%}" in line


# -- deciding ------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quantize, "SELECTION_PUZZLES", 40)  # what is chosen is not looked at here


def few() -> PuzzleSet:
    return generate_puzzles(TASK, 8, 900, "ordinary")


def others() -> PuzzleSet:
    """Puzzles whose solutions are none of the few."""
    many, seen = generate_puzzles(TASK, 12, 901, "ordinary"), set(fingerprints(few()))
    apart = [row for row in range(12) if not seen & set(fingerprints(many.select(np.array([row]))))]
    assert len(apart) > 6
    return many.select(np.array(apart))


def test_what_is_calibrated_chosen_and_measured_on_never_meets(traced):
    source = checkpoint(traced("grid")[0], held_out={"seed": 5, "difficulty": "ordinary", "n": 40})
    measured = generate_puzzles(TASK, 60, 105, "ordinary")  # the very seed that calibration takes
    some = calibration_puzzles(source, Quantizing(calibration=64), measured)
    choosing = selection_puzzles(source, measured, some, Quantizing(calibration=64), 1000)
    sets = [set(fingerprints(puzzles)) for puzzles in (some, choosing, measured)]
    assert all(sets)
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    assert len(calibration_puzzles(source, Quantizing(calibration=64), None)) == 64


def test_calibration_data_is_drawn_and_leaks_are_refused(traced):
    source = checkpoint(traced("grid")[0])
    data = generate_puzzles(TASK, 40, 31, "ordinary")
    some = calibration_puzzles(source, Quantizing(calibration=10, data=data), None)
    assert len(some) == 10
    rows = {question.tobytes() for question in data.questions}
    assert all(question.tobytes() in rows for question in some.questions)
    with pytest.raises(InputError, match=rf"--calibration-data {data.name}: .* used for calibration"):
        calibration_puzzles(source, Quantizing(calibration=40, data=data), data.select(np.array([7])))


def test_when_every_puzzle_is_measured_there_is_none_to_calibrate_on(traced):
    source = checkpoint(traced("grid")[0])
    everything = generate_puzzles(TASK, 4000, 1, "ordinary")  # 4×4 has 288 solutions
    with pytest.raises(InputError, match="--calibration-data"):
        calibration_puzzles(source, Quantizing(calibration=8), everything)


@pytest.mark.parametrize("precision", ["fp32", "int2"])
def test_what_is_no_quantized_precision_is_refused(traced, precision):
    model, start, segment = traced("grid")
    with pytest.raises(InputError, match=f"--precision {precision} is not a quantized one"):
        decide(checkpoint(model), start, segment, precision, "onnx", Quantizing())


def decided(traced, **wanted):
    model, start, segment = traced("rope")
    quick = Quantizing(data=few(), **{"sensitivity": 0, **wanted})
    return decide(checkpoint(model), start, segment, "int8", "onnx", quick, others(), threads=1)


def test_a_decision_without_a_budget_tries_nothing(traced, cache, monkeypatch):
    monkeypatch.setattr(quantize, "Trials", None)
    made = decided(traced, max_drop=None, recipe=Recipe("minmax", "first", 0.0))
    assert (made.comparison, made.sensitivity, made.budget, made.trained) == ((), (), (), False)
    facts = made.calibration
    assert (facts.n, facts.segments, facts.estimator, facts.smooth) == (8, "first", "minmax", 0.0)
    assert facts.samples == 8
    assert facts.fingerprints == fingerprints(few())


def test_sensitivity_is_measured_when_asked_for_or_needed(traced, cache):
    """Not when the plan holds at once; for each layer, on as many puzzles as were asked, else."""
    assert decided(traced, max_drop=100.0).sensitivity == ()
    made = decided(traced, max_drop=100.0, sensitivity=6)
    assert [t.what for t in made.sensitivity] == [
        layer.name for layer in made.plan.layers(traced("rope")[2], "onnx")
    ]
    assert {t.n for t in made.sensitivity} == {6}
    assert len(made.budget) == 1
    assert made.budget[0].drop_points <= 100


def test_a_budget_that_nothing_meets_fails_with_the_best(traced, cache):
    with pytest.raises(GateFailed, match=r"no mix of int8.* loses at most -100 points"):
        decided(traced, max_drop=-100.0, sensitivity=4)


@pytest.mark.slow
def test_comparing_recipes_tries_them_all_and_takes_an_honest_one(traced, cache):
    made = decided(traced, max_drop=100.0, recipe=None)
    assert len(made.comparison) >= 10
    assert made.plan.recipe.segments != "random"
    assert str(made.plan.recipe) in [t.what for t in made.comparison]
    assert any("random" in t.what for t in made.comparison)
