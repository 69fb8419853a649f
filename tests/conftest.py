"""What tests of several folders share: helper modules in `helpers/`, hypothesis settings, shared data."""

import gc
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The networks here are tiny, where a second thread only waits. Set before torch is imported, and inherited.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests import onnxruntime by themselves, too.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Not this folder itself: `tests/hrm_edge` would then be taken for the package of that name.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

import shared_traces

# A busy machine is slow, which is no failure: examples have no deadline.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    """The files with the most slow tests first: at the end only short ones are left, and no worker waits."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish():
    """What was imported stays for good: full collections need not search it, which coremltools has many of."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _traces_of_this_session(tmp_path_factory):
    own = tmp_path_factory.getbasetemp()
    shared_traces.folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "traces"


@pytest.fixture
def one_trace(monkeypatch):
    """Exports take the traces that the session's tests share, as one takes seconds."""
    from hrm_edge.exporters import build

    for name in ("trace_start", "trace_segment"):
        monkeypatch.setattr(build, name, getattr(shared_traces, name))


@pytest.fixture(scope="module")
def untrained():
    """The gate judges networks that solve nothing, as those are that nobody trained for a test."""
    from hrm_edge.measure.gate import GateReport

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GateReport, "judged", True)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Puzzle sets and reference outputs that lie beside the checkout where the project is developed."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside this checkout (reference outputs and puzzle sets)")
    return folder
