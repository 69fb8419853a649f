"""Traced graphs are shared between tests, as each takes seconds; tests get copies they may change."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import traced_networks
from traced_networks import CONFIGS


@pytest.fixture(scope="session")
def traced():
    """Name of a config → (model, start graph, segment graph)."""
    return traced_networks.traced


@pytest.fixture(params=list(CONFIGS))
def each(request, traced):
    """(model, start graph, segment graph) of each config."""
    return traced(request.param)
