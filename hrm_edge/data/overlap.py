"""Puzzles that stand twice in a set, or in several sets: as they are, or up to the task's symmetries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..errors import InputError
from ..progress import Progress
from ..tasks import Task
from .puzzles import PuzzleSet

_CHUNK = 8192  # puzzles per report of progress
_EXAMPLES = 5  # pairs that a report names


@dataclass(frozen=True)
class Again:
    """Two puzzles of one set, counted from 1, that are the same."""

    puzzle: int
    again: int
    exact: bool  # the same string; otherwise a symmetry turns one into the other


@dataclass(frozen=True)
class Repeats:
    """What one set holds more than once: puzzles that have an earlier twin."""

    set: str
    n: int
    exact: int
    symmetric: int  # exact ones included
    examples: list[Again]


@dataclass(frozen=True)
class Common:
    """The same puzzle in two sets, counted from 1."""

    in_first: int
    in_second: int
    exact: bool


@dataclass(frozen=True)
class Shared:
    """Which puzzles of ``second`` also stand in ``first``."""

    first: str
    second: str
    n: int  # how many puzzles the second set has
    exact: int
    symmetric: int  # exact ones included
    examples: list[Common]


@dataclass(frozen=True)
class Overlap:
    """``sets`` within themselves, and every two of them against each other."""

    sets: list[Repeats]
    pairs: list[Shared]

    @property
    def leaks(self) -> bool:
        """Whether any puzzle stands in two sets."""
        return any(pair.symmetric for pair in self.pairs)


def find_overlap(sets: Sequence[PuzzleSet], names: Sequence[str], progress: Progress | None = None) -> Overlap:
    """Compare the questions of sets of one task, called ``names``.

    Every puzzle gets a fingerprint that no symmetry changes; those with equal ones are compared exactly, so
    that nothing is missed and nothing is reported that is not so.
    """
    task = sets[0].task
    if any(puzzles.task is not task for puzzles in sets):
        raise InputError("only sets of one task can be compared")
    questions = np.concatenate([puzzles.questions for puzzles in sets])
    symmetric, exact = classes(task, questions, progress)
    bounds = np.cumsum([len(puzzles) for puzzles in sets])[:-1]
    parts = list(zip(np.split(symmetric, bounds), np.split(exact, bounds), strict=True))
    return Overlap(
        [_repeats(name, *part) for name, part in zip(names, parts, strict=True)],
        [_shared((names[a], names[b]), parts[a], parts[b]) for a, b in combinations(range(len(sets)), 2)],
    )


def classes(task: Task, questions: np.ndarray, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Twice int64[N]: the first of boards int32[N, S] that a symmetry turns into each one, and that equals it."""
    prints = np.empty(len(questions), np.uint64)
    for start in range(0, len(questions), _CHUNK):
        prints[start : start + _CHUNK] = task.fingerprints(questions[start : start + _CHUNK])
        if progress:
            progress("puzzles", min(start + _CHUNK, len(questions)), len(questions))
    symmetric, exact = np.arange(len(questions)), np.arange(len(questions))
    for rows in _runs(prints):
        firsts: dict[bytes, int] = {}
        heads: list[int] = []
        for row in rows:
            first = firsts.setdefault(questions[row].tobytes(), row)
            if first == row:
                # Equal fingerprints are hardly ever a coincidence, but they can be.
                related = (h for h in heads if task.find_symmetry(questions[h], questions[row]) is not None)
                symmetric[row] = next(related, row)
                if symmetric[row] == row:
                    heads.append(row)
            exact[row], symmetric[row] = first, symmetric[first]
    return symmetric, exact


def _runs(prints: np.ndarray) -> Iterator[list[int]]:
    """Rows of equal ``prints``, in rising order, where there are several."""
    order = np.argsort(prints, kind="stable")
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(prints[order])) + 1, [len(order)]])
    for run in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[run] : bounds[run + 1]].tolist()


def _repeats(name: str, symmetric: np.ndarray, exact: np.ndarray) -> Repeats:
    rows, twins = _earlier(symmetric)
    pairs = zip(rows[:_EXAMPLES], twins, strict=False)
    examples = [Again(twin + 1, row + 1, bool(exact[twin] == exact[row])) for row, twin in pairs]
    return Repeats(name, len(symmetric), len(_earlier(exact)[0]), len(rows), examples)


def _earlier(labels: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows whose label came before, and the first row that had it."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    twins = first[inverse.reshape(-1)]
    rows = np.flatnonzero(twins != np.arange(len(labels)))
    return rows.tolist(), twins[rows].tolist()


def _shared(names: tuple[str, str], first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> Shared:
    in_first, exactly = (np.isin(theirs, ours) for ours, theirs in zip(first, second, strict=True))
    examples = []
    for row in np.flatnonzero(in_first)[:_EXAMPLES].tolist():
        kind = 1 if exactly[row] else 0
        twin = int(np.flatnonzero(first[kind] == second[kind][row])[0])
        examples.append(Common(twin + 1, row + 1, bool(exactly[row])))
    return Shared(*names, len(in_first), int(exactly.sum()), int(in_first.sum()), examples)
