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
from hrm_edge.measure import memory
from hrm_edge.measure import speed as module
from hrm_edge.measure.artifact import Artifact, open_artifact
from hrm_edge.measure.speed import Settings, bench

torch = pytest.importorskip("torch")

from hrm_edge.models import HRMConfig, build_model, load_checkpoint, save_checkpoint  # noqa: E402

PUZZLES = generate_puzzles(TASK, 10, seed=0)
QUICK = Settings(threads=1, rounds=3, segments=2, per_round=2, memory=False)


@pytest.fixture(autouse=True)
def quick_ceiling(monkeypatch):
    monkeypatch.setattr(module, "_SGEMM", 32)
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
    assert {"sgemm_32_gflops", "segment_gflop", "segment_ms_at_sgemm"} <= set(report.ceilings)


def test_json_has_the_documented_fields(tiny):
    content = json.loads(json.dumps(dataclasses.asdict(bench([open_artifact(tiny, threads=1)], PUZZLES, QUICK))))
    documented = (
        "engine backend precision loop batch ms_per_segment ms_per_puzzle ratio_vs_eager exact peak_rss_mb size_mb"
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
    monkeypatch.setattr(module, "_sgemm", lambda threads: None)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    engine = Recording("a", [])
    solve = engine.solve
    engine.solve = lambda *a, **k: (now.__setitem__(0, now[0] + 1.0), solve(*a, **k))[1]
    (row,) = bench([artifact("a", engine)], PUZZLES, Settings(1, 2, 3, 4, 2, memory=False)).rows
    assert row.ms_per_segment == 250.0  # one call of four segments
    assert row.ms_per_puzzle == 500.0  # one call of two puzzles
    assert row.ms_per_segment_quartiles == (250.0, 250.0)


def test_a_fixed_batch_must_be_the_one_measured():
    fixed = artifact("b", host_engine(batch=4))
    with pytest.raises(InputError, match="built for batches of 4; bench it with --batch 4"):
        bench([fixed], PUZZLES, QUICK)
    bench([fixed], PUZZLES, Settings(1, batch=4, rounds=1, memory=False))


def test_random_weights_have_no_accuracy():
    settings = Settings(1, rounds=1, memory=False, random_weights=True)
    assert bench([artifact("a", host_engine())], PUZZLES, settings).rows[0].exact is None


def test_a_busy_machine_is_pointed_out(monkeypatch):
    waits = iter([0.0, 1e6])
    monkeypatch.setattr(module, "_waited_for_a_cpu", lambda: next(waits))
    report = bench([artifact("a", host_engine())], PUZZLES, QUICK)
    assert any("other work was running" in note for note in report.notes)


def test_a_segments_work_is_the_artifacts(tiny):
    eager = open_artifact(tiny, threads=1)
    report = bench([artifact("host", host_engine()), eager], PUZZLES, dataclasses.replace(QUICK, batch=2))
    assert report.ceilings["segment_gflop"] == pytest.approx(2e-9 * eager.checkpoint.model.segment_flops)
    assert "segment_gflop" not in bench([artifact("host", host_engine())], PUZZLES, QUICK).ceilings


def test_peak_memory_is_the_childs_own(tmp_path):
    pytest.importorskip("onnxruntime")
    bundle = write_toy_bundle(tmp_path / "b")
    hog = np.ones(100_000_000)  # 800 MB here must not show there
    peak, why_not = memory.peak_memory(bundle, batch=1, threads=1)
    assert why_not == ""
    assert 20 < peak < 500
    assert memory.own_peak_mb() > 800
    del hog


def test_peak_memory_says_why_not(tmp_path):
    peak, why_not = memory.peak_memory(tmp_path / "nothing", batch=1, threads=1)
    assert peak is None
    assert "no such checkpoint or bundle" in why_not


def test_peak_memory_of_a_bundle_needs_no_torch(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "torch", None)
    wanted = {"path": str(write_toy_bundle(tmp_path / "b")), "batch": 2, "threads": 1, "compiled": False}
    memory.main([json.dumps(wanted)])
    assert json.loads(capsys.readouterr().out)["peak_rss_mb"] > 0


def test_checkpoint_artifact(tiny):
    opened = open_artifact(tiny, threads=1)
    assert opened.label == "tiny (torch fp32, host loop)"
    assert opened.source_hash == load_checkpoint(tiny).content_hash
    assert torch.get_num_threads() == 1
    assert opened.size_bytes > 1000
