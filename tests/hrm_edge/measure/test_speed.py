"""What a benchmark counts and compares; how long anything took is never asserted."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toys import TASK, graph_engine, host_engine, write_toy_bundle

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.measure import ceilings, clock, cold
from hrm_edge.measure import speed as module
from hrm_edge.measure.artifact import Artifact, open_artifact
from hrm_edge.measure.speed import Settings, bench
from hrm_edge.measure.work import Work
from hrm_edge.runtimes import load_engine

torch = pytest.importorskip("torch")

from hrm_edge.models import HRMConfig, build_model, load_checkpoint, save_checkpoint  # noqa: E402

PUZZLES = generate_puzzles(TASK, 10, seed=0)
# Ratios are told however busy the machine is that tests run on.
QUICK = Settings(threads=1, rounds=3, segments=2, per_round=2, memory=False, most_waiting=1.0)


@pytest.fixture(autouse=True)
def quick_ceiling(monkeypatch):
    monkeypatch.setattr(ceilings, "SIZE", 32)
    monkeypatch.setattr(ceilings, "COPIED", 1000)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = HRMConfig(TASK.vocab_size, TASK.seq_len, hidden_size=16, num_heads=2, H_layers=1, L_layers=1)
    path = tmp_path_factory.mktemp("ck") / "tiny"
    save_checkpoint(path, build_model(config, TASK), TASK.name, "# tiny", {})
    return path


def artifact(name, engine, source="same", checkpoint=None):
    return Artifact(name, Path(name), engine, "fp32", 2_000_000, source, checkpoint, None)


def test_rows_and_ratios(tiny):
    eager = open_artifact(tiny, threads=1)
    same = artifact("host", host_engine(), eager.source_hash)
    other = artifact("graph", graph_engine(), "other weights")
    report = bench([eager, same, other], PUZZLES, QUICK)
    assert [row.engine for row in report.rows] == ["tiny", "host", "graph"]
    assert [row.loop for row in report.rows] == ["host", "host", "graph"]
    assert report.rows[0].ratio_vs_eager == 1.0
    assert report.rows[1].ratio_vs_eager > 0
    assert report.rows[2].ratio_vs_eager is None
    assert any("no ratio" in note for note in report.notes)
    assert report.rows[1].size_mb == 2.0
    assert report.rows[1].exact == report.rows[2].exact > 0
    assert report.puzzles == 6
    assert report.ceilings == []


def test_json_has_the_documented_fields(tiny):
    content = json.loads(json.dumps(dataclasses.asdict(bench([open_artifact(tiny, threads=1)], PUZZLES, QUICK))))
    documented = (
        "engine backend precision loop batch threads ms_per_segment cpu_ms_per_segment waiting ms_per_puzzle "
        "ms_per_solved ratio_vs_eager of_ceiling of_memory exact peak_rss_mb size_mb"
    )
    assert set(documented.split()) <= set(content["rows"][0])
    assert {"rows", "ceilings"} <= set(content)


def test_puzzles_without_a_label_are_timed_and_in_no_rate(monkeypatch):
    engine, first = host_engine(), PUZZLES.take(6, seed=0)  # three rounds of two, all solved
    monkeypatch.setattr(type(TASK), "has_rules", False)  # nothing but the label tells
    labels = first.answers.copy()
    labels[:2] = 0
    labels[2] = labels[3]
    (row,) = bench([artifact("host", engine)], dataclasses.replace(first, answers=labels), QUICK).rows
    assert row.exact == 3 / 4
    (row,) = bench([artifact("host", engine)], dataclasses.replace(first, answers=0 * labels), QUICK).rows
    assert row.exact is None


class Recording:
    """An engine that notes what it is asked, and takes a given time per call."""

    def __init__(self, name, log, seconds=0.0):
        self.name, self.log, self.seconds = name, log, seconds
        self.inner = host_engine()

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def solve(self, tokens, **options):
        self.log.append((self.name, tokens.tobytes(), options))
        time.sleep(self.seconds)
        return self.inner.solve(tokens, **options)


def test_rounds_are_interleaved_rotated_and_ask_the_same():
    log = []
    engines = [Recording(name, log) for name in "abc"]
    bench([artifact(e.name, e) for e in engines], PUZZLES, QUICK)
    rounds = log[9:]  # after three warm-up calls each
    order = [name for i, (name, _, _) in enumerate(rounds) if i == 0 or rounds[i - 1][0] != name]
    # Where two rounds meet, c ends one and b begins the next, and so on.
    assert "".join(order) == "abcbcacab"
    asked = {name: [call[1:] for call in rounds if call[0] == name] for name in "abc"}
    assert asked["a"] == asked["b"] == asked["c"]
    assert len({call[0] for call in asked["a"]}) == 6, "three rounds of two puzzles each"


def test_times_are_per_segment_and_per_puzzle(monkeypatch):
    """With a clock that only engines advance, one second per call."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    engine = Recording("a", [])
    solve = engine.solve
    engine.solve = lambda *a, **k: (now.__setitem__(0, now[0] + 1.0), solve(*a, **k))[1]
    (row,) = bench([artifact("a", engine)], PUZZLES, Settings(1, 2, 3, 4, 2, memory=False)).rows
    assert row.ms_per_segment == 250.0  # one call of four segments
    assert row.ms_per_puzzle == 500.0  # one call of two puzzles
    assert row.ms_per_segment_quartiles == row.ms_per_segment_interval == (250.0, 250.0)
    assert row.ms_per_solved == pytest.approx(500.0 / row.exact)


def test_a_fixed_batch_must_be_the_one_measured():
    fixed = artifact("b", host_engine(batch=4))
    with pytest.raises(InputError, match="built for batches of 4; bench it with --batch 4"):
        bench([fixed], PUZZLES, QUICK)
    bench([fixed], PUZZLES, Settings(1, batch=4, rounds=1, memory=False))


def test_random_weights_have_no_accuracy():
    settings = Settings(1, rounds=1, memory=False, random_weights=True)
    assert bench([artifact("a", host_engine())], PUZZLES, settings).rows[0].exact is None


class Waiting:
    """A clock by which everything takes a second, of which a thread waits for a share that is told in turn."""

    def __init__(self, shares):
        self.shares = iter(shares)

    def __call__(self):
        share = next(self.shares, 0.0)
        return type("Clock", (), {"stop": lambda self: clock.Span(1.0, 0.5, share)})()


def test_a_busy_machine_is_pointed_out(monkeypatch):
    monkeypatch.setattr(module, "Clock", Waiting([0.3]))
    report = bench([artifact("a", host_engine())], PUZZLES, QUICK)
    assert report.waiting == 0.3
    assert any("30% of the time went by waiting for a CPU" in note for note in report.notes)


@pytest.mark.parametrize(
    ("busy_rounds", "told"),
    [((), True), ((0,), True), ((0, 3), True), ((0, 1, 2), False), (range(5), False)],
)
def test_a_round_that_waited_gives_no_ratio_and_too_few_rounds_none_at_all(tiny, monkeypatch, busy_rounds, told):
    """Of five rounds; in the busy ones the engine waited for 30 % of its time, and was three times as slow."""
    spans = {True: clock.Span(3.0, 0.5, 0.9), False: clock.Span(1.0, 0.5, 0.0)}
    eager, fast = (
        open_artifact(tiny, threads=1),
        artifact("host", host_engine(), load_checkpoint(tiny).content_hash),
    )
    made = {id(eager): [clock.Span(2.0, 1.0, 0.0)] * 5, id(fast): [spans[i in busy_rounds] for i in range(5)]}
    monkeypatch.setattr(
        module, "_time_round", lambda each, _, __, i: each.segment.append(made[id(each.artifact)][i])
    )
    settings = Settings(threads=1, rounds=5, segments=1, per_round=0, memory=False)
    report = bench([eager, fast], PUZZLES, settings)
    row = report.rows[1]
    assert row.ratio_vs_eager == (2.0 if told else None)
    assert row.ratio_vs_eager_interval == ((2.0, 2.0) if told else None)
    assert report.rows[0].ratio_vs_eager == 1.0
    assert row.cpu_ms_per_segment == 500.0
    assert any("no ratio of 1 of 2 engines" in note for note in report.notes) is not told


def test_shares_of_the_ceilings_are_by_the_fastest_library_and_the_same_round(monkeypatch):
    """A segment of a second that multiplies 10 and moves 30 for each of two rows, on three ceilings."""
    known = [
        ceilings.Ceiling("slow", "fp32", 100.0, lambda: None),
        ceilings.Ceiling("fast", "fp32", 200.0, lambda: None),
        ceilings.Ceiling("memory", ceilings.MEMORY, 120.0, lambda: None),
    ]
    monkeypatch.setattr(module, "ceilings", lambda threads: known)
    monkeypatch.setattr(module, "Clock", Waiting([]))
    monkeypatch.setattr(ceilings, "Clock", Waiting([]))
    settings = dataclasses.replace(QUICK, batch=2, segments=1, ceilings=True)
    work = [Work({"fp32": 10}, 0, 30), Work({"int8": 10}, 60, 0), None]
    engines = [artifact(name, host_engine()) for name in "abc"]
    first, second, third = bench(engines, PUZZLES, settings, work=work).rows
    assert first.of_ceiling == first.of_ceiling_interval[0] == 2 * 10 / 200
    assert first.of_ceiling_cpu == pytest.approx(2 * 10 / 400 / 0.5), "half of each second was computed"
    assert first.of_memory == 2 * 30 / 120
    assert (second.of_ceiling, second.of_memory) == (None, 60 / 120), "no int8 product was timed"
    assert (third.of_ceiling, third.of_ceiling_cpu, third.of_memory) == (None, None, None)


def test_every_library_here_is_timed_at_what_it_multiplies():
    found = ceilings.ceilings(threads=2)
    kinds = {(each.by, each.kind) for each in found}
    assert {("torch", "fp32"), ("numpy", ceilings.MEMORY)} <= kinds
    for each in found:
        span = each.time()
        assert span.seconds > 0
        assert each.work in (2 * 32**3, 8 * 1000)
    from hrm_edge.runtimes import backends

    for name in ("onnx", "openvino"):
        if backends()[name].available().usable:
            assert (name, "fp32") in kinds
            assert backends()[name].product("int4-weights", 32, 1) is None


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_int8_ceiling_is_a_product_of_integers(name):
    pytest.importorskip({"onnx": "onnxruntime"}.get(name, name))
    if name == "onnx":
        import onnx

        from hrm_edge.runtimes import onnx as runtime

        graph = onnx.load_from_string(runtime._product(np.uint8, np.int8, np.int32, 32)).graph
        assert [node.op_type for node in graph.node] == ["MatMulInteger"]
        return
    from hrm_edge.runtimes import openvino as runtime

    (compiled,) = runtime._products(runtime._product("int8", 32))
    assert (compiled.left in ("int8", "uint8"), compiled.right) == (True, "int8")


def test_a_clock_tells_what_passed_and_what_was_computed():
    watch = clock.Clock()
    while sum(range(1000)) and time.process_time() - watch._cpu < 0.02:
        pass
    span = watch.stop()
    assert span.seconds >= 0.02 * 0.9
    assert span.cpu >= 0.02
    assert 0 <= span.waiting <= 1
    assert clock.Span(2.0, 0.0, 5.0).waiting == 1.0


def test_peak_memory_is_the_childs_own(tmp_path):
    pytest.importorskip("onnxruntime")
    bundle = write_toy_bundle(tmp_path / "b")
    hog = np.ones(100_000_000)  # 800 MB here must not show there
    peak, why_not = cold.peak_memory(bundle, batch=1, threads=1)
    assert why_not == ""
    assert 20 < peak < 500
    assert cold.own_peak_mb() > 800
    del hog


def test_peak_memory_says_why_not(tmp_path):
    peak, why_not = cold.peak_memory(tmp_path / "nothing", batch=1, threads=1)
    assert peak is None
    assert "no such checkpoint or bundle" in why_not


def test_a_cold_start_neither_reads_nor_keeps_what_openvino_compiled(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    bundle = write_toy_bundle(tmp_path / "b", "openvino")
    told, why_not = cold.start_cold(bundle, batch=1, threads=1)
    assert told is not None, why_not
    assert not (tmp_path / "cache" / "openvino").exists()
    load_engine(bundle, threads=1)
    assert list((tmp_path / "cache" / "openvino").glob("*.blob"))


def test_peak_memory_of_a_bundle_needs_no_torch(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "torch", None)
    wanted = {"path": str(write_toy_bundle(tmp_path / "b")), "batch": 2, "threads": 1, "compiled": False}
    cold.main([json.dumps(wanted)])
    told = cold.ColdStart(**json.loads(capsys.readouterr().out))
    assert told.peak_rss_mb >= told.bare_rss_mb > 0
    assert set(told.seconds) == set(told.cpu) == set(cold.STAGES)
    assert told.total == sum(told.seconds.values())


def test_checkpoint_artifact(tiny):
    opened = open_artifact(tiny, threads=1)
    assert opened.label == "tiny (torch fp32, host loop)"
    assert opened.source_hash == load_checkpoint(tiny).content_hash
    assert torch.get_num_threads() == 1
    assert opened.size_bytes > 1000
