"""From a model's answers under many views to two attempts per test input: inverted, counted, scored, submitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.public_layout import IDENTIFIERS, read_names
from ..data.puzzles import PuzzleSet, load_puzzles
from ..errors import InputError
from ..tasks import Task
from .augment import Augmentation, parse_name

ATTEMPTS = 2  # that the ARC Prize allows


@dataclass(frozen=True, eq=False)
class Asked:
    """Test inputs under their views, row by row. ``tests[i]``: the test input's number within its task."""

    puzzles: PuzzleSet
    tasks: list[str]
    tests: list[int]
    views: list[Augmentation]


@dataclass
class _Candidate:
    grid: np.ndarray
    votes: int = 0
    confidence: float = 0.0  # sum over its votes

    @property
    def rank(self) -> tuple[int, float]:
        return self.votes, self.confidence / self.votes


@dataclass
class Ballot:
    """One test input: every grid that was answered, by popularity, and the right one where it is known."""

    answer: np.ndarray | None
    candidates: list[_Candidate] = field(default_factory=list)

    def attempts(self, most: int = ATTEMPTS) -> list[np.ndarray]:
        """The most popular grids."""
        return [candidate.grid for candidate in self.candidates[:most]]

    def solved(self, most: int) -> bool:
        return self.answer is not None and any(np.array_equal(g, self.answer) for g in self.attempts(most))


def read_test(folder: Path, task: Task, augmentations: int | None = None) -> Asked:
    """``folder/test``, each task's original and its first ``augmentations`` views (default: all there are)."""
    if not task.by_example:
        raise InputError(f"the model solves {task.name}, not arc")
    names = read_names(folder)
    puzzles = load_puzzles(folder / "test", task)
    if puzzles.identifiers is None or puzzles.grouping is None or len(names) < puzzles.num_identifiers:
        raise InputError(f"{folder}: puzzles and identifiers.json do not fit; build it with `hrm-edge data arc`")
    if augmentations is not None:
        of_puzzle, of_group = puzzles.grouping.puzzles, puzzles.grouping.groups
        first = {group: puzzle for puzzle, group in zip(of_puzzle[::-1], of_group[::-1], strict=True)}
        rank = of_puzzle - np.array([first[group] for group in of_group])
        puzzles = puzzles.select(np.flatnonzero(rank <= augmentations))
    assert puzzles.identifiers is not None
    assert puzzles.grouping is not None
    named = [parse_name(names[identifier]) for identifier in puzzles.identifiers]
    _, starts, runs = np.unique(puzzles.grouping.puzzles, return_index=True, return_inverse=True)
    tests = np.arange(len(puzzles)) - starts[runs]
    asked = Asked(puzzles, [task for task, _ in named], tests.tolist(), [view for _, view in named])
    _require_names_fit(asked, names, folder)
    return asked


def _require_names_fit(asked: Asked, names: list[str], folder: Path) -> None:
    """InputError where a name tells another task or view than its puzzle shows: votes would be counted askew."""
    puzzles = asked.puzzles
    assert puzzles.identifiers is not None
    assert puzzles.grouping is not None
    first: dict[tuple[int, int], tuple[str, np.ndarray]] = {}
    rows = zip(puzzles.grouping.groups, asked.tests, asked.tasks, asked.views, puzzles.questions, strict=True)
    for row, (group, test, task, view, question) in enumerate(rows):
        grid = view.invert(puzzles.task.decode(question))
        named, original = first.setdefault((int(group), test), (task, grid))
        if named != task or not np.array_equal(grid, original):
            identifier = int(puzzles.identifiers[row])
            raise InputError(
                f"{folder / IDENTIFIERS}: calls identifier {identifier} {names[identifier]!r}, which its puzzle "
                "is not: names and puzzles are of different sets, or in another order; build both with "
                "`hrm-edge data arc`"
            )


def count_votes(asked: Asked, tokens: np.ndarray, q_halt: np.ndarray) -> dict[str, list[Ballot]]:
    """Ballots of each task's test inputs, in order, from answers ``tokens[N, S]`` and logits ``q_halt[N]``.

    Every view's answer is turned back and counts one; grids with equally many votes are ranked by the mean
    probability that the model gave to being right. An answer that holds no grid is no vote.
    """
    task = asked.puzzles.task
    confidence = np.exp(-np.logaddexp(0, -np.asarray(q_halt, np.float64)))  # the logistic function
    found: dict[tuple[str, int], dict[tuple[tuple[int, ...], bytes], _Candidate]] = {}
    right: dict[tuple[str, int], np.ndarray | None] = {}
    for row, (name, test, view) in enumerate(zip(asked.tasks, asked.tests, asked.views, strict=True)):
        candidates = found.setdefault((name, test), {})
        if (name, test) not in right:
            label = None if asked.puzzles.answers is None else task.decode(asked.puzzles.answers[row])
            right[name, test] = view.invert(label) if label is not None and label.size else None
        grid = task.decode(tokens[row])
        if grid.size:
            back = view.invert(grid)
            candidate = candidates.setdefault((back.shape, back.tobytes()), _Candidate(back))
            candidate.votes += 1
            candidate.confidence += float(confidence[row])
    ballots: dict[str, list[Ballot]] = {}
    for name, test in sorted(found):
        ranked = sorted(found[name, test].values(), key=lambda candidate: candidate.rank, reverse=True)
        ballots.setdefault(name, []).append(Ballot(right[name, test], ranked))
    return ballots


def score(ballots: dict[str, list[Ballot]], most: int) -> float | None:
    """Part of the tasks solved within ``most`` attempts, each of a task's test inputs counting its share; None
    where no outputs are known."""
    shares = [
        np.mean([ballot.solved(most) for ballot in tests])
        for tests in ballots.values()
        if all(ballot.answer is not None for ballot in tests)
    ]
    return float(np.mean(shares)) if shares else None


def submission(ballots: dict[str, list[Ballot]]) -> dict[str, list[dict[str, Any]]]:
    """The ARC Prize's format: ``{task: [{"attempt_1": grid, "attempt_2": grid}, …]}``, one entry per test input.

    An attempt that there is no answer for repeats the first; without any it is one black cell.
    """
    content: dict[str, list[dict[str, Any]]] = {}
    for name, tests in ballots.items():
        content[name] = []
        for ballot in tests:
            grids = [grid.tolist() for grid in ballot.attempts()] or [[[0]]]
            grids += grids[:1] * (ATTEMPTS - len(grids))
            content[name].append({f"attempt_{k}": grid for k, grid in enumerate(grids, 1)})
    return content
