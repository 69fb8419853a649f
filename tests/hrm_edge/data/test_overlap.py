"""Repeated and shared puzzles: counted as brute force counts them, named by row, as typed and from Python."""

import json
from dataclasses import replace

import commands
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.data.overlap import find_overlap
from hrm_edge.data.puzzles import generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task


def turned(puzzles, rows, seed=0):
    """Those puzzles, each changed by a random symmetry."""
    some = puzzles.select(np.asarray(rows))
    questions, answers = some.task.augment(np.random.default_rng(seed), some.questions, some.answers)
    return replace(some, questions=questions, answers=answers)


def joined(*sets):
    return replace(
        sets[0],
        questions=np.concatenate([s.questions for s in sets]),
        answers=np.concatenate([s.answers for s in sets]),
        sources=[source for s in sets for source in s.sources],
    )


@pytest.fixture(scope="module", params=["sudoku-6x6", "maze-9x9"])
def distinct(request):
    """30 puzzles, no two of them equivalent: symmetry is searched for all pairs, without fingerprints."""
    puzzles = generate_puzzles(get_task(request.param), 30, 0, processes=1)
    task, kept = puzzles.task, []
    for row, question in enumerate(puzzles.questions):
        if not any(task.find_symmetry(puzzles.questions[other], question) for other in kept):
            kept.append(row)
    return puzzles.select(np.array(kept))


@given(data=st.data())
@settings(max_examples=20)
def test_counts_are_those_of_the_planted_puzzles(distinct, data):
    """Each set draws numbers; a number stands for one puzzle, shown plain (True) or turned (False)."""
    # The plain board and one turn that differs from it, so that "exact" means equal numbers and equal sides.
    shown = {True: distinct, False: turned(distinct, range(len(distinct)), 1)}
    moved = (shown[True].questions != shown[False].questions).any(axis=1)
    numbers = np.flatnonzero(moved).tolist()
    draws = st.lists(st.tuples(st.sampled_from(numbers), st.booleans()), min_size=1, max_size=12)
    picks = [data.draw(draws) for _ in range(2)]
    sets = [joined(*(shown[plain].select(np.array([number])) for number, plain in pick)) for pick in picks]
    found = find_overlap(sets, ["a", "b"])
    for pick, got in zip(picks, found.sets, strict=True):
        assert got.n == len(pick)
        assert got.exact == len(pick) - len(set(pick))
        assert got.symmetric == len(pick) - len({number for number, _ in pick})
    (shared,) = found.pairs
    assert shared.exact == sum(p in picks[0] for p in picks[1])
    assert shared.symmetric == sum(n in {m for m, _ in picks[0]} for n, _ in picks[1])
    assert found.leaks == bool(shared.symmetric)
    assert len(shared.examples) == min(5, shared.symmetric)
    for pair in shared.examples:
        first, second = picks[0][pair.in_first - 1], picks[1][pair.in_second - 1]
        assert first[0] == second[0]
        assert pair.exact == (first == second)


def test_only_sets_of_one_task_are_compared():
    sets = [generate_puzzles(get_task(task), 2, 0, processes=1) for task in ("sudoku-4x4", "sudoku-6x6")]
    with pytest.raises(InputError, match="one task"):
        find_overlap(sets, ["a", "b"])


def run(capsys, *arguments):
    return commands.run(capsys, "data", "overlap", *arguments)


def test_a_leak_is_named_and_fails(tmp_path, capsys, monkeypatch, distinct):
    monkeypatch.chdir(tmp_path)
    task = ["--task", distinct.task.name]
    train, rest = distinct.select(np.arange(5)), distinct.select(np.arange(5, len(distinct)))
    save_puzzles(joined(train, train.select(np.array([2]))), "train.csv")
    save_puzzles(rest, "clean.csv")
    save_puzzles(joined(rest.select(np.arange(2)), turned(train, [3])), "test.csv")

    code, out, err = run(capsys, "train.csv", "clean.csv", *task)
    assert (code, err) == (0, "")
    assert "train.csv: puzzle 3 stands again as puzzle 6\n" in out
    assert f"clean.csv: 0 of {len(rest)} puzzles also stand in train.csv, 0 up to symmetry" in out

    code, out, err = run(capsys, "train.csv", "test.csv", *task)
    assert (code, err) == (1, "hrm-edge: sets share puzzles\n")
    assert "test.csv: 0 of 3 puzzles also stand in train.csv, 1 up to symmetry" in out
    assert "train.csv puzzle 4 is test.csv puzzle 3 up to symmetry" in out

    code, out, _ = run(capsys, "train.csv", "clean.csv", "test.csv", "--json", *task)
    found = json.loads(out)
    assert (code, found["leaks"]) == (1, True)
    assert [(p["first"], p["second"], p["symmetric"]) for p in found["pairs"]] == [
        ("train.csv", "clean.csv", 0),
        ("train.csv", "test.csv", 1),
        ("clean.csv", "test.csv", 2),
    ]
    assert found["pairs"][1]["examples"] == [{"in_first": 4, "in_second": 3, "exact": False}]
    assert found["sets"][0]["examples"] == [{"puzzle": 3, "again": 6, "exact": True}]


def test_planted_puzzles_are_found_among_thousands(shared_data):
    """The 3 000 puzzles are all different; 25 of them, turned, are planted among others of them."""
    test = load_puzzles(shared_data / "sudoku" / "test.csv.gz", get_task("sudoku"))
    rows = np.random.default_rng(3).choice(len(test), 25, replace=False)
    others = test.select(np.setdiff1d(np.arange(len(test)), rows))
    found = find_overlap([joined(others, turned(test, rows)), test.select(rows)], ["a", "b"])
    assert [s.symmetric for s in found.sets] == [0, 0]
    assert (found.pairs[0].exact, found.pairs[0].symmetric) == (0, 25)


@pytest.mark.slow
def test_the_shared_training_and_test_sets_are_disjoint_up_to_symmetry(shared_data):
    sets = [
        load_puzzles(shared_data / "sudoku" / f"{part}.csv.gz", get_task("sudoku")) for part in ("train", "test")
    ]
    found = find_overlap(sets, ["train", "test"])
    assert not found.leaks
    assert [s.symmetric for s in found.sets] == [0, 0]
