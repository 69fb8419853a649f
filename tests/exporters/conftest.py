"""Traced graphs are shared between tests, as each takes seconds; tests get copies they may change."""

import functools

import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from small_networks import network

from hrm_edge.exporters.segment import trace_segment, trace_start

# Between them: every kind of position, prefixes of 0, 1 and 2 tokens, one and several identifiers, N and T of
# 1 to 3, unequal layers, both halting rules.
CONFIGS = {
    "grid": {"no_ACT_continue": True, "H_cycles": 1, "L_cycles": 1},
    "rope": {"pos_encodings": "rope", "puzzle_emb_ndim": 32, "H_layers": 2},
    "learned": {
        "pos_encodings": "learned",
        "puzzle_emb_ndim": 40,
        "num_puzzle_identifiers": 5,
        "H_cycles": 1,
        "L_cycles": 3,
    },
}


@functools.cache
def _traced(name: str):
    model = network(**CONFIGS[name])
    return model, trace_start(model).SerializeToString(), trace_segment(model).SerializeToString()


@pytest.fixture(scope="session")
def traced():
    """Name of a config → (model, start graph, segment graph)."""

    def get(name: str):
        model, *graphs = _traced(name)
        return model, *(onnx.ModelProto.FromString(graph) for graph in graphs)

    return get


@pytest.fixture(params=list(CONFIGS))
def each(request, traced):
    """(model, start graph, segment graph) of each config."""
    return traced(request.param)
