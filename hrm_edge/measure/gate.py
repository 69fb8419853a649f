"""The accuracy gate: does an exported bundle still answer as the float reference does?

Both answer the same puzzles, so the comparison is paired: what counts are the puzzles that one solves and the
other does not. It fails when exact-solve accuracy dropped by more than `max_drop` points, or when the mean
number of segments before halting moved by more than `max_halt_shift` (a fraction). A reference that solves
hardly any of the puzzles has no exact-solve accuracy to lose: then token accuracy is held to the same budget too.
One that solves none proves nothing, and is no pass.

Where the interval of the drop holds the limit, chance would decide: the gate asks n puzzles, then 2, 4 and at most
8 times as many, until the limit lies outside, or not one answer differs on as many as it begins with by default. So
that the four looks together err no more often than one would at `CONFIDENCE`, each has a quarter of its error
(Bonferroni). What is still open at the last is decided by the drop that was measured, and said to be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle.examples import HOW_MANY
from ..data.puzzles import PuzzleSet
from ..errors import GateFailed, InputError
from ..precision import FP32
from ..progress import Progress, Say
from ..runtimes import Answers, Engine
from ..runtimes.engine import joined
from .accuracy import answer_all, by_chunks, check_match, rightness, token_accuracy
from .arithmetic import arithmetic_of
from .calls import Asked, ask_otherwise, call_rows, segments_asked
from .statistics import CONFIDENCE, drop_interval, percent, shift_interval, upper_bound

if TYPE_CHECKING:
    from ..models import Checkpoint

MAX_DROP = 0.5  # points of exact-solve accuracy
MAX_HALT_SHIFT = 0.05  # fraction of the reference's mean number of segments
_TIMED = 16  # puzzles from which the time that the gate will take is estimated
LOOKS = 4  # each at twice as many puzzles as the one before
LOOK_CONFIDENCE = 1 - (1 - CONFIDENCE) / LOOKS
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
    calls: tuple[Asked, ...] = ()  # the other ways to ask
    reference_name: str = ""  # of the checkpoint that it was held to
    reference_hash: str = ""  # of that one's weights and config
    arithmetic: str = ""  # the backend and the kind of CPU that answered
    halt_interval: tuple[float, float] | None = None  # of halt_shift, paired, fractions

    @property
    def settled(self) -> bool:
        """Whether the limit of the drop lies outside its interval, or no answer of enough puzzles differs."""
        low, high = self.drop_interval
        alike = self.answers_differ == 0 and self.n >= FP32.gate_puzzles
        return alike or not low <= self.max_drop <= high

    @property
    def undecided(self) -> str:
        """The limit that chance decides about, with what is known of it; empty: none, or it fails for another."""
        low, high = self.drop_interval
        if not self.settled and (self.passed or self.drop_points > self.max_drop):
            return f"{low:.2f} to {high:.2f} points lost, {self.max_drop:g} allowed,"
        limit, (low, high) = self.max_halt_shift, self.halt_interval or (0.0, 0.0)
        near = low <= limit <= high or low <= -limit <= high
        if near and self.drop_points <= self.max_drop and (self.passed or abs(self.halt_shift) > limit):
            return f"halting moved by {100 * low:+.1f} to {100 * high:+.1f} %, {100 * limit:g} allowed,"
        return ""

    @property
    def judged(self) -> bool:
        """Whether the reference solves any puzzle at all, without which there is nothing to lose."""
        return self.reference.exact > 0

    @property
    def only_unjudged(self) -> bool:
        """Whether it fails for that alone."""
        return self.reason == _UNJUDGED.format(n=self.n)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def raise_if_failed(self, what: str, advice: str = "") -> None:
        """GateFailed, naming `what` was not published and what to do about it, unless the gate passed."""
        if not self.passed:
            error = GateFailed(f"{what}: {self.reason}; nothing was published{advice}")
            error.report = self
            raise error


@dataclass(frozen=True)
class Judged:
    """The verdict, and what it rests on: every puzzle that was asked, and both sides' answers."""

    report: GateReport
    puzzles: PuzzleSet
    reference: Answers
    bundle: Answers


def judge(
    engine: Engine,
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    more: Callable[[int], PuzzleSet] | None = None,
    *,
    max_drop: float = MAX_DROP,
    say: Say,
    progress: Progress | None = None,
) -> Judged:
    """Ask the float reference and the bundle the same puzzles, and as many more as it takes to settle the verdict.

    ``more(n)``: a set of n that begins with ``puzzles``, where there are so many; InputError where there are not.
    """
    from ..models.engine import TorchEngine

    confidence = CONFIDENCE if more is None else LOOK_CONFIDENCE
    sides = paired_answers(engine, checkpoint, puzzles, say=say, progress=progress, otherwise=True)
    asked, right = puzzles, rightness(puzzles, sides[0].tokens)
    say(f"gate: asking a few of them in other ways, of up to {2 * engine.halt_max_steps} segments")
    calls = ask_otherwise(engine, TorchEngine(checkpoint), puzzles, right)
    for look in range(1, LOOKS + 1):
        report = compare(
            *sides,
            asked,
            max_drop=max_drop,
            max_think_steps=engine.halt_max_steps,
            engine=f"{engine.backend} {engine.loop} loop",
            confidence=confidence,
            calls=calls,
        )
        undecided = report.undecided
        longer = _longer(asked, more) if undecided and more is not None and look < LOOKS else asked
        if len(longer) <= len(asked):
            break
        say(f"gate: {undecided} on n={report.n}: asking more puzzles")
        added = longer.select(np.arange(len(asked), len(longer)))
        others = paired_answers(engine, checkpoint, added, say=say, progress=progress)
        asked, sides = longer, (joined([sides[0], others[0]]), joined([sides[1], others[1]]))
    report = replace(report, reference_name=checkpoint.name, reference_hash=checkpoint.content_hash)
    return Judged(replace(report, arithmetic=arithmetic_of(engine)), asked, *sides)


def _longer(asked: PuzzleSet, more: Callable[[int], PuzzleSet]) -> PuzzleSet:
    """Twice as many, or as many as there are."""
    try:
        return more(2 * len(asked))
    except InputError:  # a small board has no more
        return asked


def paired_answers(
    engine: Engine,
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    *,
    say: Say,
    progress: Progress | None = None,
    otherwise: bool = False,
) -> tuple[Answers, Answers]:
    """(the float reference's answers, the bundle's) to the same puzzles, through the runtime that a user would use.

    The reference's answers are cached. `say` is told how long it will take before it starts; `otherwise`: with the
    other ways to ask behind it.
    """
    from .reference import reference_answers

    check_match(engine, puzzles)
    seconds, cached = estimate_seconds(engine, checkpoint, puzzles, otherwise)
    kept = " (the reference's answers are kept from before)" if cached else ""
    say(f"gate: {len(puzzles)} puzzles from {puzzles.name}, about {readable(seconds)}{kept}")
    reference = reference_answers(checkpoint, puzzles, progress=progress)
    return reference, answer_all(engine, puzzles, calls=call_rows, progress=progress)


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
    confidence: float = CONFIDENCE,
    calls: Sequence[Asked] = (),
) -> GateReport:
    """The paired comparison itself, on answers that are already there; ``calls``: of the other ways to ask."""
    for name, limit in (("max_drop", max_drop), ("max_halt_shift", max_halt_shift)):
        if not (math.isfinite(limit) and limit >= 0):
            raise InputError(f"{name} must be a number of at least 0, not {limit!r}")
    n = len(puzzles)
    right = rightness(puzzles, reference.tokens)
    still_right = rightness(puzzles, candidate.tokens)
    lost, won = int((right & ~still_right).sum()), int((~right & still_right).sum())
    sides = (_side("reference", puzzles, reference, right), _side(engine, puzzles, candidate, still_right))
    report = GateReport(
        passed=False,
        reason="",
        notes=(),
        puzzles=puzzles.name,
        puzzles_hash=puzzles.content_hash(),
        n=n,
        halt=halt,
        max_think_steps=max_think_steps,
        reference=sides[0],
        bundle=sides[1],
        drop_points=100 * (lost - won) / n,
        drop_interval=drop_interval(lost, won, n, confidence),
        confidence=confidence,
        max_drop=max_drop,
        lost=lost,
        won=won,
        lost_at_most=100 * upper_bound(lost, n),
        answers_differ=int((reference.tokens != candidate.tokens).any(axis=1).sum()),
        halt_shift=sides[1].steps_mean / sides[0].steps_mean - 1,
        max_halt_shift=max_halt_shift,
        steps_agree=float((reference.steps == candidate.steps).mean()),
        calls=tuple(calls),
        halt_interval=shift_interval(reference.steps, candidate.steps, confidence),
    )
    reasons = _why_failed(report)
    passed = (
        f"passed on n={n}: exact {percent(sides[0].exact)} → {percent(sides[1].exact)} ({lost} lost, {won} won), "
        f"{report.answers_differ} answers differ, halting moved by {100 * report.halt_shift:+.1f} %"
    )
    return replace(report, passed=not reasons, reason="; ".join(reasons) or passed, notes=tuple(_notes(report)))


def _side(engine: str, puzzles: PuzzleSet, answers: Answers, right: np.ndarray) -> Side:
    token = token_accuracy(puzzles, answers.tokens)
    return Side(
        engine=engine,
        exact=float(right.mean()),
        token=None if token is None else float(token.mean()),
        steps_mean=float(answers.steps.mean()),
        halted=float(answers.halted.mean()),
    )


_UNJUDGED = (
    "the reference solves none of these {n} puzzles, so nothing is proven: see whether they are the model's own, "
    "with its identifiers, and whether its training worked; give puzzles that it solves with --data, or publish it "
    "as not judged with --not-judged"
)


def _why_failed(report: GateReport) -> list[str]:
    """Every budget that is exceeded. Budgets are inclusive, up to rounding."""
    before, after, n, budget = report.reference, report.bundle, report.n, report.max_drop
    reasons = [asked.wrong for asked in report.calls if asked.wrong]
    if report.drop_points > budget + 1e-9:
        low, high = report.drop_interval
        reasons.append(
            f"exact-solve accuracy dropped {report.drop_points:.2f} points, from {percent(before.exact)} to "
            f"{percent(after.exact)} (n={n}, {report.lost} lost, {report.won} won, "
            f"{100 * report.confidence:g} % interval {low:.2f} to {high:.2f}), more than the {budget:g} allowed"
        )
    if before.exact < FEW_SOLVED and before.token is not None and after.token is not None:
        token_drop = 100 * (before.token - after.token)
        if token_drop > budget + 1e-9:
            reasons.append(
                f"token accuracy dropped {token_drop:.2f} points, from {percent(before.token)} to "
                f"{percent(after.token)} (n={n}; the reference solves {_solved(before.exact)} of them), "
                f"more than the {budget:g} allowed"
            )
    if abs(report.halt_shift) > report.max_halt_shift + 1e-9:
        low, high = report.halt_interval or (report.halt_shift, report.halt_shift)
        reasons.append(
            f"halting moved by {100 * report.halt_shift:+.1f} %, from {before.steps_mean:.2f} to "
            f"{after.steps_mean:.2f} segments (n={n}, {100 * report.confidence:g} % interval {100 * low:+.1f} to "
            f"{100 * high:+.1f}), more than the {100 * report.max_halt_shift:g} % allowed"
        )
    if not report.judged:
        reasons.append(_UNJUDGED.format(n=n))
    return reasons


def _notes(report: GateReport) -> Iterator[str]:
    """What a reader must know before trusting a pass."""
    before, n, budget = report.reference, report.n, report.max_drop
    if budget > 0 and 100 / n > budget * (1 + 1e-9):
        yield (
            f"n={n} cannot show {budget:g} points (one puzzle is {100 / n:.2g}); "
            f"use --gate-puzzles {math.ceil(100 / budget)} or more"
        )
    if before.exact < FEW_SOLVED:
        held = "" if before.token is None else "token accuracy was held to the same limit; "
        yield (
            f"the reference solves {_solved(before.exact)} of these puzzles, so its exact-solve rate can hardly "
            f"fall: {held}{report.answers_differ} of {n} answers differ; puzzles that it can solve would say more"
        )
    if not report.settled and report.confidence == LOOK_CONFIDENCE:
        low, high = report.drop_interval
        yield (
            f"whether the drop stays within {budget:g} points is not settled: {low:.2f} to {high:.2f} with "
            f"{100 * report.confidence:g} % confidence after the last look (n={n})"
        )
    if before.exact and report.lost_at_most > budget:
        yield (
            f"{report.lost} lost of n={n}: with 95 % confidence at most {report.lost_at_most:.2f} points of all "
            "puzzles are lost"
        )
    if before.halted == 0:
        yield "the reference never halts by itself on these puzzles, so only its not halting was checked"


# -- the time it takes ---------------------------------------------------------------------------------


def estimate_seconds(
    engine: Engine, checkpoint: Checkpoint, puzzles: PuzzleSet, otherwise: bool = False
) -> tuple[float, bool]:
    """(seconds the gate will take, whether the reference's answers are cached), from timing a few puzzles.

    Counted in segments of a row each: of few puzzles, the other ways to ask take most.
    """
    from ..models.engine import TorchEngine
    from .reference import has_reference_answers

    cached = has_reference_answers(checkpoint, puzzles)
    few = puzzles.select(np.arange(min(_TIMED, len(puzzles))))
    seconds = 0.0
    # Behind the gate an example of each call is asked once more, alone.
    sides = [
        (engine, len(puzzles) + otherwise * HOW_MANY),
        (TorchEngine(checkpoint), 0 if cached else len(puzzles)),
    ]
    for side, (timed, count) in enumerate(sides):
        if not count and not otherwise:
            continue
        for rows in (1, 2):  # a backend may compile for one and for several
            some = few.select(np.arange(min(rows, len(few))))
            timed.solve(some.questions, 1, "fixed", puzzle_identifiers=some.identifiers)  # warm up
        start = time.perf_counter()
        answers = answer_all(timed, few, calls=call_rows if timed is engine else by_chunks)
        taken, usual = time.perf_counter() - start, float(answers.steps.mean())
        segments = usual * count + otherwise * segments_asked(engine.halt_max_steps, usual)[side]
        seconds += taken * segments / answers.steps.sum()
    return seconds, cached


def readable(seconds: float) -> str:
    """A duration for people: 3 s, 2 min, 1.5 h."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _solved(exact: float) -> str:
    return f"only {percent(exact)}" if exact else "none"
