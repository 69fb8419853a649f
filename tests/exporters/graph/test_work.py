"""Operations counted in the graph, against those that PyTorch counts while the network runs, and bytes by hand."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_networks import checkpoint
from traced_networks import CONFIGS, plan, traced, weight_plan

from hrm_edge.exporters.build import ExportOptions, build_graphs
from hrm_edge.exporters.graph.layers import products, weights_of
from hrm_edge.exporters.graph.work import work_of
from hrm_edge.measure.work import Work


@pytest.mark.parametrize("name", CONFIGS)
def test_a_traced_segment_has_the_operations_of_the_network(name):
    model, _, segment = traced(name)
    work = work_of(segment)
    assert set(work.flops) == {"fp32"}
    assert sum(work.flops.values()) == model.segment_flops


def built(name, options, made=None):
    model, start, segment = traced(name)
    return build_graphs(checkpoint(model), start, segment, options, made).segment


def test_a_quantized_segment_has_as_many_most_of_them_int8():
    model, _, segment = traced("rope")
    work = work_of(built("rope", ExportOptions("onnx", "int8", "host"), plan("rope")))
    assert sum(work.flops.values()) == model.segment_flops
    assert work.flops["int8"] > 0.5 * model.segment_flops
    assert work.flops["fp32"] > 0, "attention's own products and the heads"
    plain = work_of(segment)
    assert work.weight_bytes < 0.4 * plain.weight_bytes
    assert work.row_bytes < plain.row_bytes, "inputs of int8 products are int8"


def test_a_wide_layer_is_multiplied_twice():
    narrow = plan("rope")
    layer = "L_level.layers.0.mlp.gate_up_proj"
    options = ExportOptions("openvino", "int8", "host")
    once, twice = (work_of(built("rope", options, made)) for made in (narrow, narrow.widening({layer: "told to"})))
    model, _, segment = traced("rope")
    of_layer = sum(
        2 * model.config.sequence_len * weights_of(segment)[layer][product.weight].size
        for product in products(segment)
        if product.layer == layer
    )
    assert twice.flops["int8"] - once.flops["int8"] == of_layer > 0


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "fp16"), ("bf16", "bf16")])
def test_half_precision_is_told_apart(precision, kind):
    model, _, _ = traced("grid")
    target = "onnx" if precision == "fp16" else "openvino"
    work = work_of(built("grid", ExportOptions(target, precision, "host")))
    assert set(work.flops) == {"fp32", kind}
    assert sum(work.flops.values()) == model.segment_flops


def test_weights_of_few_bits_are_moved_as_they_are_stored():
    plain = work_of(traced("grid")[2])
    small = work_of(
        built("grid", ExportOptions("openvino", "int8-weights", "host"), weight_plan("grid", "int8-weights"))
    )
    assert set(small.flops) == {"fp32"}
    assert 0.25 * plain.weight_bytes <= small.weight_bytes < 0.5 * plain.weight_bytes


def model_of(node, inputs, output, stored=()):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [info("y", *output)],
        [numpy_helper.from_array(array, name) for name, array in stored],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_by_hand():
    x = {"x": (TensorProto.FLOAT, ["batch", 3, 5])}
    w = np.zeros((5, 7), np.float32)
    product = model_of(
        helper.make_node("MatMul", ["x", "w"], ["y"]), x, (TensorProto.FLOAT, ["batch", 3, 7]), [("w", w)]
    )
    assert work_of(product) == Work({"fp32": 2 * 3 * 5 * 7}, 4 * 35, 4 * (15 + 21))
    grid = {"x": (TensorProto.FLOAT, ["batch", 6, 4, 4])}
    kernel = np.zeros((6, 1, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=6, pads=[1, 1, 1, 1])
    depthwise = model_of(node, grid, (TensorProto.FLOAT, ["batch", 6, 4, 4]), [("w", kernel)])
    assert work_of(depthwise) == Work({"fp32": 2 * 6 * 16 * 9}, 4 * 54, 4 * 2 * 96)
    steps = {"x": (TensorProto.UINT8, ["batch", 5])}
    scale, zero, zero8 = np.array(0.1, np.float32), np.array(128, np.uint8), np.array(0, np.int8)
    names = ["x", "s", "z", "w", "s", "z8", "s", "z"]
    integer = model_of(
        helper.make_node("QLinearMatMul", names, ["y"]),
        steps,
        (TensorProto.UINT8, ["batch", 7]),
        [("s", scale), ("z", zero), ("w", np.zeros((5, 7), np.int8)), ("z8", zero8)],
    )
    assert work_of(integer) == Work({"int8": 2 * 35}, 35, 5 + 7)


def test_time_at_the_ceilings():
    work = Work({"int8": 60, "fp32": 10}, weight_bytes=1000, row_bytes=10)
    assert work.seconds_of_products(2, {"int8": 60.0, "fp32": 20.0}) == 2 + 1
    assert work.seconds_of_products(2, {"fp32": 20.0}) is None
    assert work.bytes(8) == 1080
