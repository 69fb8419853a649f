"""What is told of two runs: changes that noise does not explain, and nothing else."""

import dataclasses
import json

import numpy as np
import pytest

from hrm_edge.analysis.bench_record import APART, BenchRecord, compare, read_record, slower
from hrm_edge.errors import InputError
from hrm_edge.measure.speed import CeilingRow, SpeedRow
from hrm_edge.measure.statistics import median_interval


def row(ratios, backend="openvino", of_ceiling=None, **changes):
    """A row whose ratio over eager was measured in some rounds."""
    told = None if ratios is None else (float(np.median(ratios)), median_interval(ratios))
    fields = {
        **dict.fromkeys((field.name for field in dataclasses.fields(SpeedRow)), 1.0),
        "engine": "e",
        "backend": backend,
        "precision": "int8",
        "loop": "graph",
        "batch": 1,
        "threads": 2,
        "ms_per_segment_quartiles": (1.0, 1.0),
        "ms_per_segment_interval": (1.0, 1.0),
        "ratio_vs_eager": told and told[0],
        "ratio_vs_eager_interval": told and told[1],
        "of_ceiling": of_ceiling,
        "of_ceiling_interval": of_ceiling and (of_ceiling, of_ceiling),
    }
    return SpeedRow(**{**fields, **changes})


def record(*rows, **changes):
    fields = {
        "hrm_edge": "0",
        "machine": "m",
        "features": ("avx2",),
        "packages": {"openvino": "1"},
        "source": "s",
        "task": "sudoku-9x9",
        "puzzles": "p",
        "n": 1,
        "rounds": 9,
        "segments": 8,
        "seconds": 1.0,
        "waiting": 0.0,
        "ceilings": (CeilingRow("torch", "fp32", 2, 100.0, (99.0, 101.0)),),
        "cold": (),
        "throughput": (),
        "profile": (),
        "notes": (),
        "rows": rows,
    }
    return BenchRecord(**{**fields, **changes})


def noisy(middle, seed, rounds=9):
    return list(middle * np.exp(np.random.default_rng(seed).normal(0, 0.1, rounds)))


def test_equal_speed_under_noise_is_rarely_called_a_change():
    """Rounds that scatter by 10 %, a hundred pairs of runs."""
    found = []
    for seed in range(100):
        (change,), _ = compare(record(row(noisy(3.0, 2 * seed))), record(row(noisy(3.0, 2 * seed + 1))))
        found.append(change.verdict)
    assert found.count("same") >= 97


@pytest.mark.parametrize(("factor", "verdict"), [(0.6, "slower"), (1.7, "faster")])
def test_what_noise_does_not_explain_is_found(factor, verdict):
    found = []
    for seed in range(50):
        (change,), _ = compare(record(row(noisy(3.0, 2 * seed))), record(row(noisy(factor * 3.0, 2 * seed + 1))))
        found.append(change.verdict)
        assert (slower([change]) == [change]) == (change.verdict == "slower")
    assert found.count(verdict) >= 45
    assert set(found) <= {verdict, "same"}


def test_a_change_that_is_sure_but_small_is_none():
    steady = [3.0] * 9
    (change,), _ = compare(record(row(steady)), record(row([3.0 * (1 - APART / 2)] * 9)))
    assert change.verdict == "same"
    (change,), _ = compare(record(row(steady)), record(row([3.0 * (1 - 2 * APART)] * 9)))
    assert change.verdict == "slower"
    assert "slower, × eager 3 (3 to 3) → 2.7" in change.line


def test_without_an_eager_side_the_share_of_the_ceiling_is_compared():
    changes, _ = compare(record(row(None, of_ceiling=0.8)), record(row(None, of_ceiling=0.5)))
    assert [(change.by, change.verdict) for change in changes] == [("of ceiling", "slower")]
    changes, notes = compare(record(row(None)), record(row([1.0] * 9)))
    assert changes == []
    assert "not compared" in notes[0]


def test_engines_are_matched_by_what_they_are():
    then = record(row([3.0] * 9), row([2.0] * 9, backend="onnx"), row([9.0] * 9, batch=8))
    now = record(row([2.0] * 9, backend="onnx"), row([1.0] * 9, backend="onnx", engine="naive export"))
    changes, notes = compare(then, now)
    assert [change.what for change in changes] == ["onnx int8, graph loop, batch 1, 2 threads"]
    assert notes == []


def test_another_machine_other_versions_and_weights_are_named():
    _, notes = compare(record(row([1.0])), record(row([1.0]), machine="n", source="t", packages={"openvino": "2"}))
    assert [note.split()[0:2] for note in notes] == [
        ["another", "kind"],
        ["other", "weights"],
        ["other", "versions"],
    ]


def test_it_reads_what_it_wrote_and_no_other(tmp_path):
    file = tmp_path / "then.json"
    whole = record(row(noisy(3.0, 0)), row(None))
    file.write_text(json.dumps(whole.to_dict()))
    assert read_record(file) == whole
    for damage, told in (
        ({"rows": 3}, "rows"),
        ({"format_version": 99}, "newer hrm-edge"),
        ({"more": 1}, "more"),
        ({"waiting": "much"}, "waiting"),
    ):
        file.write_text(json.dumps({**whole.to_dict(), **damage}))
        with pytest.raises(InputError, match=told) as caught:
            read_record(file)
        assert "\n" not in str(caught.value)
