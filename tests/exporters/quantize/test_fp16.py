"""FP16: which parts are halved and which are not, once each, and how far the results move."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from run_onnx import run
from small_networks import TASK, network

from hrm_edge.errors import InputError
from hrm_edge.exporters.graph.edit import PassFailed, initializers, value_types
from hrm_edge.exporters.graph.trace import trace_segment
from hrm_edge.exporters.quantize.fp16 import FULL_OPS, convert
from hrm_edge.precision import PRECISIONS

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture
def halved(each):
    model, _, segment = each
    before = onnx.ModelProto.FromString(segment.SerializeToString())
    convert(segment, PRECISIONS["fp16"])
    return model, before, segment


def test_norms_softmax_heads_and_bindings_stay_float32(halved):
    _, _, segment = halved
    types = value_types(segment)
    for node in segment.graph.node:
        if node.op_type in FULL_OPS or node.name.startswith(("lm_head/", "q_head/")):
            kinds = {types[name] for name in (*node.input, *node.output) if types[name] in (HALF, FULL)}
            assert kinds == {FULL}, node.name
    for value in (*segment.graph.input, *segment.graph.output):
        assert types[value.name] == FULL


def test_the_state_is_never_rounded_to_half(halved):
    """From each norm's sum back to the state, nothing but float32: residual sums included."""
    _, _, segment = halved
    types = value_types(segment)
    makers = {name: node for node in segment.graph.node for name in node.output}
    for node in segment.graph.node:
        if node.op_type == "Pow":
            total = makers[node.input[0]]
            assert total.op_type == "Add"
            assert types[total.output[0]] == FULL
            assert all(makers[name].op_type != "MatMul" for name in total.input if name in makers)


def test_every_other_product_is_half_and_its_weight_stored_once(halved):
    _, before, segment = halved
    types, stored = value_types(segment), initializers(segment.graph)
    products = [n for n in segment.graph.node if n.op_type == "MatMul" and not n.name.startswith("lm_head/")]
    assert products
    for node in products:
        assert {types[name] for name in (*node.input, *node.output)} == {HALF}
    assert {name for name in stored if name.endswith(".weight")} == {
        name for name in initializers(before.graph) if name.endswith(".weight")
    }
    projections = [tensor for name, tensor in stored.items() if "_proj" in name]
    assert {tensor.data_type for tensor in projections} == {HALF}
    assert len(segment.SerializeToString()) < 0.6 * len(before.SerializeToString())


def test_a_value_is_cast_once_per_type(halved):
    casts = [(n.input[0], n.attribute[0].i) for n in halved[2].graph.node if n.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    stored = initializers(halved[2].graph)
    assert not [source for source, _ in casts if source in stored]  # weights are stored in their type


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_one_segment_moves_by_less_than_a_hundredth(halved, backend):
    model, _, segment = halved
    questions = torch.from_numpy(TASK.generate(3, np.random.default_rng(0))[0])
    ids = torch.zeros(3, dtype=torch.int32) if model.config.num_puzzle_identifiers > 1 else None
    e, (z_H, z_L) = model.embed(questions, ids), model.initial_state(3)
    outputs = run(backend, segment, {"z_H": z_H.numpy(), "z_L": z_L.numpy(), "e": e.numpy()})
    for name, exact in zip(("z_H_next", "z_L_next", "logits"), model.segment(z_H, z_L, e), strict=False):
        assert np.linalg.norm(outputs[name] - exact.numpy()) < 0.01 * np.linalg.norm(exact.numpy())


def test_a_weight_that_half_cannot_hold_is_named():
    model = network(H_cycles=1, L_cycles=1)
    model.L_level.layers[0].mlp.down_proj.weight[0, 0] = 1e5
    with pytest.raises(InputError, match=r"L_level\.layers\.0\.mlp\.down_proj\.weight .*--precision fp32"):
        convert(trace_segment(model), PRECISIONS["fp16"])


def test_a_graph_that_has_casts_already_is_refused(each):
    _, _, segment = each
    segment.graph.node.insert(0, helper.make_node("Cast", ["z_H"], ["early"], to=HALF))
    with pytest.raises(PassFailed, match="casts already"):
        convert(segment, PRECISIONS["fp16"])
