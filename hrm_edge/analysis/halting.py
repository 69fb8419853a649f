"""Halting: the halting step against difficulty, and how well the halting head predicts a right guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.puzzles import PuzzleSet, judged_only
from ..measure.accuracy import answer_all, check_match, in_chunks, rightness
from ..progress import Progress
from ..runtimes import Engine

BINS = 5  # of difficulty, by quantiles
CALIBRATION_BINS = 10
HEAD_SEGMENTS = (1, 2, 4, 8, 16)  # where the halting head is asked, up to the model's own limit


@dataclass(frozen=True)
class HaltingRow:
    """Halting on one group of puzzles. `halted`, `halted_wrong`, `right` count puzzles."""

    group: str
    n: int
    halted: int  # the halting rule fired; the others ran to the limit
    halted_wrong: int  # it fired on a wrong answer
    right: int
    steps_mean: float
    steps: dict[int, int]  # segments → puzzles that took so many


@dataclass(frozen=True)
class CalibrationBin:
    """Guesses whose predicted chance of being right lies in one tenth of 0 to 1."""

    low: float
    high: float
    n: int
    predicted: float  # mean of sigmoid(q_halt)
    right: float  # part of the guesses that are right


@dataclass(frozen=True)
class HeadQuality:
    """q_halt as a predictor of "this guess is right", halting off.

    `auc`: the chance that a right guess has a higher q_halt than a wrong one; None where all guesses are alike.
    `error`: expected calibration error, the mean of |predicted − right| over the guesses, by bins.
    """

    segments: tuple[int, ...]  # the guesses looked at, pooled
    n: int  # guesses
    auc: float | None
    auc_by_segments: dict[int, float | None]
    error: float
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class Halting:
    """One artifact's halting on one puzzle set, at most `limit` segments."""

    artifact: str
    puzzles: str
    limit: int
    total: HaltingRow
    by_source: tuple[HaltingRow, ...]
    by_rating: tuple[HaltingRow, ...]  # easiest first
    correlation: float | None  # Spearman's, of rating and halting step
    head: HeadQuality


def halting(engine: Engine, puzzles: PuzzleSet, *, name: str = "", progress: Progress | None = None) -> Halting:
    """Learned halting of `engine` on `puzzles`, by source and by the task's rating of each puzzle.

    The halting head is judged in a second pass with halting off: at the moment it fires it is sure by
    definition, which would say nothing about the guesses it kept thinking about. Puzzles that have no label where
    only labels tell what is right are left out; InputError where none is left, or all are of another task.
    """
    check_match(engine, puzzles)
    puzzles = judged_only(puzzles)
    answers = answer_all(engine, puzzles, progress=progress)
    right = rightness(puzzles, answers.tokens)
    sources = np.array(puzzles.sources)
    ratings = rate(puzzles)

    def row(group: str, rows: np.ndarray) -> HaltingRow:
        steps, halted, good = answers.steps[rows], answers.halted[rows], right[rows]
        counts = zip(*np.unique(steps, return_counts=True), strict=True)
        return HaltingRow(
            group,
            len(steps),
            int(halted.sum()),
            int((halted & ~good).sum()),
            int(good.sum()),
            float(steps.mean()),
            {int(step): int(count) for step, count in counts},
        )

    return Halting(
        artifact=name,
        puzzles=puzzles.name,
        limit=engine.halt_max_steps,
        total=row("all", np.ones(len(puzzles), bool)),
        by_source=tuple(row(source, sources == source) for source in dict.fromkeys(puzzles.sources)),
        by_rating=tuple(row(label, rows) for label, rows in quantile_groups(ratings)),
        correlation=rank_correlation(ratings, answers.steps),
        head=_head(engine, puzzles, progress),
    )


def rate(puzzles: PuzzleSet) -> np.ndarray:
    """int64[N]: the task's own rating of each puzzle."""
    task, answers = puzzles.task, puzzles.answers
    if answers is None:
        solved = [task.solve(question) for question in puzzles.questions]
        answers = np.array([q if a is None else a for q, a in zip(puzzles.questions, solved, strict=True)])
    return np.array([task.rating(q, a) for q, a in zip(puzzles.questions, answers, strict=True)], np.int64)


def quantile_groups(ratings: np.ndarray, bins: int = BINS) -> list[tuple[str, np.ndarray]]:
    """(label, bool[N]) of up to `bins` groups of about equal size; equal ratings are never split."""
    cuts = np.unique(np.quantile(ratings, np.arange(1, bins) / bins, method="higher"))
    which = np.searchsorted(cuts, ratings)
    groups = []
    for b in np.unique(which):
        rows = which == b
        least, most = int(ratings[rows].min()), int(ratings[rows].max())
        groups.append((f"rating {least}" if least == most else f"rating {least}–{most}", rows))
    return groups


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's, ties given their mean rank; None where one of the two never changes."""
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def area_under_curve(scores: np.ndarray, right: np.ndarray) -> float | None:
    """The chance that a right one's score is above a wrong one's, ties counted half; None without both."""
    good, bad = int(right.sum()), int((~right).sum())
    if not good or not bad:
        return None
    return float((_ranks(scores)[right].sum() - good * (good - 1) / 2) / (good * bad))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties given their mean: float64[N]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def _head(engine: Engine, puzzles: PuzzleSet, progress: Progress | None) -> HeadQuality:
    limit = engine.halt_max_steps
    segments = tuple(sorted({k for k in HEAD_SEGMENTS if k < limit} | {limit}))
    q = np.zeros((len(segments), len(puzzles)))
    right = np.zeros(q.shape, bool)
    for rows, some in in_chunks(puzzles, progress, "asking the halting head"):
        for i, k in enumerate(segments):
            answers = engine.solve(some.questions, k, "fixed", puzzle_identifiers=some.identifiers)
            q[i, rows], right[i, rows] = answers.q[:, 0], rightness(some, answers.tokens)
    by_segments = {k: area_under_curve(*pair) for k, *pair in zip(segments, q, right, strict=True)}
    bins = calibration(1 / (1 + np.exp(-np.clip(q.ravel(), -60, 60))), right.ravel())
    error = sum(bin_.n * abs(bin_.predicted - bin_.right) for bin_ in bins) / q.size
    return HeadQuality(
        segments, q.size, area_under_curve(q.ravel(), right.ravel()), by_segments, error, tuple(bins)
    )


def calibration(predicted: np.ndarray, right: np.ndarray) -> Sequence[CalibrationBin]:
    """Predicted chances against what came of them, by tenths; empty ones left out."""
    found = []
    which = np.minimum((predicted * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    for b in range(CALIBRATION_BINS):
        rows = which == b
        if rows.any():
            low, high = b / CALIBRATION_BINS, (b + 1) / CALIBRATION_BINS
            means = float(predicted[rows].mean()), float(right[rows].mean())
            found.append(CalibrationBin(low, high, int(rows.sum()), *means))
    return found
