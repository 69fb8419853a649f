"""The calls that users make, beyond those whose answers the gate counts, and what must be true of each.

The gate counts answers under learned halting with the trained limit. Users also ask for a fixed number of
segments, for more than the model was trained with, and for answers that obey the rules; each takes a way of its own
through an artifact. A few puzzles show whether that way is there at all: what is looked for is a structural fault,
such as a trip count that is constant, not a point of accuracy. Some boards are unlike any that a generator makes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.puzzles import PuzzleSet
from ..runtimes import Answers, Engine
from .accuracy import rightness

PROBES = 8  # puzzles of each call, and as many unusual boards
_GIVENS = (0.0, 0.1, 0.2, 0.25, 0.5, 0.75, 0.9, 1.0)  # of unusual boards: the part of the cells that is not blank
# More of the boards that tell segments apart than this nearer to the guesses of another one, and less of the cells
# apart from these than this, are no rounding: the loop ran another number of times.
_MOST, _ALIKE = 0.75, 0.25
# Of the puzzles that the reference solves, as many are still to be solved; rounding costs a few at the most.
_STILL_RIGHT = 0.5


@dataclass(frozen=True)
class Asked:
    """What came of one way to ask. ``wrong``: one line, or None where all is as it must be."""

    call: str  # "fixed, 2 segments"
    n: int
    agree: float  # of all cells: those that the reference answers alike
    wrong: str | None


def call_rows(count: int) -> Iterator[slice]:
    """How the gate hands ``count`` puzzles to an engine: half of them alone, as `solve` does, the others in calls
    of every number of rows from 2 to 8, more than which no loop has in flight."""
    sizes = itertools.cycle(size for rows in range(2, 9) for size in [1] * rows + [rows])
    done = 0
    while done < count:
        rows = slice(done, min(done + next(sizes), count))
        yield rows
        done = rows.stop


def ask_otherwise(engine: Engine, reference: Engine, puzzles: PuzzleSet, right: np.ndarray) -> list[Asked]:
    """Every other way to ask, of a few of the gate's ``puzzles``.

    ``reference``: the float checkpoint; ``right`` bool[N]: the puzzles that it solves.
    """
    some = puzzles.select(np.argsort(~right, kind="stable")[:PROBES])
    asking = _Asking(engine, reference, some)
    found = [asking.few_segments(segments) for segments in (1, 2)]
    found += [asking.beyond_the_trained_limit("fixed", 1), asking.beyond_the_trained_limit("learned", None)]
    if can_verify(engine):
        found.append(asking.verified())
    return found


def segments_asked(limit: int, usual: float) -> tuple[float, float]:
    """(the engine's, the reference's) segments that :func:`ask_otherwise` takes, of a row each, about.

    ``limit``: segments at most, as trained; ``usual``: those that a row takes under learned halting.
    """
    boards, halting = 2 * PROBES, 2 * PROBES * usual
    return boards * 2 * (1 + 2) + PROBES * (limit + 1) + halting, boards * (limit + 1) + halting


def can_verify(engine: Engine) -> bool:
    """Whether the engine takes `verified`: a loop in a graph does for tasks with groups."""
    return engine.task.has_rules and (engine.loop == "host" or engine.task.groups is not None)


def unusual_boards(puzzles: PuzzleSet) -> np.ndarray:
    """int32[n, S]: from empty to full, where a task's puzzles are right answers with blanks; none elsewhere."""
    task = puzzles.task
    if task.groups is None or puzzles.answers is None or not len(puzzles):
        return np.zeros((0, task.seq_len), np.int32)
    answers = np.resize(puzzles.answers, (len(_GIVENS), task.seq_len))
    given = np.random.default_rng(0).random(answers.shape) < np.array(_GIVENS)[:, None]
    return np.where(given, answers, task.blank).astype(np.int32)


class _Asking:
    """An engine and its reference, asked the same few puzzles, some of the boards unusual."""

    def __init__(self, engine: Engine, reference: Engine, puzzles: PuzzleSet) -> None:
        self.engine, self.reference, self.puzzles = engine, reference, puzzles
        self.limit = engine.halt_max_steps
        self.boards = np.concatenate([puzzles.questions, unusual_boards(puzzles)])
        ids = puzzles.identifiers
        self.identifiers = None if ids is None else np.resize(ids, len(self.boards))
        self.guesses = self._guesses()

    def _guesses(self) -> np.ndarray:
        """The reference's guess after each segment, int32[limit + 1, n, S]."""
        trace = self.reference.solve(self.boards, self.limit + 1, "fixed", True, self.identifiers).trace
        assert trace is not None
        return trace

    def few_segments(self, segments: int) -> Asked:
        """So early little has drifted: guesses are those of the same segment, and none is the question again."""
        answers = self.engine.solve(self.boards, segments, "fixed", puzzle_identifiers=self.identifiers)
        wanted, n = self.guesses[segments - 1], len(self.boards)
        distance = (answers.tokens != wanted).sum(axis=1)
        wrong = _wrong_steps(answers, segments, segments)
        echoed = int(((answers.tokens == self.boards).all(axis=1) & (distance > 1)).sum())
        if echoed:
            wrong = wrong or f"answers {echoed} of {n} boards with the question itself"
        learned = self.engine.solve(self.boards, segments, "learned", puzzle_identifiers=self.identifiers)
        parted = int(((learned.tokens != answers.tokens).any(axis=1) & (learned.steps == segments)).sum())
        if parted:
            wrong = wrong or f"answers {parted} of {n} boards otherwise than with learned halting"
        for other in sorted({1, 2, 3, self.limit} - {segments}):
            guesses = self.guesses[other - 1]
            apart = (answers.tokens != guesses).sum(axis=1)
            nearer, telling = int((apart < distance).sum()), int((guesses != wanted).any(axis=1).sum())
            if nearer > max(1, _MOST * telling) and apart.mean() < _ALIKE * self.boards.shape[1]:
                wrong = wrong or f"{nearer} of {telling} guesses are nearer to the reference's after {other}"
        return _asked("fixed", segments, answers.tokens, wanted, wrong)

    def beyond_the_trained_limit(self, halt: str, more: int | None) -> Asked:
        """``more`` segments than the model was trained with, or as many again: what is solved stays solved."""
        limit = self.limit + (more or self.limit)
        questions, ids = self.puzzles.questions, self.puzzles.identifiers
        answers = self.engine.solve(questions, limit, halt, puzzle_identifiers=ids)
        if limit == len(self.guesses) and halt == "fixed":
            wanted = self.guesses[-1][: len(questions)]
        else:
            wanted = self.reference.solve(questions, limit, halt, puzzle_identifiers=ids).tokens
        solved = rightness(self.puzzles, wanted)
        still = int((solved & rightness(self.puzzles, answers.tokens)).sum())
        wrong = _wrong_steps(answers, limit if halt == "fixed" else 1, limit)
        if still < _STILL_RIGHT * solved.sum():
            wrong = wrong or f"solves {still} of the {int(solved.sum())} that the reference solves"
        return _asked(halt, limit, answers.tokens, wanted, wrong)

    def verified(self) -> Asked:
        """It stops at the first guess that the task's own rules accept, and at no other."""
        questions, ids, task = self.puzzles.questions, self.puzzles.identifiers, self.puzzles.task
        answers = self.engine.solve(questions, self.limit, "verified", True, ids)
        wanted = self.reference.solve(questions, self.limit, "verified", puzzle_identifiers=ids).tokens
        assert answers.trace is not None
        broken = int(((answers.steps < self.limit) & ~task.verify(questions, answers.tokens)).sum())
        obeyed = np.array([task.verify(questions, guess) for guess in answers.trace])  # [segments, n]
        before = np.arange(1, len(obeyed) + 1)[:, None] < answers.steps
        missed = int((obeyed & before).any(axis=0).sum())
        wrong = _wrong_steps(answers, 1, self.limit)
        if broken:
            wrong = wrong or f"stops on {broken} answers that break the rules"
        if missed:
            wrong = wrong or f"goes on after {missed} answers that obey the rules"
        return _asked("verified", self.limit, answers.tokens, wanted, wrong)


def _asked(halt: str, limit: int, tokens: np.ndarray, wanted: np.ndarray, wrong: str | None) -> Asked:
    call = f"{halt}, {limit} segment{'s'[: limit > 1]}" + " at most" * (halt != "fixed")
    return Asked(call, len(wanted), float((tokens == wanted).mean()), f"{call}: {wrong}" if wrong else None)


def _wrong_steps(answers: Answers, least: int, most: int) -> str | None:
    bad = (answers.steps < least) | (answers.steps > most)
    return f"{int(bad.sum())} of {len(bad)} puzzles took {answers.steps[bad][0]} segments" if bad.any() else None
