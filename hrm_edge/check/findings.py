"""What a rule measured, whether n puzzles or the rounds of a timing settle it, and the puzzles behind a failure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..measure.statistics import drop_interval, interval, mcnemar, percent

if TYPE_CHECKING:
    import numpy as np

    from ..tasks import Task
    from .measure import Sample, SpeedRatios

_WORST = 5
_MOST_PUZZLES = 10_000_000  # more than that is "no number of puzzles"
_ROUNDING = 1e-9

Interval = tuple[float, float]


@dataclass(frozen=True)
class Worst:
    """One puzzle behind a failed rule."""

    task: Task
    number: int  # within the puzzles that were answered, from 1
    question: np.ndarray  # int32[S]
    answer: np.ndarray  # int32[S]: the bundle's
    wanted: np.ndarray  # int32[S]
    against: str  # whose answer is wanted

    @property
    def cells(self) -> int:
        """How many cells are not as wanted."""
        return int((self.answer != self.wanted).sum())

    def to_dict(self) -> dict[str, Any]:
        text = {name: self.task.format(getattr(self, name)) for name in ("question", "answer", "wanted")}
        return {"number": self.number, "cells": self.cells, **text}


@dataclass(frozen=True)
class Finding:
    """What one rule measured, in the rule's unit."""

    figure: float
    text: str  # the figure in words, with what it was counted from
    good: bool  # by the estimate alone
    n: int | None = None  # puzzles; None where they have no part in it
    interval: Interval | None = None  # at 95 %; None for what is exact
    sure: bool = True  # the interval lies on one side of the limit
    doubt: str = "the rounds disagree on it"  # why it is not sure, where puzzles have no part in it
    needed: int | None = None  # roughly how many puzzles would settle it; None: no number, or settled
    worst: tuple[Worst, ...] = ()


def proportion(hits: np.ndarray, limit: float, what: str) -> Finding:
    """A proportion that must not be below `limit`; `hits` bool[n]."""
    n, count = len(hits), int(hits.sum())
    low, high = interval(count, n)

    def settled(m: float) -> bool:
        low, high = interval(min(m * count / n, m), m)
        return low >= limit or high < limit

    good = count / n >= limit - _ROUNDING
    text = f"{percent(count / n)} {what} ({count} of n={n}, 95 % interval {100 * low:.2f} to {percent(high)})"
    sure = settled(n)
    needed = None if sure else _needed(n, settled)
    return Finding(count / n, text, good, n, (low, high), sure, needed=needed)


def paired_drop(sample: Sample, before: np.ndarray, limit: float, whose: str) -> Finding:
    """A paired drop, in points, that must not be above `limit`; `before` bool[n]: what the other side solves."""
    n = len(before)
    lost, won = int((before & ~sample.right).sum()), int((~before & sample.right).sum())
    drop = 100 * (lost - won) / n
    low, high = drop_interval(lost, won, n)

    def settled(m: float) -> bool:
        low, high = drop_interval(m * lost / n, m * won / n, m)
        return high <= limit or low > limit

    text = (
        f"exact-solve accuracy {_moved(drop)}, from {percent(before.mean())} of {whose} to "
        f"{percent(sample.right.mean())} "
        f"(n={n}, {lost} lost, {won} won, 95 % interval {low:.2f} to {high:.2f} points, "
        f"McNemar p = {mcnemar(lost, won):.2g})"
    )
    sure = settled(n)
    needed = None if sure else _needed(n, settled)
    found = Finding(drop, text, drop <= limit + _ROUNDING, n, (low, high), sure, needed=needed)
    return found if found.good else with_worst(found, sample, before & ~sample.right)


def timing(speed: SpeedRatios, figure: float, text: str, good: bool, spread: Interval, limit: float) -> Finding:
    """A figure that was timed in rounds, whose median lies within `spread`."""
    notes = "".join(f"; {note}" for note in speed.notes)
    text = f"{text} (median of {len(speed.rounds)} rounds, {spread[0]:.2f} to {spread[1]:.2f}){notes}"
    return Finding(figure, text, good, interval=spread, sure=not spread[0] <= limit <= spread[1])


def with_worst(found: Finding, sample: Sample, rows: np.ndarray, wanted: np.ndarray | None = None) -> Finding:
    """The finding with those of `rows` (bool[n]) that differ in most cells from `wanted`, else from the labels."""
    puzzles, answers = sample.puzzles, sample.answers.tokens
    against = "the right answer" if wanted is None else "the float checkpoint's answer"
    wanted = puzzles.answers if wanted is None else wanted
    assert wanted is not None  # every puzzle set that is read or generated has its answers
    (at,) = rows.nonzero()
    order = (-(answers[at] != wanted[at]).sum(axis=1)).argsort(kind="stable")[:_WORST]
    worst = [
        Worst(puzzles.task, int(row) + 1, puzzles.questions[row], answers[row], wanted[row], against)
        for row in at[order]
    ]
    return replace(found, worst=tuple(worst))


def _moved(drop: float) -> str:
    if drop == 0:
        return "did not move"
    return f"dropped {drop:.2f} points" if drop > 0 else f"rose {-drop:.2f} points"


def _needed(n: int, settled: Callable[[float], bool]) -> int | None:
    """Roughly how many puzzles would settle it if the rates stayed as they are; None when no number would."""
    high = float(n)
    while not settled(high):
        high *= 2
        if high > _MOST_PUZZLES:
            return None
    low = high / 2
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    digit = 10 ** max(0, math.floor(math.log10(high)) - 1)
    return math.ceil(high / digit) * digit  # two digits: it is no more than a rough guess
