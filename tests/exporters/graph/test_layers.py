"""Products and the layers they belong to, against what the network itself says."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from traced_networks import PARTS, expected_products, feeds, float_weights, with_outputs

from hrm_edge.exporters.graph.edit import PassFailed
from hrm_edge.exporters.graph.layers import products, weights_of
from hrm_edge.models import collect_ranges, quantized_layers

DOWN = "L_level.layers.0.mlp.down_proj"


def test_every_product_of_the_blocks_is_found_and_no_other(each):
    model, _, segment = each
    found = products(segment)
    assert sorted(p.name for p in found) == sorted(expected_products(model))
    for p in found:
        assert p.weight == f"{p.name.rpartition('/')[0]}.weight"
        layer, part = p.layer.rpartition(".")[2], p.weight.split(".")[-2]
        assert part in PARTS.get(layer, (layer,))
    assert {p.layer for p in found} == set(quantized_layers(model))


def test_sites_are_those_that_calibration_counts(each):
    model, _, segment = each
    questions = np.ones((2, model.config.seq_len), np.int32)
    if model.config.num_puzzle_identifiers == 1:
        ranges = collect_ranges(model, questions, segments="first")
        assert {p.site for p in products(segment)} == set(ranges.histograms)


def test_parts_of_a_fused_layer_read_one_input(each):
    _, _, segment = each
    by_site: dict[str, set[str]] = {}
    for p in products(segment):
        by_site.setdefault(p.site, set()).add(p.input)
    assert all(len(inputs) == 1 for inputs in by_site.values())
    reads = [next(iter(inputs)) for inputs in by_site.values()]
    assert len(reads) == len(set(reads))  # and no two sites the same


def test_a_products_input_is_what_the_weight_multiplies(traced):
    from run_onnx import run

    model, _, segment = traced("grid")
    weights = float_weights(model)
    made = {node.name: node.output[0] for node in segment.graph.node}
    found = products(segment)
    values = feeds(model)
    exposed = with_outputs(segment, [p.input for p in found] + [made[p.name] for p in found])
    values |= run("onnx", exposed, values)
    for p in found:
        np.testing.assert_allclose(values[made[p.name]], values[p.input] @ weights[p.weight], atol=1e-4)


def test_weights_are_the_checkpoints_in_the_order_of_the_fused_rows(each):
    model, _, segment = each
    expected, found = float_weights(model), weights_of(segment)
    assert set(found) == set(quantized_layers(model))
    for layer, weights in found.items():
        parent, _, last = layer.rpartition(".")
        assert list(weights) == [f"{parent}.{part}.weight" for part in PARTS.get(last, (last,))]
        for name, weight in weights.items():
            np.testing.assert_array_equal(weight, expected[name])


def hand_made(names=(f"{DOWN}/0",), weight=f"{DOWN}.weight", inputs=("x",)) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", [read, weight], [f"y{i}"], name=name)
        for i, (name, read) in enumerate(zip(names, inputs, strict=True))
    ]
    info = helper.make_tensor_value_info
    outputs = [info(f"y{i}", TensorProto.FLOAT, ["batch", 4]) for i in range(len(nodes))]
    stored = [numpy_helper.from_array(np.ones((4, 4), np.float32), weight)]
    shown = [info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "z")]
    return helper.make_model(helper.make_graph(nodes, "g", shown, outputs, stored))


def test_a_graph_without_products_is_refused():
    with pytest.raises(PassFailed, match="no product"):
        products(hand_made(weight="lm_head.weight"))


def test_a_product_named_after_another_weight_is_refused():
    with pytest.raises(PassFailed, match="another's weight"):
        products(hand_made(names=["L_level.layers.0.mlp.up_proj/0"]))


def test_parts_with_different_inputs_are_refused():
    up, gate = (f"L_level.layers.0.mlp.{part}_proj" for part in ("up", "gate"))
    model = hand_made(names=[f"{up}/0"], weight=f"{up}.weight")
    other = hand_made(names=[f"{gate}/0"], weight=f"{gate}.weight", inputs=["z"])
    model.graph.node.extend(other.graph.node)
    model.graph.initializer.extend(other.graph.initializer)
    with pytest.raises(PassFailed, match=r"mlp\.gate_up_proj/0 read different inputs"):
        products(model)
