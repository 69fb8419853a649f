"""Traced graphs are shared between tests, as each takes seconds; tests get copies they may change."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import patient_networks
import traced_networks
from traced_networks import CONFIGS

from hrm_edge.exporters import build
from hrm_edge.exporters.search import decide


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


@pytest.fixture(scope="session")
def patient(tmp_path_factory):
    """A checkpoint folder that names its own held-out puzzles, of a network that never halts."""
    return patient_networks.save_patient(tmp_path_factory.mktemp("patient") / "small")


@pytest.fixture(scope="session")
def _kept_answers(tmp_path_factory):
    return tmp_path_factory.mktemp("answers")


@pytest.fixture
def patient_exports(monkeypatch, tmp_path, _kept_answers, own_memory):
    """Its exports trace nothing, choose on few puzzles and ask it nothing twice; a fresh folder to work in."""
    for i, name in enumerate(("trace_start", "trace_segment")):
        monkeypatch.setattr(build, name, lambda model, i=i: patient_networks.patient_graphs()[i])
    monkeypatch.setattr(decide, "SELECTION_PUZZLES", 30)
    monkeypatch.setenv("HRM_EDGE_CACHE", str(_kept_answers))
    monkeypatch.chdir(tmp_path)
