"""Thinking again: boards that do not verify are asked as symmetric variants, and the answers mapped back."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtimes import Answers, Engine


@dataclass(frozen=True)
class RetriedAnswers:
    """What came of a puzzle and its variants; one row per puzzle.

    ``answers``: of the attempt that verified, mapped back to the puzzle as asked; of the first attempt where
    none did. ``verified`` bool[B]: the task accepts the answer. ``variant`` int32[B]: the attempt that
    answered, 0 for the puzzle as asked, k for its k-th variant. ``segments`` int32[B]: segments run over all
    attempts, where ``answers.steps`` counts those of the answering attempt alone.
    """

    answers: Answers
    verified: np.ndarray
    variant: np.ndarray
    segments: np.ndarray


def solve_with_retries(
    engine: Engine,
    tokens: np.ndarray,
    retries: int = 0,
    *,
    seed: int = 0,
    max_think_steps: int | None = None,
    halt: str = "learned",
    trace: bool = False,
    puzzle_identifiers: np.ndarray | None = None,
) -> RetriedAnswers:
    """Answer int[B, S] ``tokens``, and think again on up to ``retries`` symmetric variants of what is wrong.

    An HRM does not see that two boards are the same puzzle turned or renumbered, so a board it fails on it
    may solve in another guise, and the task's rules tell for sure whether it did. A verified answer is never
    replaced. The variants depend on ``seed`` alone: a row's answer does not depend on the rows beside it.
    Other arguments and errors are those of :meth:`Engine.solve`.
    """
    symmetries = _symmetries(engine, retries, seed)
    first = engine.solve(tokens, max_think_steps, halt, trace, puzzle_identifiers)
    questions = np.asarray(tokens, np.int32)
    best = _Best(first, np.asarray(engine.task.verify(questions, first.tokens), bool))
    for number, symmetry in enumerate(symmetries, 1):
        rows = np.flatnonzero(~best.verified)
        if not len(rows):
            break
        identifiers = None if puzzle_identifiers is None else np.asarray(puzzle_identifiers)[rows]
        again = engine.solve(symmetry.apply(questions[rows]), max_think_steps, halt, trace, identifiers)
        back = _mapped_back(again, symmetry)
        best.improve(number, rows, back, np.asarray(engine.task.verify(questions[rows], back.tokens), bool))
    return best.result()


def _symmetries(engine: Engine, retries: Any, seed: int) -> list[Any]:
    try:
        count = operator.index(retries)
    except TypeError:
        count = -1
    if isinstance(retries, bool) or not 0 <= count <= 10_000:
        raise InputError(f"retries must be a whole number from 0 to 10000, not {retries!r}")
    if not engine.task.has_rules:
        raise engine.task.no_rules("nothing tells which of several attempts is right")
    return engine.task.symmetries(np.random.default_rng(seed), count) if count else []


def _mapped_back(answers: Answers, symmetry: Any) -> Answers:
    trace = None if answers.trace is None else symmetry.invert(answers.trace)
    return Answers(symmetry.invert(answers.tokens), answers.steps, answers.halted, answers.q, trace)


class _Best:
    """The best answer so far of every row."""

    def __init__(self, first: Answers, verified: np.ndarray) -> None:
        self.verified = verified
        self._tokens, self._steps = first.tokens.copy(), first.steps.copy()
        self._halted, self._q = first.halted.copy(), first.q.copy()
        self._traces = None if first.trace is None else list(first.trace.swapaxes(0, 1))
        self._variant = np.zeros(len(verified), np.int32)
        self._segments = first.steps.copy()

    def improve(self, variant: int, rows: np.ndarray, answers: Answers, right: np.ndarray) -> None:
        self._segments[rows] += answers.steps
        solved = rows[right]
        self.verified[solved] = True
        self._variant[solved] = variant
        self._tokens[solved], self._steps[solved] = answers.tokens[right], answers.steps[right]
        self._halted[solved], self._q[solved] = answers.halted[right], answers.q[right]
        if self._traces is not None and answers.trace is not None:
            for row, index in zip(solved, np.flatnonzero(right), strict=True):
                self._traces[row] = answers.trace[:, index]

    def result(self) -> RetriedAnswers:
        answers = Answers(self._tokens, self._steps, self._halted, self._q, self._trace())
        return RetriedAnswers(answers, self.verified, self._variant, self._segments)

    def _trace(self) -> np.ndarray | None:
        """int32[T, B, S] again: attempts differ in length, and a row repeats its answer to the end."""
        if self._traces is None:
            return None
        longest = int(self._steps.max(initial=0))
        trace = np.zeros((longest, *self._tokens.shape), np.int32)
        for row, guesses in enumerate(self._traces):
            steps = self._steps[row]
            trace[:steps, row] = guesses[:steps]
            trace[steps:, row] = self._tokens[row]
        return trace
