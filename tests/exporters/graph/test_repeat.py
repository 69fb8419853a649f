"""A block and a step, traced once, give the graph that tracing each call gives, byte for byte."""

import pytest
from shared_traces import trace_segment
from small_networks import network
from traced_networks import CONFIGS

from hrm_edge.exporters.graph import trace
from hrm_edge.exporters.targets.onnx import serialized

# Every block is called twice at least; each call that is traced takes half a second.
TWICE = {"H_cycles": 2, "L_cycles": 1}
MORE = {"two of each, a tensor zero": {"H_layers": 2, "L_layers": 2, **TWICE}, "equal levels": TWICE}
GRID = {"conv_kernel": 1, "puzzle_emb_ndim": 32, "pos_encodings": "none"}
MORE["both kinds of step"] = {"H_cycles": 2, "L_cycles": 3, **GRID}


def whole(model, monkeypatch):
    """The segment as the tracer sees all of it."""
    with monkeypatch.context() as patch:
        patch.setattr(trace, "HRM", ())
        return trace.trace_segment(model)


@pytest.mark.parametrize("name", ["convolution", "units", "trm", "recurrent", "direct", *MORE])
def test_the_same_bytes_as_tracing_every_call(name, monkeypatch):
    model = network(**CONFIGS.get(name, MORE.get(name)))
    if name == "equal levels":  # then every tensor is stored once
        model.H_level.load_state_dict(model.L_level.state_dict())
    if name == "two of each, a tensor zero":
        model.L_level.layers[0].mlp.down_proj.weight.zero_()
    assert serialized(trace_segment(model)) == serialized(whole(model, monkeypatch))


def test_no_more_is_traced_where_more_steps_are_taken(monkeypatch):
    def traced(N, T):
        sizes, export = [], trace._exported

        def counted(program):
            model = export(program)
            sizes.append(len(model.graph.node))
            return model

        with monkeypatch.context() as patch:
            patch.setattr(trace, "_exported", counted)
            graph = trace.trace_segment(network(H_cycles=N, L_cycles=T)).graph
        return sizes, sum(node.name.startswith("L_level.layers.0.mlp.up_proj/") for node in graph.node)

    few, many = traced(1, 2), traced(4, 8)
    assert few[0] == many[0]
    assert (few[1], many[1]) == (2, 32)
