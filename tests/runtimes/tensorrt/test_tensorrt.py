"""The TensorRT runtime on a simulated GPU: the same answers as the same ONNX gives in onnxruntime, and why not."""

import importlib.util
import itertools
import threading

import numpy as np
import pytest
import toys

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import simulated_trt
from simulated_cuda import Error
from simulated_trt import Strategy
from trt_bundles import write_graphs, write_trt_bundle

from hrm_edge.bundle import open_bundle
from hrm_edge.errors import InputError
from hrm_edge.packages import install, install_package
from hrm_edge.runtimes import HALT_MODES, backend, load_engine
from hrm_edge.runtimes.tensorrt import BACKEND
from hrm_edge.runtimes.tensorrt import backend as tensorrt
from hrm_edge.runtimes.tensorrt.slots import DeviceSlots

PUZZLES = toys.puzzles(20, seed=1)
VERSIONS = ("tensorrt 10.9.0.34", "tensorrt 11.0.0.114", "tensorrt-rtx 1.7.1.116")
RTX = VERSIONS[-1]
FIELDS = ("tokens", "steps", "halted", "q", "trace")


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make(monkeypatch):
    """`make("tensorrt 10.9.0.34", memory=…)` → a machine, whose faults are looked at in the end."""
    made = []

    def build(*versions, **facts):
        made.append(simulated_trt.machine(monkeypatch, *versions, **facts))
        return made[-1]

    yield build
    for one in made:
        one.check()


def reference(path):
    """The bundle's ONNX in onnxruntime, by the loops that other backends use."""
    return load_engine(path, threads=1, stand_in=("onnxruntime", backend("onnx").load_graph))


def assert_same(answers, wanted):
    for name in FIELDS:
        assert np.array_equal(getattr(answers, name), getattr(wanted, name)), name
        if getattr(wanted, name) is not None:
            assert getattr(answers, name).dtype == getattr(wanted, name).dtype


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("loop", "batch"), itertools.product(("host", "graph"), ("dynamic", 3)))
def test_answers_are_those_of_the_onnx(make, tmp_path, version, loop, batch):
    make(version)
    path = write_trt_bundle(tmp_path / "b", loop, batch)
    engine, other = load_engine(path), reference(path)
    assert (engine.backend, engine.loop) == ("tensorrt", loop)
    for halt in HALT_MODES:
        assert_same(engine.solve(PUZZLES, halt=halt, trace=True), other.solve(PUZZLES, halt=halt, trace=True))
    # Rows left over from earlier puzzles, and slots that stay empty, touch nobody.
    for count in (1, 2, 9):
        part = PUZZLES[::-1][:count]
        assert_same(engine.solve(part, max_think_steps=3), other.solve(part, max_think_steps=3))


def test_some_rows_stop_early_and_some_never():
    """A slot that is refilled wrongly shows only when the puzzles need different numbers of segments."""
    steps = toys.host_engine().solve(PUZZLES).steps
    assert len(np.unique(steps)) > 3


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("loop", ["host", "graph"])
def test_several_threads_share_an_engine(make, tmp_path, version, loop):
    make(version)
    engine = load_engine(write_trt_bundle(tmp_path / "b", loop))
    wanted = toys.host_engine().solve(PUZZLES)
    wrong = []

    def work(number):
        for count in (1, 5, 20):
            answers = engine.solve(np.roll(PUZZLES, number, axis=0)[:count])
            if not np.array_equal(answers.tokens, np.roll(wanted.tokens, number, axis=0)[:count]):
                wrong.append((number, count))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_state_never_leaves_the_gpu(make, tmp_path):
    machine = make(RTX)
    engine = load_engine(write_trt_bundle(tmp_path / "b", batch=3))
    machine.gpu.copied.clear()
    steps = int(engine.solve(PUZZLES[:3], halt="fixed", max_think_steps=6).steps.max())
    assert steps == 6
    logits_and_q = 3 * (toys.S * toys.V + 2) * 4
    assert machine.gpu.copied["cudaMemcpyDeviceToHost"] == steps * logits_and_q
    assert machine.gpu.copied["cudaMemcpyHostToDevice"] == 3 * toys.S * 4  # the puzzles, once


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_segments_are_recorded_once_and_launched(make, tmp_path, version):
    machine = make(version)
    engine = load_engine(write_trt_bundle(tmp_path / "b", batch=3))
    engine.solve(PUZZLES[:3], halt="fixed", max_think_steps=8)
    assert len(machine.gpu.graphs) == 1
    assert machine.gpu.launched == 7  # all but the first


@pytest.mark.parametrize(("version", "spoils"), itertools.product(VERSIONS[:2], (True, False)))
def test_what_can_not_be_recorded_is_run(make, tmp_path, version, spoils):
    machine = make(version)
    machine.only.capturable, machine.only.spoils = False, spoils
    path = write_trt_bundle(tmp_path / "b")
    assert_same(load_engine(path).solve(PUZZLES, trace=True), reference(path).solve(PUZZLES, trace=True))
    assert machine.gpu.launched == 0


def test_guesses_of_one_segment_survive_the_next(make, tmp_path):
    make(VERSIONS[0])
    bundle = open_bundle(write_trt_bundle(tmp_path / "b", batch=3))
    here = tensorrt._here(bundle)
    slots = DeviceSlots(*(tensorrt.load(bundle, graph, here) for graph in ("start", "segment")), 3)
    slots.put(
        np.arange(3), PUZZLES[np.argsort(-toys.host_engine().solve(PUZZLES, halt="verified").steps)[:3]], None
    )
    logits, q = slots.think()
    kept = logits.copy(), q.copy()
    assert not np.array_equal(slots.think()[1], kept[1])
    assert np.array_equal(logits, kept[0])
    assert np.array_equal(q, kept[1])


def test_a_call_computes_only_the_rows_it_is_for(make, tmp_path):
    machine = make(RTX)
    load_engine(write_trt_bundle(tmp_path / "b", "graph")).solve(PUZZLES[:2])
    assert [context.shapes["tokens"] for context in machine.only.contexts] == [(2, toys.S)]


def test_rtx_records_by_itself_and_never_again(make, tmp_path):
    machine = make(RTX)
    engine = load_engine(write_trt_bundle(tmp_path / "b"))
    engine.solve(PUZZLES)
    engine.solve(PUZZLES[:3])
    assert machine.gpu.graphs == {}  # none of ours
    assert [c.strategy for c in machine.only.contexts] == [Strategy.WHOLE_GRAPH_CAPTURE] * 2
    # Another shape or address would be another graph.
    assert [len(c.recorded) for c in machine.only.contexts] == [1, 1]


def test_rtx_does_not_record_a_loop_of_unknown_length(make, tmp_path):
    machine = make(RTX)
    load_engine(write_trt_bundle(tmp_path / "b", "graph")).solve(PUZZLES)
    assert {context.strategy for context in machine.only.contexts} == {Strategy.DISABLED}


def test_rtx_kernels_are_compiled_once_for_all_programs(make, tmp_path):
    path = write_trt_bundle(tmp_path / "b")
    first = make(RTX)
    load_engine(path).solve(PUZZLES)
    assert first.only.compiled_kernels == 2  # start and segment
    second = make(RTX)
    load_engine(path).solve(PUZZLES)
    assert second.only.compiled_kernels == 0
    other = make(RTX, driver=13050)  # kernels of another driver are not taken
    load_engine(path).solve(PUZZLES)
    assert other.only.compiled_kernels == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_numbers_that_tensorrt_wants_on_the_host(make, tmp_path, version):
    machine = make(version)
    machine.only.host_tensors = frozenset({"max_think_steps", "halt"})
    path = write_trt_bundle(tmp_path / "b", "graph")
    engine, other = load_engine(path), reference(path)
    for halt, steps in (("learned", 8), ("fixed", 2), ("verified", 5)):
        assert_same(engine.solve(PUZZLES, steps, halt), other.solve(PUZZLES, steps, halt))


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_answers_of_one_call_survive_the_next(make, tmp_path, loop):
    make(RTX)
    engine = load_engine(write_trt_bundle(tmp_path / "b", loop))
    first = engine.solve(PUZZLES[:3])
    kept = first.tokens.copy(), first.q.copy()
    engine.solve(PUZZLES[3:6])
    assert np.array_equal(first.tokens, kept[0])
    assert np.array_equal(first.q, kept[1])
    assert first.tokens.flags.writeable


def test_a_dropped_engine_gives_its_memory_back(make, tmp_path):
    machine = make(VERSIONS[0])
    path = write_trt_bundle(tmp_path / "b")
    engine = load_engine(path)
    engine.solve(PUZZLES)
    assert machine.gpu.in_use("device") > 0
    machine.only.contexts.clear()
    del engine
    assert (machine.gpu.in_use("device"), machine.gpu.in_use("pinned")) == (0, 0)


# -- what can be missing ---------------------------------------------------------------------------------


def _refusal(path):
    with pytest.raises(InputError) as caught:
        load_engine(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_driver(make, tmp_path):
    make(RTX, driver=0)
    path = write_trt_bundle(tmp_path / "b")
    assert BACKEND.available()[:3] == (False, RTX, "there is no NVIDIA driver on this machine")
    assert "there is no NVIDIA driver on this machine" in _refusal(path)
    assert BACKEND.unverified_warning(open_bundle(path)) is None


def test_an_old_driver(make, tmp_path):
    make(RTX, driver=12040)
    message = _refusal(write_trt_bundle(tmp_path / "b"))
    assert "the NVIDIA driver is too old: it runs CUDA up to 12.4, and 13.4 is installed here" in message


def test_a_driver_of_the_same_major_version_will_do(make, tmp_path):
    make(RTX, driver=13000)
    assert BACKEND.available() == (True, f"{RTX} on Simulated GPU", None, "")


def test_no_gpu(make, tmp_path):
    make(RTX, count=0)
    assert "finds no GPU" in _refusal(write_trt_bundle(tmp_path / "b"))


def test_a_gpu_that_rtx_does_not_run(make, tmp_path):
    make(RTX, compute_capability=90)
    usable, _, why_not, command = BACKEND.available()
    assert not usable
    assert why_not == "the GPU has compute capability 9.0, which tensorrt-rtx does not run"
    assert command == "pip install tensorrt"
    assert why_not in _refusal(write_trt_bundle(tmp_path / "b"))


def test_the_other_flavour_runs_it_then(make, tmp_path):
    machine = make(RTX, VERSIONS[1], compute_capability=90)
    path = write_trt_bundle(tmp_path / "b")
    assert_same(load_engine(path).solve(PUZZLES), reference(path).solve(PUZZLES))
    assert [len(machine.flavours[name].built) for name in ("tensorrt-rtx", "tensorrt")] == [0, 2]


def test_nothing_installed(make, tmp_path):
    make()
    usable, version, why_not, command = BACKEND.available()
    assert (usable, version) == (False, None)
    assert why_not == "neither tensorrt-rtx nor tensorrt is installed"
    assert command == install("tensorrt")


def test_cuda_python_missing(make, monkeypatch, tmp_path):
    make(RTX)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("cuda") else find(name))
    assert BACKEND.available() == (False, RTX, "cuda-python is not installed", install_package("cuda-python"))
    assert "cuda-python is not installed" in _refusal(write_trt_bundle(tmp_path / "b"))


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_out_of_memory_is_noticed_at_load(make, tmp_path, loop):
    make(RTX, memory=1000)
    message = _refusal(write_trt_bundle(tmp_path / "b", loop))
    assert "out of memory" in message
    assert "of 1000 bytes are free" in message
    assert "--batch" in message


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_a_gpu_that_fails_in_the_middle(make, tmp_path, loop):
    machine = make(VERSIONS[0])
    engine = load_engine(write_trt_bundle(tmp_path / "b", loop))
    wanted = engine.solve(PUZZLES)
    machine.gpu.fail_next = Error.cudaErrorIllegalAddress
    with pytest.raises(InputError, match=r"running on the GPU failed: IllegalAddress \(CUDA error 700\)"):
        engine.solve(PUZZLES)
    # What it was doing is dropped, and a fresh set of buffers is made.
    assert_same(engine.solve(PUZZLES), wanted)


def test_an_engine_of_another_graph_is_refused(make, tmp_path, monkeypatch):
    make(RTX)
    path = write_trt_bundle(tmp_path / "b", "host")
    swapped = {"start": "segment", "segment": "start"}
    monkeypatch.setattr(
        tensorrt, "load", lambda b, graph, here, _load=tensorrt.load: _load(b, swapped[graph], here)
    )
    assert "is not what the manifest says" in _refusal(path)


# -- checked here or not ---------------------------------------------------------------------------------


def test_unverified_until_marked(make, tmp_path):
    make(RTX)
    bundle = open_bundle(write_trt_bundle(tmp_path / "b"))
    warning = BACKEND.unverified_warning(bundle)
    assert warning is not None
    assert "nobody has checked its answers on this Simulated GPU with tensorrt-rtx 1.7.1.116" in warning
    BACKEND.mark_verified(bundle)
    assert BACKEND.unverified_warning(bundle) is None
    # Another GPU, version or bundle is another matter.
    make(RTX, name="Other GPU")
    assert BACKEND.unverified_warning(bundle)
    make("tensorrt-rtx 1.8.0.1")
    assert BACKEND.unverified_warning(bundle)
    make(RTX)
    assert BACKEND.unverified_warning(bundle) is None
    assert BACKEND.unverified_warning(open_bundle(write_trt_bundle(tmp_path / "c", name="other")))


# -- a real network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_graphs():
    """A small HRM with several puzzle identifiers, traced: graphs of both loops, and its configuration."""
    pytest.importorskip("torch")
    from traced_networks import TASK, traced

    from hrm_edge.exporters.graph.loop import wrap_in_loop

    model, start, segment = traced("learned")
    looped = wrap_in_loop(start, segment, TASK, model.config.no_ACT_continue)
    return model.config, {"host": {"start": start, "segment": segment}, "graph": {"model": looped}}


@pytest.mark.slow
@pytest.mark.parametrize(("version", "loop"), itertools.product((VERSIONS[0], RTX), ("host", "graph")))
def test_a_real_network_with_puzzle_identifiers(make, tmp_path, real_graphs, version, loop):
    make(version)
    config, graphs = real_graphs
    path = write_graphs(tmp_path / "b", loop, graphs[loop], config)
    engine, other = load_engine(path), reference(path)
    identifiers = np.arange(len(PUZZLES), dtype=np.int32) % 5
    for ids, halt in itertools.product((identifiers, identifiers[::-1], None), ("learned", "fixed")):
        answers = engine.solve(PUZZLES, halt=halt, puzzle_identifiers=ids)
        wanted = other.solve(PUZZLES, halt=halt, puzzle_identifiers=ids)
        for name in ("tokens", "steps", "halted"):
            assert np.array_equal(getattr(answers, name), getattr(wanted, name)), name
        # Sums in batches of other sizes differ in their last bits.
        assert np.allclose(answers.q, wanted.q, atol=1e-4)
    changed = engine.solve(PUZZLES, halt="fixed", puzzle_identifiers=identifiers[::-1]).q
    assert not np.allclose(
        changed, engine.solve(PUZZLES, halt="fixed", puzzle_identifiers=identifiers).q, atol=1e-2
    )
