"""What tests of several folders share: helper modules in `helpers/`, hypothesis settings, shared data."""

import contextlib
import functools
import gc
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

# The networks here are tiny, where a second thread only waits. Set before torch is imported, and inherited.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests import onnxruntime by themselves, too.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Not this folder itself: `tests/hrm_edge` would then be taken for the package of that name.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

import shared_traces

# Nor does openvino send anything where tests import it: it would do so from forks, of what is a large process here.
sys.modules.setdefault("openvino_telemetry", None)

# A busy machine is slow, which is no failure: examples have no deadline.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    """The files with the most slow tests first, and then those that trace or train in all of them: at the end only
    short ones are left, and no worker waits."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    long = {"exporters", "trainer"}
    items.sort(key=lambda item: (-slow[item.path], long.isdisjoint(item.path.parts)))


def pytest_runtest_setup():
    """What was imported stays for good: full collections need not search it, which coremltools has many of."""
    if len(sys.modules) > _frozen[0] + 100:
        _frozen[0] = len(sys.modules)
        gc.collect()
        gc.freeze()
        if "coremltools" in sys.modules:
            _convert_faster()


_frozen = [0]  # modules that there were when the heap was last frozen


@functools.cache
def _convert_faster():
    """coremltools looks for mistakes of its own after each of its eighty passes, which takes half of a conversion:
    here it looks at the program that it is given, and at what has become of it. Nor does it write whole programs
    for a log that nobody reads, collect garbage each time, or hand on which values stand behind weights that are
    stored in few bits, again after each change, where no weight is.
    """
    from coremltools.converters import _converters_entry
    from coremltools.converters.mil import Block, Function, Program, Var
    from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipelineManager

    every_pass, hand_on, is_stored = (
        PassPipelineManager.apply_pipeline,
        Block._propagate_nonreplaceable_vars,
        Var._is_nonreplaceable_var,
    )

    def stored(block):
        return any(op.op_type.startswith("constexpr_") or any(map(stored, op.blocks)) for op in block.operations)

    def apply(prog, pass_pipeline):
        prog.validate()
        there = [True] if any(map(stored, prog.functions.values())) else []

        def watched(var):
            if found := is_stored(var):
                there.append(True)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Program, "validate", lambda *_, **__: None)
            for kind in (Program, Function, Block):
                patch.setattr(kind, "__str__", lambda _: "")
            patch.setattr(Var, "_is_nonreplaceable_var", staticmethod(watched))
            patch.setattr(Block, "_propagate_nonreplaceable_vars", lambda block: hand_on(block) if there else None)
            every_pass(prog, pass_pipeline)
        prog.validate()

    PassPipelineManager.apply_pipeline = staticmethod(apply)
    _converters_entry.gc = SimpleNamespace(collect=lambda: 0)


@pytest.fixture(scope="session", autouse=True)
def _traces_of_this_session(tmp_path_factory):
    own = tmp_path_factory.getbasetemp()
    shared_traces.folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "traces"


@pytest.fixture(scope="session", autouse=True)
def _puzzles_drawn_once():
    """Runs and gates draw the same puzzles again and again; puzzle i of a set depends on its task, seed and
    difficulty alone. What counts them while they are drawn, or says how many processes draw, gets them anew."""
    from hrm_edge.data import puzzles

    draw, kept = puzzles.generate_distinct, {}

    def drawn(task, n, seed, difficulty="ordinary", processes=None, progress=None):
        if processes is not None or progress is not None or n < 1:
            return draw(task, n, seed, difficulty, processes, progress)
        at = id(task), seed, difficulty
        if at not in kept or len(kept[at][1][0]) < n:
            kept[at] = task, draw(task, n, seed, difficulty)  # the task, so that no other gets its id
        return tuple(side[:n].copy() for side in kept[at][1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(puzzles, "generate_distinct", drawn)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """As for torch above: where nobody says how many threads a session has, the second would only wait."""
    from hrm_edge.runtimes import onnx, openvino

    opened, settings = onnx.open_session, openvino._settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            onnx,
            "open_session",
            lambda model, threads=None, *more, **rest: opened(model, threads or 1, *more, **rest),
        )
        patch.setattr(openvino, "_settings", lambda threads, *more: settings(threads or 1, *more))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_power_failure():
    """What only a machine that loses its power would tell apart from what the system holds is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: os.fstat(handle) and None)  # of no file, it fails as ever
        yield


@contextlib.contextmanager
def _one_trace():
    from hrm_edge.exporters import build

    with pytest.MonkeyPatch.context() as patch:
        for name in ("trace_start", "trace_segment"):
            patch.setattr(build, name, getattr(shared_traces, name))
        yield


@contextlib.contextmanager
def _own_memory():
    from hrm_edge.measure import cold, speed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "peak_memory", lambda *_, **__: (cold.own_peak_mb(), ""))
        yield


@pytest.fixture
def one_trace():
    """Exports take the traces that the session's tests share, as one takes seconds."""
    with _one_trace():
        yield


@pytest.fixture
def own_memory():
    """A report's peaks of memory are this process's: two fresh ones, which import torch, take four seconds."""
    with _own_memory():
        yield


@pytest.fixture(scope="module")
def quick_export():
    """Both, for all tests of a file and what they share."""
    with _one_trace(), _own_memory():
        yield


@pytest.fixture(scope="module")
def short_runs():
    """Runs measure after few segments what they have trained, and calibrate on few puzzles: of a run of some steps
    that is most of its time."""
    from hrm_edge.trainer import measure, qat

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "FINAL_SEGMENTS", (1, 2, 4))
        patch.setattr(qat, "CALIBRATION_PUZZLES", 32)
        yield


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
