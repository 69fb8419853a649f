"""Drift of a network from its reference: both run freely, in lockstep, and are compared after every segment.

One segment's error says little about a recurrent network: what counts is what the errors become when each
network goes on from its own states. Puzzles are compared a few at a time, and of their states only sums are
kept, so memory does not grow with the number of puzzles or segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np

from ..data.puzzles import PuzzleSet
from ..halting import halting_head
from ..progress import Progress
from ..records import STRICT, Fraction, MaybeCosine, MaybeFraction, MaybeSize, OneOrMore, must_be
from .accuracy import rightness

Arrays = Sequence[np.ndarray]
# (rows int[b], guesses int32[b, S]) → bool[b]: which of these puzzles are answered right; see `rightness_of`
Right = Callable[[np.ndarray, np.ndarray], np.ndarray]

ROWS = 16  # puzzles compared together; at paper size their states and logits take about 20 MB
LOWEST = 0.05  # part of the tokens that the low end of the cosines leaves out


@dataclass(frozen=True)
class SegmentNetwork:
    """A recurrent network as two calls: how it starts, and one segment. Arrays are float32 unless told otherwise.

    `start(tokens int32[b, S] (, puzzle_identifiers int32[b])) → (e, *state)`, each [b, …];
    `segment(*state, e) → (*state, logits [b, S, V], q [b, 2])`; `state` names the state tensors.
    """

    start: Callable[..., Arrays]
    segment: Callable[..., Arrays]
    no_ACT_continue: bool = False  # how q says stop: q[0] > 0 instead of q[0] > q[1]
    batch: int | None = None  # the number of rows the calls insist on; None: any
    state: tuple[str, ...] = ("z_H", "z_L")

    def halts(self, q: np.ndarray) -> np.ndarray:
        """bool[b]: whether the halting head, float[b, 2], says stop."""
        return halting_head(self.no_ACT_continue).says_stop(q)


def _is_name(text: str) -> bool:
    return text.isidentifier() and text.isascii() and len(text) <= 60


@dataclass(frozen=True)
class StateDrift:
    """One state tensor of both networks after one segment.

    Figures of states that are not finite are NaN, and None in a report, which is what checks the ranges.
    """

    __pydantic_config__ = STRICT

    name: Annotated[str, must_be("a name of letters, digits and _", _is_name)]
    cosine: MaybeCosine  # between the two states of a token, mean over tokens
    cosine_low: MaybeCosine  # 5 % of the tokens lie below
    error: MaybeSize  # ‖a − b‖ / ‖a‖ over all states


@dataclass(frozen=True)
class SegmentDrift:
    """Reference against candidate after one segment, over all puzzles, halting off."""

    __pydantic_config__ = STRICT

    segment: OneOrMore  # counted from 1
    n: OneOrMore  # puzzles
    states: tuple[StateDrift, ...]
    logit_rmse: MaybeSize
    cells_differ: Fraction  # part of the cells whose argmax differs
    puzzles_differ: Fraction  # part of the puzzles with any such cell
    halt_agree: Fraction  # part of the puzzles on which both halting heads say the same
    reference_exact: MaybeFraction = None  # None where nobody judged
    candidate_exact: MaybeFraction = None

    def state(self, name: str) -> StateDrift:
        """The figures of one state tensor."""
        return next(state for state in self.states if state.name == name)


@dataclass(frozen=True)
class Difference:
    """A puzzle whose final answers differ, and where that began.

    The answer is the guess at the segment where the network's own halting head first says stop, else the last.
    A small margin means that the reference itself was undecided there, so that rounding could tip it.
    """

    puzzle: int  # row, counted from 0
    segment: int | None  # the first, counted from 1, at which the guesses differ; None: only the stops do
    cells: int  # that differ there
    margin: float | None  # the reference's top1 − top2 logit there, the smallest over those cells
    reference_steps: int
    candidate_steps: int


@dataclass(frozen=True)
class Rollout:
    """The drift after every segment, and every puzzle whose final answers differ."""

    segments: list[SegmentDrift]
    differences: list[Difference]


def rightness_of(puzzles: PuzzleSet) -> Right:
    """The rightness of guesses at `puzzles`: equal to the label, or another answer that the task's rules accept."""
    return lambda rows, guesses: rightness(puzzles.select(rows), guesses)


def roll_out(
    reference: SegmentNetwork,
    candidate: SegmentNetwork,
    tokens: np.ndarray,
    segments: int,
    *,
    identifiers: np.ndarray | None = None,
    counted: int | None = None,
    right: Right | None = None,
    progress: Progress | None = None,
) -> Rollout:
    """Run both networks for `segments` segments on `tokens` int32[B, S], each from its own states.

    `identifiers` int32[B]: of the puzzles, for networks that start from them as well.

    The figures of drift are of the first `counted` puzzles (default: all); in the others only the beginning
    of a difference is looked for, so that puzzles chosen because they differ do not colour the figures. With
    `right` (see :func:`rightness_of`) the exact accuracy of both is counted after every segment.
    """
    counted = len(tokens) if counted is None else min(counted, len(tokens))
    if counted < 1 or segments < 1:
        raise ValueError(f"nothing to compare: {counted} puzzles, {segments} segments")
    sums = [_DriftSums() for _ in range(segments)]
    differences: list[Difference] = []
    for rows in _chunks(0, counted) + _chunks(counted, len(tokens)):
        asked = [tokens[rows]] if identifiers is None else [tokens[rows], identifiers[rows]]
        sides = (_RunningNetwork(reference, *asked), _RunningNetwork(candidate, *asked))
        watch = _FirstDifference(rows)
        for number, total in enumerate(sums, 1):
            for side in sides:
                side.step()
            if rows[0] < counted:
                total.add(*sides, rows, right)
            watch.see(number, *sides)
        differences += watch.differences()
        if progress is not None:
            progress("drift, segment by segment", int(rows[-1]) + 1, len(tokens))
    return Rollout([total.result(number) for number, total in enumerate(sums, 1)], differences)


def _chunks(begin: int, end: int) -> list[np.ndarray]:
    return [np.arange(first, min(first + ROWS, end)) for first in range(begin, end, ROWS)]


class _RunningNetwork:
    """One network on a few puzzles: its states, and the logits, guesses and halting of its last segment."""

    def __init__(self, network: SegmentNetwork, *asked: np.ndarray) -> None:
        self._network, self._count = network, len(asked[0])
        self.names = network.state
        self._e, *self.state = self._call(network.start, *asked)

    def step(self) -> None:
        *self.state, self.logits, q = self._call(self._network.segment, *self.state, self._e)
        self.guess = self.logits.argmax(axis=-1).astype(np.int32)
        self.halts = self._network.halts(q)

    def _call(self, function: Callable[..., Arrays], *arrays: np.ndarray) -> list[np.ndarray]:
        """In batches of the size the network insists on, the last one filled up with copies of its last row."""
        size = self._network.batch or self._count
        parts = []
        for begin in range(0, self._count, size):
            some = [array[begin : begin + size] for array in arrays]
            short = size - len(some[0])
            full = [np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) if short else a for a in some]
            parts.append([np.array(output[: size - short]) for output in function(*full)])
        return [np.concatenate(column) if len(column) > 1 else column[0] for column in zip(*parts, strict=True)]


class _StateSums:
    """Sums over one state tensor."""

    def __init__(self) -> None:
        self.error = self.size = 0.0
        self.cosines: list[np.ndarray] = []

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        self.error += _dot(x - y, x - y).sum()
        self.size += _dot(x, x).sum()
        self.cosines.append(_cosines(x, y))

    def result(self, name: str) -> StateDrift:
        cosines = np.concatenate(self.cosines)
        low = float(np.quantile(cosines, LOWEST))
        return StateDrift(name, float(cosines.mean()), low, _ratio(self.error, self.size))


class _DriftSums:
    """Sums over the puzzles, from which the figures of one segment are computed."""

    def __init__(self) -> None:
        self.puzzles = self.cells = self.logits = 0
        self.cells_differ = self.puzzles_differ = self.halt_agree = 0
        self.logit_error = 0.0
        self.states: dict[str, _StateSums] = {}
        self.right: list[int] | None = None

    def add(self, a: _RunningNetwork, b: _RunningNetwork, rows: np.ndarray, right: Right | None) -> None:
        for name, x, y in zip(a.names, a.state, b.state, strict=True):
            self.states.setdefault(name, _StateSums()).add(x, y)
        difference = a.logits - b.logits
        self.logit_error += _dot(difference, difference).sum()
        self.logits += difference.size
        differ = a.guess != b.guess
        self.cells += differ.size
        self.cells_differ += int(differ.sum())
        self.puzzles += len(rows)
        self.puzzles_differ += int(differ.any(axis=1).sum())
        self.halt_agree += int((a.halts == b.halts).sum())
        if right is not None:
            counts = [int(right(rows, side.guess).sum()) for side in (a, b)]
            self.right = [old + new for old, new in zip(self.right or (0, 0), counts, strict=True)]

    def result(self, segment: int) -> SegmentDrift:
        exact = [None, None] if self.right is None else [count / self.puzzles for count in self.right]
        return SegmentDrift(
            segment=segment,
            n=self.puzzles,
            states=tuple(sums.result(name) for name, sums in self.states.items()),
            logit_rmse=float(np.sqrt(self.logit_error / self.logits)),
            cells_differ=self.cells_differ / self.cells,
            puzzles_differ=self.puzzles_differ / self.puzzles,
            halt_agree=self.halt_agree / self.puzzles,
            reference_exact=exact[0],
            candidate_exact=exact[1],
        )


class _FirstDifference:
    """For a few puzzles: the first segment whose guesses differ, and both answers where the halting head stops."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        count = len(rows)
        self._first = np.zeros(count, int)  # 0: not yet
        self._cells = np.zeros(count, int)
        self._margins = np.full(count, np.inf)
        self._stopped = np.zeros((2, count), bool)
        self._steps = np.zeros((2, count), int)
        self._answers: list[np.ndarray] = []

    def see(self, number: int, *sides: _RunningNetwork) -> None:
        if not self._answers:
            self._answers = [side.guess.copy() for side in sides]
        differ = sides[0].guess != sides[1].guess
        # Once both have stopped their answers are given: what differs later explains nothing.
        fresh = differ.any(axis=1) & (self._first == 0) & ~self._stopped.all(axis=0)
        self._first[fresh] = number
        self._cells[fresh] = differ[fresh].sum(axis=1)
        for row in np.flatnonzero(fresh):
            self._margins[row] = _margins(sides[0].logits[row][differ[row]]).min()
        for k, side in enumerate(sides):
            thinking = ~self._stopped[k]
            self._answers[k][thinking] = side.guess[thinking]
            self._steps[k][thinking] = number
            self._stopped[k] |= side.halts

    def differences(self) -> list[Difference]:
        found = np.flatnonzero((self._answers[0] != self._answers[1]).any(axis=1))
        return [
            Difference(
                puzzle=int(self._rows[row]),
                segment=int(self._first[row]) or None,
                cells=int(self._cells[row]),
                margin=float(self._margins[row]) if self._first[row] else None,
                reference_steps=int(self._steps[0][row]),
                candidate_steps=int(self._steps[1][row]),
            )
            for row in found
        ]


# Products of float32 rows, summed in float64.
_dot = partial(np.einsum, "...d,...d->...", dtype=np.float64, casting="same_kind")


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float[b·S']: of every token's two states [b, S', D]. Two zeros are the same; one zero is like nothing."""
    sizes = np.sqrt(_dot(x, x) * _dot(y, y))
    same = np.all(x == y, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.where(sizes == 0, 0.0, _dot(x, y) / sizes)
    return np.where(same, 1.0, cosines).ravel()


def _margins(logits: np.ndarray) -> np.ndarray:
    """float[k]: by how much the best of logits[k, V] leads the second best."""
    best = np.sort(logits, axis=-1)
    return best[:, -1] - best[:, -2]


def _ratio(error: float, size: float) -> float:
    """√(error / size) of two sums of squares; no error is 0 whatever the size."""
    if error == 0:
        return 0.0
    return float(np.sqrt(error / size)) if size else float("inf")
