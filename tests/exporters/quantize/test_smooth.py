"""SmoothQuant: nothing changes in float, and inputs and weights share their spread as the strength says."""

import copy

import numpy as np
import onnx
import pytest
import torch
from run_onnx import run
from traced_networks import calibration, feeds, float_weights, stored_bytes, with_outputs

from hrm_edge.exporters.graph.edit import PassFailed, array_of, initializers
from hrm_edge.exporters.graph.layers import products
from hrm_edge.exporters.quantize.smooth import smooth
from hrm_edge.models import collect_ranges, quantized_layers
from hrm_edge.models.smoothing import smoothing_factors

STRENGTHS = (0.25, 0.5, 0.85)


@pytest.fixture(scope="module")
def seen(traced):
    model, _, _ = traced("rope")
    return collect_ranges(model, calibration().questions)


def smoothed(traced, seen, strength=0.85):
    """(model, float segment, smoothed segment, factors)"""
    model, _, segment = traced("rope")
    before = onnx.ModelProto.FromString(segment.SerializeToString())
    factors = smoothing_factors(model, seen.channel_absmax, strength)
    smooth(segment, factors)
    return model, before, segment, factors


def test_only_what_is_free_is_smoothed(traced, seen):
    model, _, _, factors = smoothed(traced, seen)
    expected = {name for name in quantized_layers(model) if name.endswith(("o_proj", "down_proj"))}
    assert set(factors) == expected
    for layer, s in factors.items():
        assert s.dtype == np.float32
        assert s.shape == (model.get_submodule(layer).in_features,)
        assert (s > 0).all()
        assert np.isfinite(s).all()
        assert np.exp(np.log(s.astype(np.float64)).mean()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_segments_results_stay_the_same(traced, seen, backend, strength):
    model, before, segment, factors = smoothed(traced, seen, strength)
    assert max(np.abs(np.log(s)).max() for s in factors.values()) > 0.1  # or there is nothing to see
    values = feeds(model)
    exact, again = run(backend, before, values), run(backend, segment, values)
    for name, array in exact.items():
        np.testing.assert_allclose(again[name], array, atol=1e-4 * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_input_and_weight_share_the_spread_as_the_strength_says(traced, seen, strength):
    """At 0.5 each channel's largest input and weight are in one proportion; nearer to 1 the weight takes more."""
    _, _, segment, factors = smoothed(traced, seen, strength)
    stored = {name: array_of(tensor) for name, tensor in initializers(segment.graph).items()}
    for layer, s in factors.items():
        x = seen.channel_absmax[layer] / s
        w = np.abs(stored[f"{layer}.weight"]).max(axis=1)
        share = strength * np.log(x) - (1 - strength) * np.log(w)
        np.testing.assert_allclose(share, share.mean(), atol=1e-3)


def test_inputs_are_what_the_factors_promised(traced, seen):
    """The input of each smoothed product is the one of before, channel by channel over the factor; others stay."""
    model, before, segment, factors = smoothed(traced, seen)
    values = feeds(model)
    old, new = (run("onnx", with_outputs(m, [p.input for p in products(m)]), values) for m in (before, segment))
    for was, now in zip(products(before), products(segment), strict=True):
        assert was.name == now.name
        s = factors.get(was.layer, np.float32(1))
        x = {**values, **old}[was.input]
        np.testing.assert_allclose({**values, **new}[now.input] * s, x, atol=1e-4 * np.abs(x).max())


def test_what_was_seen_with_factors_is_what_the_smoothed_graph_reads(traced, seen):
    """Calibration divides by the factors rather than running the smoothed graph: both must agree."""
    model, _, segment, factors = smoothed(traced, seen)
    questions = calibration().questions
    ranges = collect_ranges(model, questions, segments="first", smoothing=factors)
    e, (z_H, z_L) = model.embed(torch.from_numpy(questions)), model.initial_state(len(questions))
    values = {"z_H": z_H.numpy(), "z_L": z_L.numpy(), "e": e.numpy()}
    values |= run("onnx", with_outputs(segment, [p.input for p in products(segment)]), values)
    for p in products(segment):
        assert np.abs(values[p.input]).max() == pytest.approx(ranges.histograms[p.site].absmax, rel=1e-3), p.site


def test_smoothing_makes_spread_inputs_easier_to_round(traced):
    """A channel of `up` a hundred times the others: int8 of the down product loses most of its error."""
    model, _, segment = traced("rope")
    up, down = (f"L_level.layers.0.mlp.{part}_proj" for part in ("up", "down"))
    arrays = {t.name: array_of(t) for t in segment.graph.initializer}
    wide = arrays[f"{up}.weight"].copy()
    wide[:, 3] *= 100
    narrow = arrays[f"{down}.weight"].copy()
    narrow[3] /= 100
    for tensor in segment.graph.initializer:
        for name, array in ((f"{up}.weight", wide), (f"{down}.weight", narrow)):
            if tensor.name == name:
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    values, absmax, error = feeds(model), {}, []
    found = {p.layer: p for p in products(segment)}
    read = values | run("onnx", with_outputs(segment, [p.input for p in found.values()]), values)
    for layer, p in found.items():
        absmax[layer] = np.abs(read[p.input]).max(axis=(0, 1))
    changed = copy.deepcopy(model)
    changed.get_submodule(down).weight.copy_(torch.from_numpy(narrow.T))
    factors = smoothing_factors(changed, absmax, 0.5)
    for s in (np.ones(len(narrow), np.float32), factors[down]):
        x, w = read[found[down].input] / s, narrow * s[:, None]
        step, grid = np.abs(x).max() / 127, np.abs(w).max(0) / 127
        error.append(np.linalg.norm(np.rint(x / step) * step @ (np.rint(w / grid) * grid) - x @ w))
    assert error[1] < 0.2 * error[0]


def test_weights_alone_change_and_only_those_of_the_pair(traced, seen):
    model, before, segment, factors = smoothed(traced, seen)
    assert [n.SerializeToString() for n in before.graph.node] == [n.SerializeToString() for n in segment.graph.node]
    assert stored_bytes(segment) == stored_bytes(before)
    old, new = initializers(before.graph), initializers(segment.graph)
    changed = {name for name in old if old[name].SerializeToString() != new[name].SerializeToString()}
    beside = {"o_proj": "v_proj", "down_proj": "up_proj"}
    expected = {f"{layer}.weight" for layer in factors}
    for layer in factors:
        parent, _, last = layer.rpartition(".")
        expected.add(f"{parent}.{beside[last]}.weight")
    assert changed == expected
    assert changed < set(float_weights(model))


def test_dead_channels_do_not_blow_up(traced, seen):
    model, _, _ = traced("rope")
    absmax = {layer: channels.copy() for layer, channels in seen.channel_absmax.items()}
    for channels in absmax.values():
        channels[::7] = 0
    for strength in (0.1, 0.9):
        for s in smoothing_factors(model, absmax, strength).values():
            assert np.isfinite(s).all()
            assert (s > 0).all()


def test_the_same_bytes_twice(traced, seen):
    first, second = (smoothed(traced, seen)[2].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_factors_for_what_cannot_take_them_are_refused(traced):
    _, _, segment = traced("rope")
    with pytest.raises(PassFailed, match=r"nothing before L_level\.layers\.0\.self_attn\.qkv_proj"):
        smooth(segment, {"L_level.layers.0.self_attn.qkv_proj": np.ones(32, np.float32)})
