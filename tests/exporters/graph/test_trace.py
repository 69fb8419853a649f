"""The traced graphs compute what the network computes, and are stored the way quantizers and targets need."""

import copy

import numpy as np
import onnx
import pytest
import shared_traces
import torch
from onnx import TensorProto
from run_onnx import run
from small_networks import TASK, network
from traced_networks import expected_products

from hrm_edge.exporters.graph import trace
from hrm_edge.exporters.graph.edit import array_of, initializers
from hrm_edge.exporters.graph.trace import exported_form, quiet, trace_segment, trace_start
from hrm_edge.models.mixers import Attention
from hrm_edge.models.public import import_public

BACKENDS = ("onnx", "openvino")


def tokens(rows: int) -> np.ndarray:
    return TASK.generate(rows, np.random.default_rng(rows))[0]


def identifiers(model, rows: int):
    count = model.config.num_puzzle_identifiers
    return np.arange(rows, dtype=np.int32) % count if count > 1 else None


def started(model, rows: int):
    ids = identifiers(model, rows)
    e = model.embed(torch.from_numpy(tokens(rows)), None if ids is None else torch.from_numpy(ids))
    return e, *model.initial_state(rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_start_embeds_the_puzzle(each, backend):
    model, start, _ = each
    feeds = {"tokens": tokens(4)}
    if model.config.num_puzzle_identifiers > 1:
        feeds["puzzle_identifiers"] = identifiers(model, 4)
    outputs = run(backend, start, feeds)
    for name, expected in zip(("e", "z_H", "z_L"), started(model, 4), strict=True):
        np.testing.assert_allclose(outputs[name], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [1, 5])
def test_six_segments_stay_within_1e_4(each, backend, rows):
    model, _, segment = each
    e, z_H, z_L = started(model, rows)
    state = {"z_H": z_H.numpy(), "z_L": z_L.numpy()}
    for _ in range(6):
        z_H, z_L, logits, q = model.segment(z_H, z_L, e)
        outputs = run(backend, segment, {**state, "e": e.numpy()})
        state = {"z_H": outputs["z_H_next"], "z_L": outputs["z_L_next"]}
    for name, expected in (("z_H_next", z_H), ("z_L_next", z_L), ("logits", logits), ("q", q)):
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], expected.numpy(), atol=1e-4)


def test_the_export_form_is_a_copy_and_changes_nothing():
    model = network(pos_encodings="rope")
    before = copy.deepcopy(model.state_dict())
    e, z_H, z_L = started(model, 3)
    for mine, theirs in zip(exported_form(model)(z_H, z_L, e), model.segment(z_H, z_L, e), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_every_product_reads_a_stored_weight_in_its_own_orientation(each):
    model, _, segment = each
    config, stored = model.config, initializers(segment.graph)
    weights = [name for name in stored if name.endswith("_proj.weight")]
    of_a_block = 7 if config.mixer is Attention else 6 if config.mlp_t else 3
    assert len(weights) == of_a_block * (config.H_layers + config.L_layers)
    assert not [node for node in segment.graph.node if node.op_type == "Transpose" and node.input[0] in stored]
    products = [n for n in segment.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    assert len(products) == of_a_block * config.block_calls == len(expected_products(model))
    if config.mixer is not Attention:
        return
    # The scale of the attention scores is inside the stored weight.
    attention = model.L_level.layers[0].self_attn
    q = attention.qkv_proj.weight[: config.hidden_size].numpy() * attention.head_dim**-0.5
    np.testing.assert_array_equal(array_of(stored["L_level.layers.0.self_attn.q_proj.weight"]), q.T)


def test_products_are_named_after_their_layer_and_call(each):
    model, _, segment = each
    names = [node.name for node in segment.graph.node]
    assert len(names) == len(set(names))
    assert {"L_level.layers.0.mlp.down_proj/0", "lm_head/0"} <= set(names)
    attends = model.config.kind == "hrm" and model.config.mixer is Attention
    assert ("H_level.layers.0.self_attn.o_proj/0" in names) == attends
    assert ("L_level.layers.0.mlp_t.up_proj/0" in names) == model.config.mlp_t


def test_every_input_is_read_and_every_output_computed(each):
    """Backends drop inputs that nothing reads, and a caller that feeds every network alike would then fail."""
    for model in each[1:]:
        read = {name for node in model.graph.node for name in node.input}
        assert {value.name for value in model.graph.input} <= read
        made = {name for node in model.graph.node for name in node.output}
        assert {value.name for value in model.graph.output} <= made


def test_bindings_are_float32_and_int32_with_a_free_batch(each):
    _, start, segment = each
    for model in (start, segment):
        for value in (*model.graph.input, *model.graph.output):
            tensor = value.type.tensor_type
            assert tensor.elem_type in (TensorProto.FLOAT, TensorProto.INT32)
            assert tensor.shape.dim[0].dim_param == "batch"
            assert all(dim.dim_value > 0 for dim in tensor.shape.dim[1:])


def test_nothing_is_left_of_the_machine_that_traced_it(each):
    for model in each[1:]:
        content = model.SerializeToString()
        assert b".py" not in content
        assert b"torch" not in content
        assert not [node for node in model.graph.node if node.doc_string or node.metadata_props]


def test_stored_weights_do_not_grow_with_the_number_of_cycles(each):
    """They are the network's own, once, of however many block calls: 8 of 3 blocks in one of the networks."""
    model, _, segment = each
    own = sum(
        4 * p.numel() for name, p in model.named_parameters() if not name.startswith(("embed_", "puzzle_emb"))
    )
    tables = sum(4 * buffer.numel() for buffer in model.buffers())
    stored = sum(array_of(tensor).nbytes for tensor in segment.graph.initializer)
    # Constants and the norms' gains beside them; the smallest product's weight has 4 096 bytes.
    assert 0 <= stored - own < tables + 1000


def test_tracing_is_silent_and_gives_what_the_tests_share(traced, capfd):
    model, *shared = traced("grid")
    capfd.readouterr()
    assert [trace_start(model), trace_segment(model)] == shared
    assert capfd.readouterr() == ("", "")


def test_what_quiet_hides_is_not_lost_for_good(caplog):
    import logging

    with quiet():
        logging.getLogger("somebody").warning("hidden")
    logging.getLogger("somebody").warning("shown")
    assert caplog.messages == ["shown"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_parity_with_what_the_public_implementation_computes(shared_data, public_graphs, backend):
    """Six segments of an imported checkpoint, graphs against the public code's own outputs."""
    name, graphs = public_graphs
    start, segment = (onnx.ModelProto.FromString(graph) for graph in graphs)
    expected = np.load(shared_data / "parity" / name / "expected.npz")
    feeds = {name: expected[name].astype(np.int32) for name in ("inputs", "puzzle_identifiers")}
    state = run(backend, start, {"tokens": feeds["inputs"], "puzzle_identifiers": feeds["puzzle_identifiers"]})
    for step in range(6):
        outputs = run(backend, segment, state)
        state = {"z_H": outputs["z_H_next"], "z_L": outputs["z_L_next"], "e": state["e"]}
        for name in ("logits", "q"):
            np.testing.assert_allclose(outputs[name], expected[name][step], atol=1e-4)
    for name in ("z_H", "z_L"):
        np.testing.assert_allclose(state[name], expected[name], atol=1e-4)


# 30 blocks in a segment take half a minute to trace.
@pytest.fixture(scope="session", params=["hrm-rope", pytest.param("trm-att", marks=pytest.mark.slow)])
def public_graphs(request, shared_data):
    model, _ = import_public(shared_data / "parity" / request.param, None, None)
    traces = shared_traces.trace_start(model), shared_traces.trace_segment(model)
    return request.param, tuple(graph.SerializeToString() for graph in traces)


@pytest.mark.parametrize("name", ["mixer", "convolution"])
def test_what_is_captured_once_is_what_the_tracer_makes_by_itself(traced, name, monkeypatch):
    """Byte for byte, with operators that it writes as others and without."""
    model, _, segment = traced(name)
    monkeypatch.setattr(trace, "_captured", lambda *_: None)
    assert trace.trace_segment(model).SerializeToString() == segment.SerializeToString()
