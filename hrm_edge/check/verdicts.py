"""Judge measurements by a check's rules: pass or fail, and whether so few puzzles can show it at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..measure.statistics import drop_interval, interval, mcnemar, median_interval
from ..tasks import Task
from .measure import Measured, Sample
from .spec import Rule

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
    """What one rule measured. Fractions are 0 to 1, drops are points."""

    figure: float
    text: str  # the figure in words, with what it was counted from
    good: bool  # by the estimate alone
    n: int | None = None  # puzzles; None where they have no part in it
    interval: Interval | None = None  # at 95 %; None for what is exact
    sure: bool = True  # the interval lies on one side of the limit
    needed: int | None = None  # roughly how many puzzles would settle it; None: no number, or settled
    worst: tuple[Worst, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One rule on one bundle, and on one data set where puzzles matter."""

    check: str
    bundle: str
    data: str | None
    rule: Rule
    finding: Finding
    passed: bool
    when_unsure: str

    @property
    def outcome(self) -> str:
        """ "pass" or "fail", marked where it is not a matter of fact."""
        word = "pass" if self.passed else "fail"
        return word if self.finding.sure else f"{word}, unsure"

    @property
    def where(self) -> str:
        """Check, bundle and data set."""
        return " / ".join(part for part in (self.check, self.bundle, self.data) if part)

    @property
    def reason(self) -> str:
        """One line: the rule, its limit, the figure, and what the figure can not show."""
        limit = "" if self.rule.name == "quantized" else f" = {self.rule.limit:g}"
        doubt = "" if self.finding.sure else f"; {self.doubt}"
        return f"{self.rule.name}{limit}: {self.finding.text}{doubt}"

    @property
    def doubt(self) -> str:
        """Why the figure does not settle it, and what was done; empty when it does."""
        finding = self.finding
        if finding.sure:
            return ""
        if finding.n is None:
            can = "the rounds disagree on it"
        elif finding.needed is None:
            can = f"n={finding.n} can not show it, and at this rate no number of puzzles would"
        else:
            can = f"n={finding.n} can not show it, about {finding.needed:,} puzzles would"
        does = {"estimate": "it went by the estimate", "fail": "so it fails", "pass": "so it passes"}
        return f'{can}; when_unsure = "{self.when_unsure}": {does[self.when_unsure]}'

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        finding = self.finding
        return {
            "check": self.check,
            "bundle": self.bundle,
            "data": self.data,
            "rule": self.rule.name,
            "limit": True if self.rule.name == "quantized" else self.rule.limit,
            "figure": finding.figure,
            "n": finding.n,
            "interval": None if finding.interval is None else list(finding.interval),
            "passed": self.passed,
            "sure": finding.sure,
            "n_needed": finding.needed,
            "reason": self.reason,
            "line": self.rule.line,
            "worst": [worst.to_dict() for worst in finding.worst],
        }


def judge(measured: Measured, when_unsure: str, skip_baseline: bool = False) -> list[Verdict]:
    """Every rule of the case, on every data set where puzzles matter; none stops the others.

    `skip_baseline` leaves out the rules that compare with it, for when it is being written.
    """
    case = measured.case
    verdicts = []
    for rule in case.check.rules:
        if rule.kind.baseline and skip_baseline:
            continue
        for data in case.data if rule.kind.data else [None]:
            finding = _FINDINGS[rule.name](measured, rule.limit, data)
            passed = finding.good if finding.sure or when_unsure == "estimate" else when_unsure == "pass"
            verdicts.append(Verdict(case.check.name, case.label, data, rule, finding, passed, when_unsure))
    return verdicts


# -- one function a rule -------------------------------------------------------------------------------


def _min_exact(measured: Measured, limit: float, data: Any) -> Finding:
    sample = measured.samples[data]
    found = _at_least(sample.right, limit, "solved")
    return found if found.good else _with_worst(found, sample, ~sample.right)


def _min_agreement(measured: Measured, limit: float, data: Any) -> Finding:
    sample = measured.samples[data]
    assert sample.reference is not None
    wanted = sample.reference.tokens
    agree = (sample.answers.tokens == wanted).all(axis=1)
    found = _at_least(agree, limit, "answered as the float checkpoint does")
    return found if found.good else _with_worst(found, sample, ~agree, wanted)


def _max_drop(measured: Measured, limit: float, data: Any) -> Finding:
    sample = measured.samples[data]
    assert sample.reference_right is not None
    return _dropped(sample, sample.reference_right, limit, "the float checkpoint")


def _max_drop_vs_baseline(measured: Measured, limit: float, data: Any) -> Finding:
    sample = measured.samples[data]
    assert measured.case.baseline is not None
    return _dropped(sample, measured.case.baseline.data[data].bits(), limit, "the baseline")


def _max_size_mb(measured: Measured, limit: float, _: Any) -> Finding:
    size = measured.size_mb
    return Finding(size, f"{size:.3f} MB", size <= limit)


def _max_speed_loss(measured: Measured, limit: float, _: Any) -> Finding:
    entry = measured.case.baseline
    assert entry is not None
    assert entry.speed_ratio is not None
    assert measured.speed is not None
    before = entry.speed_ratio
    low, high = median_interval(measured.speed.ratios)
    loss = 1 - measured.speed.ratio / before
    text = f"{measured.speed.ratio:.2f} times the float checkpoint's speed, {before:.2f} in the baseline"
    spread = (1 - high / before, 1 - low / before)
    return _timed(measured, loss, f"{text}: lost {_percent(loss)}", loss <= limit, spread, limit)


def _min_speed_ratio(measured: Measured, limit: float, _: Any) -> Finding:
    assert measured.speed is not None
    ratio = measured.speed.ratio
    spread = median_interval(measured.speed.ratios)
    text = f"{ratio:.2f} times the float checkpoint's speed"
    return _timed(measured, ratio, text, ratio >= limit, spread, limit)


def _timed(measured: Measured, figure: float, text: str, good: bool, spread: Interval, limit: float) -> Finding:
    assert measured.speed is not None
    notes = "".join(f"; {note}" for note in measured.speed.notes)
    text = f"{text} (median of {len(measured.speed.ratios)} rounds, {spread[0]:.2f} to {spread[1]:.2f}){notes}"
    return Finding(figure, text, good, interval=spread, sure=not spread[0] <= limit <= spread[1])


def _quantized(measured: Measured, _: float, __: Any) -> Finding:
    """The record's own proof: which of the low-precision products the backend really compiled as such."""
    record = measured.case.quantization
    if record is None:
        precision = measured.case.artifact.precision
        return Finding(0, f"nothing is quantized in this {precision} bundle (it has no record of it)", False)
    products = record.products
    if products is None or products.expected < 1:
        return Finding(0, "its record does not tell of any low-precision product; export it again", False)
    text = f"{products.found} of {products.expected} expected low-precision products are compiled as such"
    if products.missing:
        text += f"; not {', '.join(products.missing[:3])}{', …' if len(products.missing) > 3 else ''}"
    good = products.found >= products.expected and not products.missing
    return Finding(products.found / products.expected, text, good)


_FINDINGS: dict[str, Callable[[Measured, float, Any], Finding]] = {
    "min_exact": _min_exact,
    "max_drop": _max_drop,
    "max_drop_vs_baseline": _max_drop_vs_baseline,
    "min_agreement": _min_agreement,
    "max_size_mb": _max_size_mb,
    "max_speed_loss": _max_speed_loss,
    "min_speed_ratio": _min_speed_ratio,
    "quantized": _quantized,
}


# -- what n can show -----------------------------------------------------------------------------------


def _at_least(hits: np.ndarray, limit: float, what: str) -> Finding:
    """A proportion that must not be below `limit`; `hits` bool[n]."""
    n, count = len(hits), int(hits.sum())
    low, high = interval(count, n)

    def settled(m: float) -> bool:
        low, high = interval(min(m * count / n, m), m)
        return low >= limit or high < limit

    good = count / n >= limit - _ROUNDING
    text = f"{_percent(count / n)} {what} ({count} of n={n}, 95 % interval {100 * low:.2f} to {_percent(high)})"
    sure = settled(n)
    return Finding(count / n, text, good, n, (low, high), sure, None if sure else _needed(n, settled))


def _dropped(sample: Sample, before: np.ndarray, limit: float, whose: str) -> Finding:
    """A paired drop, in points, that must not be above `limit`; `before` bool[n]: what the other side solves."""
    n = len(before)
    lost, won = int((before & ~sample.right).sum()), int((~before & sample.right).sum())
    drop = 100 * (lost - won) / n
    low, high = drop_interval(lost, won, n)

    def settled(m: float) -> bool:
        low, high = drop_interval(m * lost / n, m * won / n, m)
        return high <= limit or low > limit

    text = (
        f"exact-solve accuracy {_moved(drop)}, from {_percent(before.mean())} of {whose} to "
        f"{_percent(sample.right.mean())} "
        f"(n={n}, {lost} lost, {won} won, 95 % interval {low:.2f} to {high:.2f} points, "
        f"McNemar p = {mcnemar(lost, won):.2g})"
    )
    sure = settled(n)
    needed = None if sure else _needed(n, settled)
    found = Finding(drop, text, drop <= limit + _ROUNDING, n, (low, high), sure, needed)
    return found if found.good else _with_worst(found, sample, before & ~sample.right)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


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


def _with_worst(found: Finding, sample: Sample, rows: np.ndarray, wanted: np.ndarray | None = None) -> Finding:
    """The finding with those of `rows` (bool[n]) that differ in most cells from `wanted`, else from the labels."""
    puzzles, answers = sample.puzzles, sample.answers.tokens
    against = "the right answer" if wanted is None else "the float checkpoint's answer"
    wanted = puzzles.answers if wanted is None else wanted
    assert wanted is not None  # every puzzle set that is read or generated has its answers
    at = np.flatnonzero(rows)
    order = np.argsort(-(answers[at] != wanted[at]).sum(axis=1), kind="stable")[:_WORST]
    worst = [
        Worst(puzzles.task, int(row) + 1, puzzles.questions[row], answers[row], wanted[row], against)
        for row in at[order]
    ]
    return replace(found, worst=tuple(worst))
