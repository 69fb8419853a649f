"""Weights in 8 and 4 bits: unpacked by numpy and run by the backends, they are what was promised."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from run_onnx import run
from traced_networks import expected_products, feeds, float_weights, weight_plan, with_outputs

from hrm_edge.errors import InputError
from hrm_edge.exporters.graph.edit import array_of, attribute, initializers
from hrm_edge.exporters.graph.layers import weights_of
from hrm_edge.exporters.quantize.stored import BLOCK, compress_weights, compressed_weight

KINDS = [(8, False), (8, True), (4, False), (4, True)]
RUNS = [*((bits, packed, "onnx") for bits, packed in KINDS), (8, False, "openvino"), (4, False, "openvino")]
ONE = "L_level.layers.0.mlp.down_proj"


def compressed(traced, name, bits, packed):
    """(model, float segment, compressed segment, names of its products)"""
    model, _, segment = traced(name)
    plan = weight_plan(name, f"int{bits}-weights")
    return model, segment, *plan.apply(segment, "onnx" if packed else "openvino")


def promised_weights(traced, name, bits, packed) -> dict[str, np.ndarray]:
    """Name of a weight → what its products are said to multiply with."""
    grams = weight_plan(name, f"int{bits}-weights").ranges.grams
    layers = weights_of(traced(name)[2]).items()
    return {
        weight: compressed_weight(array, bits, packed, grams[layer])
        for layer, weights in layers
        for weight, array in weights.items()
    }


def dequantized(segment: onnx.ModelProto, weight: str, bits: int, packed: bool) -> np.ndarray:
    """float32[K, N] from the stored tensors alone, unpacked by hand as the operators' documentation says."""
    stored = initializers(segment.graph)
    if packed:
        node = next(n for n in segment.graph.node if n.op_type == "MatMulNBits" and n.input[1] == weight)
        K, N, block = (attribute(node, key) for key in ("K", "N", "block_size"))
        assert attribute(node, "bits") == bits
        raw = np.frombuffer(stored[weight].raw_data, np.uint8).reshape(N, K // block, -1)
        scale = array_of(stored[node.input[2]]).reshape(N, K // block, 1)
        if bits == 4:
            raw = np.stack([raw & 15, raw >> 4], axis=-1).reshape(N, K // block, block)
        return ((raw.astype(np.float32) - 2 ** (bits - 1)) * scale).reshape(N, K).T
    node = next(n for n in segment.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == weight)
    steps, scale, zero = (array_of(stored[name]).astype(np.float32) for name in node.input)
    assert not zero.any()
    if bits == 4:
        assert stored[weight].data_type == TensorProto.INT4
        assert (attribute(node, "axis"), attribute(node, "block_size")) == (0, BLOCK)
        scale = np.repeat(scale, BLOCK, axis=0)
    else:
        assert stored[weight].data_type == TensorProto.INT8
        assert attribute(node, "axis") == 1
    return steps * scale


@pytest.mark.parametrize(("bits", "packed"), KINDS)
def test_what_is_stored_unpacks_to_what_was_promised(traced, bits, packed):
    model, _, segment, names = compressed(traced, "rope", bits, packed)
    assert sorted(names) == sorted(expected_products(model))
    for weight, promised in promised_weights(traced, "rope", bits, packed).items():
        float_ = float_weights(model)[weight]
        np.testing.assert_allclose(dequantized(segment, weight, bits, packed), promised, rtol=1e-6, atol=1e-9)
        assert 0 < np.linalg.norm(promised - float_) < (0.02 if bits == 8 else 0.3) * np.linalg.norm(float_)


@pytest.mark.parametrize(("bits", "packed"), KINDS)
def test_the_error_of_a_layer_is_that_of_its_products(traced, bits, packed):
    model, before, segment, _ = compressed(traced, "rope", bits, packed)
    plan = weight_plan("rope", f"int{bits}-weights")
    for layer in plan.layers(before, "onnx" if packed else "openvino"):
        assert (layer.dtype, layer.kept) == (f"int{bits}", None)
        names = list(weights_of(before)[layer.name])
        float_ = np.hstack([float_weights(model)[name] for name in names])
        stored = np.hstack([dequantized(segment, name, bits, packed) for name in names])
        values, vectors = np.linalg.eigh(plan.ranges.grams[layer.name])  # gram = XᵀX, so X may be its root
        x = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        error = np.linalg.norm(x @ (float_ - stored)) / np.linalg.norm(x @ float_)
        assert layer.error == pytest.approx(error, rel=1e-3)
        assert layer.absmax == np.abs(float_).max()
        assert layer.calls == (4 if layer.name.startswith("L_level") else 2)


@pytest.mark.parametrize(("bits", "packed"), KINDS)
@given(weight=arrays(np.float32, (2 * BLOCK, 3), elements=st.floats(-(2**10), 2**10, width=32)))
def test_inputs_that_do_not_go_together_leave_nearest_rounding(bits, packed, weight):
    weight[np.abs(weight) < 2**-20] = 0
    weight[:BLOCK, 1] = 0  # a block of zeros
    promised = compressed_weight(weight, bits, packed, np.eye(2 * BLOCK))
    assert promised.dtype == np.float32
    blocks = weight if (bits, packed) == (8, False) else weight.reshape(2, BLOCK, 3)
    axis = blocks.ndim - 2
    step = np.abs(blocks).max(axis=axis, keepdims=True) / (2 ** (bits - 1) - 1)
    error = np.abs(promised.reshape(blocks.shape) - blocks)
    assert (error <= 0.5001 * step + 1e-12).all()
    assert (promised[:BLOCK, 1] == 0).all()


def only(segment: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """One product of a packed segment by itself: x float32[rows, K] → y."""
    node = next(n for n in segment.graph.node if n.name == name)
    copy = helper.make_node("MatMulNBits", ["x", *node.input[1:]], ["y"], domain=node.domain)
    copy.attribute.extend(node.attribute)
    K, N = attribute(node, "K"), attribute(node, "N")
    info, stored = helper.make_tensor_value_info, initializers(segment.graph)
    graph = helper.make_graph(
        [copy],
        "one",
        [info("x", TensorProto.FLOAT, ["rows", K])],
        [info("y", TensorProto.FLOAT, ["rows", N])],
        [stored[name] for name in node.input[1:]],
    )
    return helper.make_model(graph, opset_imports=list(segment.opset_import), ir_version=segment.ir_version)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("part", ["down_proj", "up_proj"])
def test_onnxruntime_multiplies_with_the_packed_weight_we_mean(traced, bits, part):
    """Unit vectors in: the rows of the weight out, whatever the operator rounds on its way."""
    model, _, segment, _ = compressed(traced, "rope", bits, True)
    weight = float_weights(model)[f"L_level.layers.0.mlp.{part}.weight"]
    rows = run(
        "onnx", only(segment, f"L_level.layers.0.mlp.{part}/0"), {"x": np.eye(len(weight), dtype=np.float32)}
    )
    promised = promised_weights(traced, "rope", bits, True)[f"L_level.layers.0.mlp.{part}.weight"]
    np.testing.assert_allclose(rows["y"], promised, atol=1e-5 * np.abs(promised).max())


@pytest.mark.parametrize(("bits", "packed", "backend"), RUNS)
def test_every_product_multiplies_with_the_promised_weight(traced, bits, packed, backend):
    """On the very input it has, which the packed operator also rounds to int8, 32 values at a time.

    OpenVINO does the same with 8-bit weights, on CPUs that have the instructions for it.
    """
    _, _, segment, names = compressed(traced, "rope", bits, packed)
    model = traced("rope")[0]
    promised, weights = promised_weights(traced, "rope", bits, packed), float_weights(model)
    nodes = {node.name: node for node in segment.graph.node if node.name in set(names)}
    shown = [node.input[0] for node in nodes.values()] + [node.output[0] for node in nodes.values()]
    values = feeds(model)
    values |= run(backend, with_outputs(segment, shown), values)
    rounds = packed or (backend, bits) == ("openvino", 8)
    for name, node in nodes.items():
        weight = f"{name.rpartition('/')[0]}.weight"
        x, y = values[node.input[0]], values[node.output[0]]
        expected, exact = x @ promised[weight], x @ weights[weight]
        error = np.linalg.norm(y - expected)
        assert error < (0.015 if rounds else 1e-4) * np.linalg.norm(expected), name
        if bits == 4:
            assert error < 0.5 * np.linalg.norm(exact - expected), name


@pytest.mark.parametrize(("bits", "packed"), KINDS)
def test_a_weight_is_stored_once_however_often_it_is_read(traced, bits, packed):
    model, _, segment, names = compressed(traced, "rope", bits, packed)
    stored = initializers(segment.graph)
    for weight, float_ in float_weights(model).items():
        assert len(stored[weight].raw_data) == float_.size * bits // 8
        # Read by its four calls (two at the H level), or by the one node that widens it for all.
        readers = [n for n in segment.graph.node if weight in n.input]
        calls = 4 if weight.startswith("L_level") else 2
        assert len(readers) == (calls if packed else 1)
    assert len(names) == len(expected_products(model))


@pytest.mark.parametrize(("bits", "packed"), KINDS)
def test_the_same_bytes_twice_and_nothing_else_changed(traced, bits, packed):
    model, before, first, _ = compressed(traced, "rope", bits, packed)
    second = compressed(traced, "rope", bits, packed)[2]
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    old, new = initializers(before.graph), initializers(first.graph)
    for name in set(old) - set(float_weights(model)):
        np.testing.assert_array_equal(array_of(new[name]), array_of(old[name]))
    kinds = [n.op_type for n in first.graph.node if n.op_type != "DequantizeLinear"]
    assert [kind.replace("MatMulNBits", "MatMul") for kind in kinds] == [n.op_type for n in before.graph.node]


@pytest.mark.parametrize(("bits", "packed"), KINDS)
def test_only_the_packed_form_leaves_the_standard(traced, bits, packed):
    _, _, segment, _ = compressed(traced, "grid", bits, packed)
    domains = {item.domain for item in segment.opset_import}
    assert domains == ({"", "com.microsoft"} if packed else {""})
    assert {node.domain for node in segment.graph.node} <= domains


def one_product(rows: int) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((rows, 6)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", f"{ONE}.weight"], ["y"], name=f"{ONE}/0")
    info = helper.make_tensor_value_info
    shown = [info("x", TensorProto.FLOAT, ["batch", rows])], [info("y", TensorProto.FLOAT, ["batch", 6])]
    graph = helper.make_graph([node], "g", *shown, [numpy_helper.from_array(weight, f"{ONE}.weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(("bits", "packed"), KINDS[1:])
def test_rows_that_do_not_fill_blocks_are_one_line_that_names_the_weight(bits, packed):
    with pytest.raises(InputError, match=rf"^weight {ONE}\.weight has 40 rows, .* --precision int8") as caught:
        compress_weights(one_product(40), bits, packed, {ONE: np.eye(40)})
    assert "\n" not in str(caught.value)


def test_int8_by_output_channel_takes_any_number_of_rows():
    model = one_product(40)
    assert compress_weights(model, 8, False, {ONE: np.eye(40)}) == [f"{ONE}/0"]
    (weight,) = (array_of(t) for t in one_product(40).graph.initializer)
    y = run("onnx", model, {"x": np.eye(40, dtype=np.float32)})["y"]
    np.testing.assert_allclose(y, compressed_weight(weight, 8, False, np.eye(40)), atol=1e-6)


# -- rounding that makes up for itself -----------------------------------------------------------------


def mixed_inputs(rows: int = 400, K: int = 2 * BLOCK) -> np.ndarray:
    """Inputs that go together: most of what they are is in a few directions."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 6)) @ rng.standard_normal((6, K)) + 0.2 * rng.standard_normal((rows, K))


@pytest.mark.parametrize(("bits", "packed"), KINDS)
def test_products_on_inputs_that_go_together_are_nearer_than_by_nearest_rounding(bits, packed):
    x = mixed_inputs()
    weight = np.random.default_rng(1).standard_normal((x.shape[1], 24)).astype(np.float32)
    ours, nearest = (compressed_weight(weight, bits, packed, gram) for gram in (x.T @ x, np.eye(len(weight))))
    assert np.linalg.norm(x @ (ours - weight)) < 0.7 * np.linalg.norm(x @ (nearest - weight))
    # On inputs of another kind it may be worse, but stays near: no weight wanders off.
    assert np.abs(ours - weight).max() < 8 * np.abs(nearest - weight).max()


@pytest.mark.parametrize(("bits", "packed"), KINDS)
def test_inputs_that_were_never_seen_do_not_blow_up(bits, packed):
    """A layer whose inputs were all zeros, or with dead channels, or in one direction alone."""
    x = mixed_inputs()
    weight = np.random.default_rng(1).standard_normal((x.shape[1], 24)).astype(np.float32)
    dead = x * (np.arange(x.shape[1]) % 3 > 0)
    nearest = compressed_weight(weight, bits, packed, np.eye(len(weight)))
    for inputs in (0 * x, dead, x[:1]):
        ours = compressed_weight(weight, bits, packed, inputs.T @ inputs)
        assert np.isfinite(ours).all()
        assert np.linalg.norm(ours - weight) < 8 * np.linalg.norm(nearest - weight)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_rounded_by_the_textbook(bits):
    """Optimal brain quantization written out: the rest is solved anew by least squares after each row."""
    x = mixed_inputs(60, BLOCK)
    gram = x.T @ x
    weight = np.random.default_rng(2).standard_normal((BLOCK, 5)).astype(np.float32)
    largest = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(0) / np.float32(largest)
    damped = gram + np.eye(BLOCK) * 0.01 * np.trace(gram) / BLOCK
    left, done = weight.astype(np.float64), np.zeros((0, 5))
    for k in range(BLOCK):
        row = np.clip(np.rint(left[k] / scale), -largest, largest) * scale
        done = np.vstack([done, row])
        # The rows still free, at their best given all that are fixed: the minimum of the damped squared error.
        fixed, free = slice(0, k + 1), slice(k + 1, None)
        if k + 1 < BLOCK:
            off = damped[free, fixed] @ (done - weight[fixed])
            left[free] = weight[free] - np.linalg.solve(damped[free, free], off)
    ours = compressed_weight(weight, bits, True, gram)
    assert (np.abs(ours - done) < 1e-5).mean() > 0.99
