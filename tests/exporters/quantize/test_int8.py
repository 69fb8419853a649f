"""Quantized segments against int8 arithmetic written out in numpy, product by product and as a whole."""

import copy
import dataclasses

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from run_onnx import run
from traced_networks import expected_products, feeds, float_weights, plan, stored_bytes, with_outputs

from hrm_edge.exporters.graph.edit import PassFailed, array_of, initializers
from hrm_edge.exporters.graph.layers import products
from hrm_edge.exporters.quantize import int8
from hrm_edge.exporters.quantize.plan import Recipe
from hrm_edge.models import quantized_layers
from hrm_edge.models.fake_quant import fake_quantize

PLAIN = Recipe(smooth=0.0)
FORMS = {"signed": False, "unsigned": True}


def nearest(name: str, recipe: Recipe = PLAIN):
    """A plan whose weights are rounded to nearest, so that they are known without asking it."""
    made = plan(name, recipe)
    return dataclasses.replace(made, ranges=dataclasses.replace(made.ranges, grams={}))


def quantized(traced, name: str, unsigned: bool = False, keep=(), wide=()):
    """(model, float segment, quantized segment, names of its int8 products)"""
    model, _, segment = traced(name)
    made = nearest(name).keeping(dict.fromkeys(keep, "told to")).widening(dict.fromkeys(wide, "told to"))
    return model, segment, *made.apply(segment, "onnx" if unsigned else "openvino")


def quantize(segment: onnx.ModelProto, scales: dict[str, float], keep=()) -> list[str]:
    """In place, weights to nearest."""
    return int8.quantize(segment, int8.Scales(scales, keep))


def steps(x: np.ndarray, scale) -> np.ndarray:
    return np.clip(np.rint(x / np.float32(scale)), -128, 127)


def fake(weight: np.ndarray) -> np.ndarray:
    """float32[K, N] on a grid of 127 steps either way for each output channel."""
    scale = np.abs(weight).max(0, keepdims=True) / np.float32(127)
    return np.rint(weight / scale).astype(np.float32) * scale


def plainly(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime without any optimisation: every node as it is written."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, values), strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_tuning_clips_where_the_graphs_do(form, backend):
    """Values far beyond the range, above and below, through a product with ones on its diagonal."""
    x = np.linspace(-20, 20, 48, dtype=np.float32).reshape(2, 3, 8)
    zero = np.uint8(128) if FORMS[form] else np.int8(0)
    stored = {"scale": np.float32(0.1), "zero": np.array(zero), "w": np.eye(8, dtype=np.int8) * np.int8(127)}
    stored |= {"w_scale": np.full(8, 1 / 127, np.float32), "w_zero": np.zeros(8, np.int8)}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        onnx.helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weight"], axis=1),
        onnx.helper.make_node("MatMul", ["d", "weight"], ["y"]),
    ]
    x_info, y_info = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, x.shape) for name in "xy")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = onnx.helper.make_graph(nodes, "one", [x_info], [y_info], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    wanted = fake_quantize(torch.from_numpy(x), torch.tensor(0.1)).numpy()
    assert (wanted.min(), wanted.max()) == (np.float32(-12.8), np.float32(12.7))
    np.testing.assert_allclose(run(backend, model, {"x": x})["y"], wanted, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_every_product_is_int8_arithmetic_on_what_it_reads(traced, form, backend):
    """Each against numpy on the very input it had, so that no rounding before it counts."""
    model, _, segment, names = quantized(traced, "rope", FORMS[form])
    assert sorted(names) == sorted(expected_products(model))
    weights, scales = float_weights(model), plan("rope", PLAIN).scales
    quantizers = {node.output[0]: node.input[0] for node in segment.graph.node if node.op_type == "QuantizeLinear"}
    reads = {n.output[0]: quantizers.get(n.input[0]) for n in segment.graph.node if n.op_type == "DequantizeLinear"}
    nodes = {node.name: node for node in segment.graph.node if node.name in set(names)}
    sites = {p.name: p.site for p in products(traced("rope")[2])}
    shown = [reads[node.input[0]] for node in nodes.values()] + [node.output[0] for node in nodes.values()]
    values = feeds(model)
    values |= run(backend, with_outputs(segment, shown), values)
    for name, node in nodes.items():
        scale, weight = np.float32(scales[sites[name]]), fake(weights[f"{name.rpartition('/')[0]}.weight"])
        x = values[reads[node.input[0]]]
        expected = (steps(x, scale) * scale) @ weight
        got = values[node.output[0]]
        # A value on the edge between two steps may fall either way: few do, and by one step of one input.
        off = np.abs(got - expected) > 1e-4 * np.abs(expected).max()
        assert off.mean() < 0.02, name
        np.testing.assert_allclose(got, expected, atol=3 * scale * np.abs(weight).max() + 1e-4, err_msg=name)
        # And it is not the float product.
        plain = x @ weights[f"{name.rpartition('/')[0]}.weight"]
        assert np.abs(got - plain).mean() > 5 * np.abs(got - expected).mean(), name


def fake_quantized(model, scales, inputs=True):
    """The network in torch, its linears reading what int8 would: a hook for each call, and rounded weights."""
    model = copy.deepcopy(model)
    calls = dict.fromkeys(quantized_layers(model), 0)

    def hook(layer, inputs, name):
        scale = np.float32(scales[f"{name}/{calls[name]}"])
        calls[name] += 1
        return (torch.from_numpy((steps(inputs[0].numpy(), scale) * scale).astype(np.float32)),)

    for name in calls:
        layer = model.get_submodule(name)
        layer.weight = torch.nn.Parameter(torch.from_numpy(fake(layer.weight.numpy().T).T.copy()), False)
        if inputs:
            layer.register_forward_pre_hook(lambda layer, inputs, name=name: hook(layer, inputs, name))
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ["grid", "rope"])
def test_a_segment_is_the_fake_quantized_network(traced, name, backend, form):
    """Nearer to it than to the float network by far; values between two steps keep them from being equal."""
    model, _, segment, _ = quantized(traced, name, FORMS[form])
    values = feeds(model)
    outputs = run(backend, segment, values)
    z_H, z_L, e = (torch.from_numpy(values[key]) for key in ("z_H", "z_L", "e"))
    theirs = fake_quantized(model, plan(name, PLAIN).scales).segment(z_H, z_L, e)
    for key, like, exact in zip(outputs, theirs, model.segment(z_H, z_L, e), strict=True):
        ours = np.linalg.norm(outputs[key] - like.numpy())
        assert ours < 0.5 * np.linalg.norm(like.numpy() - exact.numpy()), key
        assert ours < 0.02 * np.linalg.norm(like.numpy()), key


def test_signed_and_unsigned_are_the_same_numbers(traced):
    """Written plainly, bit for bit; an onnxruntime that fuses only one of them adds up in another order."""
    model, _, signed, names = quantized(traced, "rope", False)
    _, _, unsigned, others = quantized(traced, "rope", True)
    assert names == others
    values = feeds(model)
    first, second = plainly(signed, values), plainly(unsigned, values)
    for key, array in first.items():
        np.testing.assert_array_equal(array, second[key])
    zero = {form: array_of(initializers(m.graph)["zero_point"]) for form, m in (("s", signed), ("u", unsigned))}
    assert (zero["s"].dtype, int(zero["s"])) == (np.int8, 0)
    assert (zero["u"].dtype, int(zero["u"])) == (np.uint8, 128)


def test_weights_are_stored_once_in_a_quarter(traced):
    """Whatever N × T: 14 products or 28, each weight is one int8 tensor, and nothing float of it is left."""
    for name in ("grid", "rope", "learned"):
        model, _, segment = traced(name)
        before = onnx.ModelProto.FromString(segment.SerializeToString())
        found = products(segment)
        quantize(segment, {p.site: 0.02 for p in found})
        stored = initializers(segment.graph)
        for weight, float_ in float_weights(model).items():
            array, scale = array_of(stored[weight]), array_of(stored[f"{weight}_scale"])
            assert array.dtype == np.int8
            assert scale.shape == (float_.shape[1],)
            np.testing.assert_allclose(array * scale, fake(float_), rtol=1e-6)
        bulk = 4 * sum(weight.size for weight in float_weights(model).values())
        scales = sum(4 + 1 for weight in float_weights(model).values() for _ in range(weight.shape[1]))
        saved = stored_bytes(before) - stored_bytes(segment)
        # Besides a quarter of the weights: their scales and zeros, some bytes of names, a scalar for each site.
        assert 0.75 * bulk - scales - 100 * len(stored) < saved <= 0.75 * bulk
        assert sum(key.endswith(".input_scale") for key in stored) == len({p.site for p in found})


def test_the_size_does_not_grow_with_the_number_of_calls(traced):
    """The same layers called once and four times: a few bytes for each scale, no weight again."""
    model, _, segment = traced("rope")
    found = products(segment)
    calls = max(p.call for p in found) + 1
    assert calls == 4
    quantize(segment, {p.site: 0.02 for p in found})
    weights = [t for t in segment.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2]
    assert len(weights) == len(float_weights(model))
    assert sum(len(t.raw_data) for t in weights) == sum(w.size for w in float_weights(model).values())
    dequantized = [n.input[0] for n in segment.graph.node if n.op_type == "DequantizeLinear"]
    assert all(dequantized.count(t.name) == 1 for t in weights)


def test_each_site_has_one_quantizer_with_its_own_scale(traced):
    _, _, segment, _ = quantized(traced, "rope")
    scales = plan("rope", PLAIN).scales
    assert int8.input_scales(segment) == pytest.approx(scales, rel=1e-7)
    read = [node.input[1] for node in segment.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(read) == sorted(f"{site}.input_scale" for site in scales)


def test_heads_norms_and_attention_stay_float(traced):
    model, before, segment, names = quantized(traced, "rope")
    ops = [
        node.op_type for node in segment.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert ops == [node.op_type for node in before.graph.node]
    products_left = [n.name for n in segment.graph.node if n.op_type == "MatMul" and n.name not in names]
    assert "lm_head/0" in products_left
    calls = len([name for name in expected_products(model) if ".o_proj/" in name])
    assert len(products_left) >= 2 * calls + 1  # q·kᵀ and scores·v of every attention
    for head in ("lm_head.weight", "q_head.weight"):
        assert array_of(initializers(segment.graph)[head]).dtype == np.float32


def test_kept_layers_are_bit_identical_to_float(traced):
    keep = {"L_level.layers.0.self_attn.qkv_proj", "H_level.layers.1.mlp.down_proj"}
    model, before, segment, names = quantized(traced, "rope", keep=keep)
    stored, original = initializers(segment.graph), initializers(before.graph)
    kept = [p for p in products(before) if p.layer in keep]
    assert {p.layer for p in kept} == keep
    assert not {p.name for p in kept} & set(names)
    assert len(names) + len(kept) == len(expected_products(model))
    nodes = {node.name: node for node in segment.graph.node}
    for p in kept:
        assert stored[p.weight].SerializeToString() == original[p.weight].SerializeToString()
        assert nodes[p.name].input[1] == p.weight
        assert p.site not in int8.input_scales(segment)
    # The first product of a segment reads what no quantizer has touched: with it in float, the same bits.
    first = next(p for p in kept if p.call == 0 and p.name.startswith("L_level"))
    values = feeds(model)
    exact = plainly(with_outputs(before, [made(before, first.name)]), values)[made(before, first.name)]
    again = plainly(with_outputs(segment, [nodes[first.name].output[0]]), values)[nodes[first.name].output[0]]
    np.testing.assert_array_equal(exact, again)


def made(model: onnx.ModelProto, name: str) -> str:
    return next(node.output[0] for node in model.graph.node if node.name == name)


def test_with_every_layer_kept_it_is_the_float_segment(each):
    model, _, segment = each
    before = segment.SerializeToString(deterministic=True)
    assert quantize(segment, {}, quantized_layers(model)) == []
    assert segment.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("form", FORMS)
def test_the_same_bytes_twice(traced, form):
    first, second = (quantized(traced, "rope", FORMS[form])[2] for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_scale_that_is_missing_is_named(traced):
    _, _, segment = traced("rope")
    scales = dict(plan("rope", PLAIN).scales)
    del scales["L_level.layers.0.mlp.down_proj/3"]
    with pytest.raises(PassFailed, match=r"no scale for \['L_level\.layers\.0\.mlp\.down_proj/3'\]"):
        quantize(segment, scales)
    keep = {"L_level.layers.0.mlp.down_proj"}
    assert quantize(segment, scales, keep)  # a kept layer needs none


def test_quantizing_twice_is_refused(traced):
    _, _, segment, _ = quantized(traced, "grid")
    with pytest.raises(PassFailed):
        quantize(segment, plan("grid", PLAIN).scales)


@given(arrays(np.float32, (5, 4), elements=st.floats(-(2**20), 2**20, width=32)))
def test_a_weight_is_within_half_a_step_of_its_channels_grid(weight):
    weight[np.abs(weight) < 2**-20] = 0
    weight[:, 3] = 0
    scale = int8.weight_scale(weight)
    stored = int8.rounded(weight, scale)
    assert stored.dtype == np.int8
    assert scale[3] == 1
    assert np.abs(stored.astype(int)).max() <= 127
    assert (np.abs(stored * scale - weight) <= 0.5001 * scale).all()
    largest = np.abs(weight).max(0)
    assert (np.abs(stored.astype(int)).max(0)[largest > 0] == 127).all()  # no step is wasted


# -- wide layers: 16 bits of input in two int8 products ------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_wide_layers_round_their_weights_alone(traced, backend, form):
    """All of them wide: a segment of rounded weights, its inputs as good as float."""
    model = traced("grid")[0]
    _, _, narrow, _ = quantized(traced, "grid", FORMS[form])
    _, _, segment, names = quantized(traced, "grid", FORMS[form], wide=quantized_layers(model))
    assert len(names) == len(set(names)) == 2 * len(expected_products(model))
    values = feeds(model)
    outputs, rough = run(backend, segment, values), run(backend, narrow, values)
    states = (torch.from_numpy(values[key]) for key in ("z_H", "z_L", "e"))
    for key, wanted in zip(outputs, fake_quantized(model, {}, inputs=False).segment(*states), strict=True):
        error = np.linalg.norm(outputs[key] - wanted.numpy())
        assert error < 0.1 * np.linalg.norm(rough[key] - wanted.numpy()), key
        assert error < 2e-3 * np.linalg.norm(wanted.numpy()), key


def test_a_wide_product_is_two_of_the_one_stored_weight(traced):
    layer = "L_level.layers.0.mlp.gate_up_proj"
    _, _, narrow, before = quantized(traced, "rope")
    _, _, segment, names = quantized(traced, "rope", wide=[layer])
    assert len(names) == len(before) + 2 * 4  # gate and up, four calls each
    assert stored_bytes(segment) < stored_bytes(narrow) + 4 * 200  # a scale for what each call's rounding left
    dequantized = [n.input[0] for n in segment.graph.node if n.op_type == "DequantizeLinear"]
    weights = [
        t.name for t in segment.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2
    ]
    assert all(dequantized.count(name) == 1 for name in weights)
    values = feeds(traced("rope")[0])
    first, second = (plainly(quantized(traced, "rope", form, wide=[layer])[2], values) for form in (False, True))
    for key, array in first.items():
        np.testing.assert_array_equal(array, second[key])


def test_a_wide_product_is_nearer_to_float_on_the_very_input_it_has(traced):
    """By a hundred times and more: half a step of a 254th of the step."""
    layer, part = "L_level.layers.0.mlp.down_proj", "L_level.layers.0.mlp.down_proj.weight"
    model = traced("grid")[0]
    _, _, segment, _ = quantized(traced, "grid", wide=[layer])
    weight = fake(float_weights(model)[part])
    made = {output: node for node in segment.graph.node for output in node.output}
    widened = next(
        n.output[0] for n in segment.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == part
    )
    halves = [n for n in segment.graph.node if n.op_type == "MatMul" and n.input[1] == widened]
    assert len(halves) == 2
    (total,) = (n for n in segment.graph.node if set(n.input) == {half.output[0] for half in halves})
    assert total.op_type == "Add"
    quantizers = [made[made[half.input[0]].input[0]] for half in halves]
    (x,) = (q.input[0] for q in quantizers if made[q.input[0]].op_type != "Sub")
    values = run("openvino", with_outputs(segment, [x, total.output[0]]), feeds(model))
    absmax = plan("grid", PLAIN).ranges.histograms[f"{layer}/0"].absmax
    inside = np.clip(values[x], -absmax, absmax)  # beyond what was seen in calibration even 16 bits are cut off
    allowed = absmax / 127 / 254 / 2 * np.abs(weight).sum(0) * 1.1 + 1e-5
    clipped = np.abs(values[x] - inside).sum(-1, keepdims=True) * np.abs(weight).max()
    assert (np.abs(values[total.output[0]] - values[x] @ weight) <= allowed + clipped).all()
