"""Solve rates by number of segments, and by number of symmetric retries with verification.

One rollout answers every question. Halting is off, so the guess after k segments is the same whatever the limit
is, and halting when a guess verifies comes down to the first segment whose guess does. Retries then need only
the puzzles that no attempt has solved yet, and only as many segments as could still change a figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.puzzles import PuzzleSet, judged_only
from ..errors import InputError
from ..measure.accuracy import check_match, guesses_after, in_chunks, rightness
from ..measure.statistics import interval
from ..progress import Progress
from ..runtimes import Engine

SEGMENTS = (1, 2, 4, 8, 16, 32, 64)
RETRIES = (0, 1, 2, 4, 8, 16)
ALL = "all"  # the group of all puzzles, beside the sources
_NEVER = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Rate:
    """How many of `n` puzzles were solved, and the segments this took on average over all of them."""

    solved: int
    n: int
    segments_mean: float

    @property
    def exact(self) -> float:
        return self.solved / self.n

    def to_dict(self) -> dict[str, Any]:
        return {
            "exact": self.exact,
            "solved": self.solved,
            "n": self.n,
            "interval": list(interval(self.solved, self.n)),
            "segments_mean": self.segments_mean,
        }


@dataclass(frozen=True)
class SegmentRates:
    """Solve rates of one artifact on one puzzle set; the outer keys are sources, and "all" where there are several.

    `by_retries[group][r]` counts the first r of the K = `retries` variants that the seed gives. A draw of r alone
    may hold others, so only r = 0 and r = K are sure to be what `eval --halt verified --retries r` finds.
    """

    artifact: str
    puzzles: str
    limit: int  # the model's own number of segments
    retries: int  # 0: none were asked for, or nothing could verify
    fixed: dict[str, dict[int, Rate]]  # after exactly k segments, halting off
    verified: dict[str, dict[int, Rate]]  # at most k segments an attempt, until a guess verifies; with retries
    by_retries: dict[str, dict[int, Rate]]  # `limit` segments an attempt at most, after r retries

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``hrm-edge analyze segments``: fractions are 0 to 1, intervals Wilson's at 95 %."""

        def plain(groups: dict[str, dict[int, Rate]]) -> dict[str, Any]:
            return {name: {str(k): rate.to_dict() for k, rate in rates.items()} for name, rates in groups.items()}

        return {
            "artifact": self.artifact,
            "data": self.puzzles,
            "halt_max_steps": self.limit,
            "retries": self.retries,
            "by_segments": plain(self.fixed),
            "by_segments_verified": plain(self.verified),
            "by_retries": plain(self.by_retries),
        }


def segment_rates(
    engine: Engine,
    puzzles: PuzzleSet,
    *,
    name: str = "",
    segments: Sequence[int] = SEGMENTS,
    retries: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> SegmentRates:
    """Solve rates of `engine` on `puzzles` by number of segments and, with `retries`, by number of retries.

    The figures are those of :func:`hrm_edge.measure.accuracy.evaluate`, asked once for each number: `halt="fixed"`,
    and with `retries` also `halt="verified"` with the same `seed`. A task without rules cannot verify: there
    `retries` count as 0, and puzzles without a label are left out. InputError for puzzles that do not fit or have
    no right answer, and for numbers that make no sense.
    """
    check_match(engine, puzzles)
    puzzles = judged_only(puzzles)
    if not segments or min(segments) < 1 or max(segments) > 10_000:
        raise InputError(f"segments must be whole numbers from 1 to 10000, not {','.join(map(str, segments))}")
    if not 0 <= retries <= 1000:
        raise InputError(f"retries must be a whole number from 0 to 1000, not {retries}")
    retries = retries if engine.task.has_rules else 0
    counts = sorted(set(segments))
    limits = sorted({*counts, engine.halt_max_steps}) if retries else counts
    groups = _groups(puzzles)
    right, first = _rollout(engine, puzzles, counts, limits[-1], bool(retries), progress)
    fixed = {
        group: {k: _rate(row[rows], np.full(rows.sum(), k)) for k, row in zip(counts, right, strict=True)}
        for group, rows in groups.items()
    }
    verified: dict[str, dict[int, Rate]] = {}
    by_retries: dict[str, dict[int, Rate]] = {}
    if retries:
        attempts = _Attempts(first, limits)
        asked = sorted({r for r in RETRIES if r < retries} | {retries})
        own = limits.index(engine.halt_max_steps)
        for done in _retry(engine, puzzles, attempts, retries, seed, progress):
            if done in asked:
                for group, rows in groups.items():
                    by_retries.setdefault(group, {})[done] = attempts.rate(own, rows)
        verified = {
            group: {k: attempts.rate(limits.index(k), rows) for k in counts} for group, rows in groups.items()
        }
    return SegmentRates(name, puzzles.name, engine.halt_max_steps, retries, fixed, verified, by_retries)


def _groups(puzzles: PuzzleSet) -> dict[str, np.ndarray]:
    """bool[N] of each source, and of all where there are several."""
    sources = np.array(puzzles.sources)
    groups = {str(name): sources == name for name in dict.fromkeys(puzzles.sources)}
    return groups if len(groups) == 1 else {**groups, ALL: np.ones(len(puzzles), bool)}


def _rate(solved: np.ndarray, segments: np.ndarray) -> Rate:
    return Rate(int(solved.sum()), len(solved), float(segments.mean()))


def _rollout(
    engine: Engine, puzzles: PuzzleSet, counts: Sequence[int], most: int, verify: bool, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """(is the guess after each of `counts` right: bool[len(counts), N]; the first of `most` segments whose guess
    verifies: int32[N], or _NEVER; always that unless `verify`).

    A graph loop, which shows only its last guess, is asked once more to verify.
    """
    right = np.zeros((len(counts), len(puzzles)), bool)
    first = np.full(len(puzzles), _NEVER, np.int32)
    once = engine.loop != "graph" and verify  # then one trace tells both
    asked = range(1, most + 1) if once else counts
    for rows, some in in_chunks(puzzles, progress, "segment by segment"):
        guesses = dict(zip(asked, guesses_after(engine, some, asked), strict=True))
        for i, k in enumerate(counts):
            right[i, rows] = rightness(some, guesses[k])
        if once:
            for k in reversed(asked):
                first[rows[engine.task.verify(some.questions, guesses[k])]] = k
        elif verify:
            first[rows] = _first_verified(engine, some, most)
    return right, first


def _first_verified(engine: Engine, puzzles: PuzzleSet, most: int) -> np.ndarray:
    """int32[N]: the segment whose guess is the first to verify; _NEVER where none of `most` does."""
    answers = engine.solve(puzzles.questions, most, "verified", puzzle_identifiers=puzzles.identifiers)
    return np.where(engine.task.verify(puzzles.questions, answers.tokens), answers.steps, _NEVER)


class _Attempts:
    """Which puzzles the attempts so far solve within each limit, and the segments they took.

    `best` int32[N]: the fewest segments in which any attempt verified. Within a limit of k, a puzzle is solved
    as soon as one attempt verifies in at most k, and is not attempted again.
    """

    def __init__(self, first: np.ndarray, limits: Sequence[int]) -> None:
        self.limits = limits
        self.best = np.full(len(first), _NEVER, np.int32)
        self.spent = np.zeros((len(limits), len(first)), np.int64)
        self.add(np.arange(len(first)), first)

    def add(self, rows: np.ndarray, first: np.ndarray) -> None:
        """One more attempt at puzzles `rows`, which first verified after int32[k] `first` segments."""
        for spent, limit in zip(self.spent, self.limits, strict=True):
            open_ = self.best[rows] > limit
            spent[rows[open_]] += np.minimum(first[open_], limit)
        self.best[rows] = np.minimum(self.best[rows], first)

    def rows_by_limit(self) -> dict[int, np.ndarray]:
        """Puzzles to attempt again, by the segments that are worth trying: the largest limit not yet met."""
        worth = np.zeros(len(self.best), np.int32)
        for limit in self.limits:
            worth[self.best > limit] = limit
        return {int(limit): np.flatnonzero(worth == limit) for limit in np.unique(worth) if limit}

    def rate(self, limit: int, rows: np.ndarray) -> Rate:
        """Within the `limit`-th of the limits, over bool[N] `rows`."""
        return _rate((self.best <= self.limits[limit])[rows], self.spent[limit][rows])


def _retry(
    engine: Engine, puzzles: PuzzleSet, attempts: _Attempts, retries: int, seed: int, progress: Progress | None
) -> Iterator[int]:
    """Attempt what is unsolved in another guise; yields the number of retries done, 0 to `retries`."""
    yield 0
    for number, symmetry in enumerate(engine.task.variants(seed, retries), 1):
        for limit, rows in attempts.rows_by_limit().items():
            for part, some in in_chunks(puzzles.select(rows), None, ""):
                turned = replace(some, questions=symmetry.apply(some.questions))
                attempts.add(rows[part], _first_verified(engine, turned, limit))
        if progress is not None:
            progress("retries", number, retries)
        yield number
