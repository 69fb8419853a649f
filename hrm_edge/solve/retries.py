"""Thinking again: boards that do not verify are asked as symmetric variants, and the answers mapped back."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtimes import Answers, Engine


@dataclass(frozen=True)
class RetriedAnswers:
    """What came of a puzzle and its variants; one row per puzzle.

    ``answers``: of the attempt that verified, mapped back to the puzzle as asked; of the first attempt where
    none did. ``verified`` bool[B]: the task accepts the answer; without rules it accepts none. ``variant``
    int32[B]: the attempt that answered, 0 for the puzzle as asked, k for its k-th variant. ``segments`` int32[B]:
    segments run over all attempts, where ``answers.steps`` counts those of the answering attempt alone.
    ``seconds``: what the engine took, where somebody watched and so took time of his own.
    """

    answers: Answers
    verified: np.ndarray
    variant: np.ndarray
    segments: np.ndarray
    seconds: float | None = None


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
    symmetries = variants(engine, retries, seed)
    first = engine.solve(tokens, max_think_steps, halt, trace, puzzle_identifiers)
    questions = np.asarray(tokens, np.int32)
    best = {name: getattr(first, name).copy() for name in ("tokens", "steps", "halted", "q")}
    traces = None if first.trace is None else list(first.trace.swapaxes(0, 1))
    verified = np.zeros(len(questions), bool)
    if engine.task.has_rules:
        verified |= engine.task.verify(questions, first.tokens)
    variant, segments = np.zeros(len(verified), np.int32), first.steps.copy()
    for number, symmetry in enumerate(symmetries, 1):
        rows = np.flatnonzero(~verified)
        if not len(rows):
            break
        identifiers = None if puzzle_identifiers is None else np.asarray(puzzle_identifiers)[rows]
        again = engine.solve(symmetry.apply(questions[rows]), max_think_steps, halt, trace, identifiers)
        again = replace(again, tokens=symmetry.invert(again.tokens))
        right = np.asarray(engine.task.verify(questions[rows], again.tokens), bool)
        segments[rows] += again.steps
        solved = rows[right]
        verified[solved], variant[solved] = True, number
        for name, values in best.items():
            values[solved] = getattr(again, name)[right]
        if traces is not None and again.trace is not None:
            for row, index in zip(solved, np.flatnonzero(right), strict=True):
                traces[row] = symmetry.invert(again.trace[:, index])
    answers = Answers(**best, trace=None if traces is None else _joined(traces, best["tokens"], best["steps"]))
    return RetriedAnswers(answers, verified, variant, segments)


def variants(engine: Engine, retries: Any, seed: int) -> list[Any]:
    """The symmetries whose variants are asked, in order. InputError where there can be none."""
    return engine.task.variants(seed, checked_retries(engine, retries))


def checked_retries(engine: Engine, retries: Any) -> int:
    """How many variants may be asked. InputError where there can be none."""
    try:
        count = operator.index(retries)
    except TypeError:
        count = -1
    if isinstance(retries, bool) or not 0 <= count <= 10_000:
        raise InputError(f"retries must be a whole number from 0 to 10000, not {retries!r}")
    if count and not engine.task.has_rules:
        raise engine.task.no_rules("nothing tells which of several attempts is right")
    return count


def _joined(traces: list[np.ndarray], tokens: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """int32[T, B, S] again: attempts differ in length, and a row repeats its answer to the end."""
    trace = np.zeros((int(steps.max(initial=0)), *tokens.shape), np.int32)
    for row, guesses in enumerate(traces):
        trace[: steps[row], row] = guesses[: steps[row]]
        trace[steps[row] :, row] = tokens[row]
    return trace
