"""Traced graphs are shared between tests, as each takes seconds; tests get copies they may change."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import traced_networks
from traced_networks import CONFIGS

from hrm_edge.exporters import build


@pytest.fixture(scope="session")
def traced():
    """Name of a config → (model, start graph, segment graph)."""
    return traced_networks.traced


@pytest.fixture(params=list(CONFIGS))
def each(request, traced):
    """(model, start graph, segment graph) of each config."""
    return traced(request.param)


@pytest.fixture
def fresh_exports(monkeypatch, tmp_path):
    """The traces of another test, a cache of its own, and a fresh folder to work in."""
    for i, name in enumerate(("trace_start", "trace_segment")):
        monkeypatch.setattr(build, name, lambda model, i=i: traced_networks.traced("grid")[1 + i])
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
