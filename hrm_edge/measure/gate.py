"""The accuracy gate: does an exported bundle still answer as the float reference does?

Both answer the same puzzles, so the comparison is paired: what counts are the puzzles that one solves and the
other does not. It fails when exact-solve accuracy dropped by more than `max_drop` points, or when the mean
number of segments before halting moved by more than `max_halt_shift` (a fraction). A reference that solves
hardly any of the puzzles has no exact-solve accuracy to lose: then token accuracy is held to the same budget too.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.puzzles import PuzzleSet
from ..errors import GateFailed, InputError
from ..progress import Progress, Say
from ..runtimes import Answers, Engine
from .accuracy import answer_all, check_match, rightness, token_accuracy
from .statistics import CONFIDENCE, drop_interval, percent, upper_bound

if TYPE_CHECKING:
    from ..models import Checkpoint

MAX_DROP = 0.5  # points of exact-solve accuracy
MAX_HALT_SHIFT = 0.05  # fraction of the reference's mean number of segments
_TIMED = 16  # puzzles from which the time that the gate will take is estimated
FEW_SOLVED = 0.05  # of the puzzles: with fewer solved, exact-solve accuracy cannot fall enough to tell


@dataclass(frozen=True)
class Side:
    """Accuracy and halting of one side, reference or bundle, on the paired puzzles. Fractions are 0 to 1."""

    engine: str
    exact: float
    token: float | None
    steps_mean: float
    halted: float  # fraction of puzzles whose halting rule fired


@dataclass(frozen=True)
class GateReport:
    """What the gate measured: the content of a bundle's `accuracy.json`."""

    passed: bool
    reason: str  # one line, with n; why it failed when it did
    notes: tuple[str, ...]  # what this measurement can not show
    puzzles: str
    puzzles_hash: str
    n: int
    halt: str
    max_think_steps: int
    reference: Side
    bundle: Side
    drop_points: float  # 100 × (reference.exact − bundle.exact)
    drop_interval: tuple[float, float]  # paired, points
    confidence: float
    max_drop: float
    lost: int  # puzzles only the reference solves
    won: int  # puzzles only the bundle solves
    lost_at_most: float  # points: exact binomial upper bound, which stays honest when nothing was lost
    answers_differ: int  # puzzles whose answers differ in any cell
    halt_shift: float  # bundle mean steps / reference mean steps − 1
    max_halt_shift: float
    steps_agree: float  # fraction of puzzles that stop after the same segment

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def raise_if_failed(self, what: str, advice: str = "") -> None:
        """GateFailed, naming `what` was not published and what to do about it, unless the gate passed."""
        if not self.passed:
            raise GateFailed(f"{what}: {self.reason}; nothing was published{advice}")


def paired_answers(
    engine: Engine, checkpoint: Checkpoint, puzzles: PuzzleSet, *, say: Say, progress: Progress | None = None
) -> tuple[Answers, Answers]:
    """(the float reference's answers, the bundle's) to the same puzzles, through the runtime that a user would use.

    The reference's answers are cached. `say` is told how long it will take before it starts.
    """
    from .reference import reference_answers

    check_match(engine, puzzles)
    seconds, cached = estimate_seconds(engine, checkpoint, puzzles)
    kept = " (the reference's answers are kept from before)" if cached else ""
    say(f"gate: {len(puzzles)} puzzles from {puzzles.name}, about {readable(seconds)}{kept}")
    reference = reference_answers(checkpoint, puzzles, progress=progress)
    return reference, answer_all(engine, puzzles, progress=progress)


def compare(
    reference: Answers,
    candidate: Answers,
    puzzles: PuzzleSet,
    *,
    max_drop: float = MAX_DROP,
    max_halt_shift: float = MAX_HALT_SHIFT,
    max_think_steps: int,
    halt: str = "learned",
    engine: str = "bundle",
) -> GateReport:
    """The paired comparison itself, on answers that are already there."""
    for name, limit in (("max_drop", max_drop), ("max_halt_shift", max_halt_shift)):
        if not (math.isfinite(limit) and limit >= 0):
            raise InputError(f"{name} must be a number of at least 0, not {limit!r}")
    n = len(puzzles)
    right = rightness(puzzles, reference.tokens)
    still_right = rightness(puzzles, candidate.tokens)
    lost, won = int((right & ~still_right).sum()), int((~right & still_right).sum())
    sides = (_side("reference", puzzles, reference, right), _side(engine, puzzles, candidate, still_right))
    drop = 100 * (lost - won) / n
    shift = sides[1].steps_mean / sides[0].steps_mean - 1
    finite = bool(np.isfinite(candidate.q).all() or not np.isfinite(reference.q).all())
    reason = _why_failed(n, lost, won, drop, shift, finite, sides, max_drop, max_halt_shift)
    differ = int((reference.tokens != candidate.tokens).any(axis=1).sum())
    return GateReport(
        passed=reason is None,
        reason=reason
        or f"passed on n={n}: exact {percent(sides[0].exact)} → {percent(sides[1].exact)} "
        f"({lost} lost, {won} won), {differ} answers differ, halting moved by {100 * shift:+.1f} %",
        notes=_notes(n, lost, won, differ, sides, max_drop),
        puzzles=puzzles.name,
        puzzles_hash=puzzles.content_hash(),
        n=n,
        halt=halt,
        max_think_steps=max_think_steps,
        reference=sides[0],
        bundle=sides[1],
        drop_points=drop,
        drop_interval=drop_interval(lost, won, n),
        confidence=CONFIDENCE,
        max_drop=max_drop,
        lost=lost,
        won=won,
        lost_at_most=100 * upper_bound(lost, n),
        answers_differ=differ,
        halt_shift=shift,
        max_halt_shift=max_halt_shift,
        steps_agree=float((reference.steps == candidate.steps).mean()),
    )


def _side(engine: str, puzzles: PuzzleSet, answers: Answers, right: np.ndarray) -> Side:
    token = token_accuracy(puzzles, answers.tokens)
    return Side(
        engine=engine,
        exact=float(right.mean()),
        token=None if token is None else float(token.mean()),
        steps_mean=float(answers.steps.mean()),
        halted=float(answers.halted.mean()),
    )


def _why_failed(
    n: int,
    lost: int,
    won: int,
    drop: float,
    shift: float,
    finite: bool,
    sides: tuple[Side, Side],
    max_drop: float,
    max_halt_shift: float,
) -> str | None:
    """One line with every reason to fail, or None. Budgets are inclusive, up to rounding."""
    reasons = []
    if drop > max_drop + 1e-9:
        low, high = drop_interval(lost, won, n)
        reasons.append(
            f"exact-solve accuracy dropped {drop:.2f} points, from {percent(sides[0].exact)} to "
            f"{percent(sides[1].exact)} (n={n}, {lost} lost, {won} won, 95 % interval {low:.2f} to {high:.2f}), "
            f"more than the {max_drop:g} allowed"
        )
    ours, theirs = sides[1].token, sides[0].token
    few = sides[0].exact < FEW_SOLVED
    if few and ours is not None and theirs is not None and 100 * (theirs - ours) > max_drop + 1e-9:
        reasons.append(
            f"token accuracy dropped {100 * (theirs - ours):.2f} points, from {percent(theirs)} to "
            f"{percent(ours)} (n={n}; the reference solves {_solved(sides[0].exact)} of them), "
            f"more than the {max_drop:g} allowed"
        )
    if abs(shift) > max_halt_shift + 1e-9:
        reasons.append(
            f"halting moved by {100 * shift:+.1f} %, from {sides[0].steps_mean:.2f} to {sides[1].steps_mean:.2f} "
            f"segments (n={n}), more than the {100 * max_halt_shift:g} % allowed"
        )
    if not finite:
        reasons.append(f"the halting head gave values that are not finite (n={n})")
    return "; ".join(reasons) or None


def _notes(n: int, lost: int, won: int, differ: int, sides: tuple[Side, Side], max_drop: float) -> tuple[str, ...]:
    """What a reader must know before trusting a pass."""
    notes = []
    if max_drop > 0 and 100 / n > max_drop * (1 + 1e-9):
        notes.append(
            f"n={n} cannot show {max_drop:g} points (one puzzle is {100 / n:.2g}); "
            f"use --gate-puzzles {math.ceil(100 / max_drop)} or more"
        )
    if sides[0].exact < FEW_SOLVED:
        held = "" if sides[0].token is None else "token accuracy was held to the same limit; "
        notes.append(
            f"the reference solves {_solved(sides[0].exact)} of these puzzles, so its exact-solve rate can hardly "
            f"fall: {held}{differ} of {n} answers differ; puzzles that it can solve would say more"
        )
    if sides[0].exact and 100 * upper_bound(lost, n) > max_drop and lost + won:
        notes.append(
            f"{lost} lost of n={n}: with 95 % confidence at most {100 * upper_bound(lost, n):.2f} points of all "
            "puzzles are lost"
        )
    if sides[0].halted == 0:
        notes.append("the reference never halts by itself on these puzzles, so only its not halting was checked")
    return tuple(notes)


# -- the time it takes ---------------------------------------------------------------------------------


def estimate_seconds(engine: Engine, checkpoint: Checkpoint, puzzles: PuzzleSet) -> tuple[float, bool]:
    """(seconds the gate will take, whether the reference's answers are cached), from timing a few puzzles."""
    from ..models.engine import TorchEngine
    from .reference import has_reference_answers

    cached = has_reference_answers(checkpoint, puzzles)
    few = puzzles.select(np.arange(min(_TIMED, len(puzzles))))
    first = few.select(np.arange(1))
    seconds = 0.0
    for timed in [engine] if cached else [engine, TorchEngine(checkpoint)]:
        timed.solve(first.questions, 1, "fixed", puzzle_identifiers=first.identifiers)  # warm up
        start = time.perf_counter()
        timed.solve(few.questions, puzzle_identifiers=few.identifiers)
        seconds += (time.perf_counter() - start) * len(puzzles) / len(few)
    return seconds, cached


def readable(seconds: float) -> str:
    """A duration for people: 3 s, 2 min, 1.5 h."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _solved(exact: float) -> str:
    return f"only {percent(exact)}" if exact else "none"
