"""Copies and leaks are seen through every symmetry of a task: renamed, transposed, rows and columns changed."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from hrm_edge.data.choose import apart
from hrm_edge.data.leaks import distinct_puzzles, fingerprints, refuse_leak, seen_before
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task

NAMES = ["sudoku-6x6", "sudoku", "maze-9x9"]


def some(name: str, n: int = 12, seed: int = 3) -> PuzzleSet:
    return generate_puzzles(get_task(name), n, seed, processes=1)


def turned(puzzles: PuzzleSet, seed: int = 1) -> PuzzleSet:
    """Each changed by a random symmetry."""
    rng = np.random.default_rng(seed)
    questions, answers = puzzles.task.augment(rng, puzzles.questions, puzzles.answers)
    return replace(puzzles, questions=questions, answers=answers)


def joined(*sets: PuzzleSet) -> PuzzleSet:
    return replace(
        sets[0],
        questions=np.concatenate([each.questions for each in sets]),
        answers=np.concatenate([each.answers for each in sets]),
        sources=[source for each in sets for source in each.sources],
    )


def renamed(puzzles: PuzzleSet) -> PuzzleSet:
    """Digits alone: each is the next one."""
    values = np.arange(puzzles.task.vocab_size, dtype=np.int32)
    values[2:] = np.roll(values[2:], 1)
    return replace(puzzles, questions=values[puzzles.questions], answers=values[puzzles.answers])


def transposed(puzzles: PuzzleSet) -> PuzzleSet:
    order = np.arange(puzzles.task.seq_len).reshape(puzzles.task.rows, puzzles.task.cols).T.reshape(-1)
    return replace(puzzles, questions=puzzles.questions[:, order], answers=puzzles.answers[:, order])


@pytest.mark.parametrize("name", NAMES)
def test_copies_count_once_in_the_order_of_the_first(name):
    puzzles = some(name)
    kept = distinct_puzzles(joined(puzzles, turned(puzzles), puzzles, turned(puzzles, 2)))
    assert np.array_equal(kept.questions, puzzles.questions)
    assert np.array_equal(kept.answers, puzzles.answers)
    assert kept.sources == puzzles.sources


def test_four_hundred_copies_are_one_puzzle():
    one = some("sudoku", 1)
    assert len(distinct_puzzles(one.select(np.zeros(400, int)))) == 1
    assert len(distinct_puzzles(turned(one.select(np.zeros(400, int))))) == 1


def test_puzzles_that_differ_are_all_kept():
    puzzles = some("sudoku", 50)
    assert distinct_puzzles(puzzles) is puzzles


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku"])
def test_solved_boards_are_compared_too(name):
    """All rows of a full board look alike, which tells nothing; nor may it take for ever."""
    puzzles = some(name, 12)
    full = replace(puzzles, questions=puzzles.answers)
    once = distinct_puzzles(full)
    assert len(once) == 2 if name == "sudoku-4x4" else len(once) == 12  # 4x4 has two up to symmetry
    assert len(distinct_puzzles(joined(full, turned(full)))) == len(once)


def test_a_puzzle_that_its_identifier_asks_for_is_another():
    puzzles = some("sudoku-6x6", 4)
    twice = joined(puzzles, puzzles)
    assert len(distinct_puzzles(replace(twice, identifiers=np.arange(8, dtype=np.int32), num_identifiers=8))) == 8
    assert len(distinct_puzzles(replace(twice, identifiers=np.zeros(8, np.int32)))) == 4


@pytest.mark.parametrize("change", [renamed, transposed, turned])
def test_calibration_puzzles_in_another_dress_are_a_leak(change):
    puzzles = some("sudoku")
    seen = fingerprints(change(puzzles.select(np.arange(5))))
    with pytest.raises(InputError, match="tests: 5 of the 12 puzzles"):
        refuse_leak(seen, puzzles, "tests")
    assert len(apart(puzzles, [change(puzzles.select(np.arange(5)))])) == 7
    with pytest.raises(InputError, match=r"all 12 puzzles of .* measured or calibrated on .* --calibration"):
        apart(puzzles, [None, change(puzzles)])


@pytest.mark.parametrize("name", NAMES)
def test_fresh_puzzles_are_none(name):
    puzzles = some(name)
    refuse_leak(fingerprints(some(name, 12, 99)), puzzles, "tests")


def test_fingerprints_of_older_records_still_count():
    puzzles = some("sudoku-6x6")

    def once(row: np.ndarray) -> str:
        return hashlib.sha256(row.astype(np.int32).tobytes()).hexdigest()[:16]

    assert seen_before([once(puzzles.questions[3])], puzzles).tolist() == [row == 3 for row in range(12)]
    assert seen_before([once(puzzles.answers[4])], puzzles).tolist() == [row == 4 for row in range(12)]
