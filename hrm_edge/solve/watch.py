"""Thinking as it happens: one puzzle segment by segment, told to whoever looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..halting import halting_head
from ..runtimes import Answers, Engine
from ..runtimes.engine import SegmentOutput
from ..tasks import Task
from ..tasks.base import Symmetry
from .retries import RetriedAnswers, variants


@dataclass(frozen=True, eq=False)
class Moment:
    """One puzzle after one segment.

    ``question``, ``guess`` and ``previous`` int32[S]: the puzzle as asked, and the guesses after this segment and
    before it (at first the question itself), of a symmetric variant mapped back. ``puzzle`` and ``segment`` are
    counted from 1, ``variant`` is 0 for the puzzle as asked. ``margin``: by how much the halting head says stop,
    above zero where it does; ``stops``: the halting rule ends the attempt here, ``last``: that or the limit does.
    ``verified``: the guess obeys the rules, None for a task that has none. ``seconds``: the engine's time.
    ``logits`` float32[S, V]: the engine's, of a variant mapped back; None where it keeps them to itself.
    """

    task: Task
    puzzle: int
    question: np.ndarray
    variant: int
    segment: int
    limit: int
    guess: np.ndarray
    previous: np.ndarray
    margin: float
    stops: bool
    verified: bool | None
    seconds: float
    output: SegmentOutput
    logits: np.ndarray | None

    @property
    def last(self) -> bool:
        """Whether the attempt ends with this segment."""
        return self.stops or self.segment == self.limit

    @property
    def changed(self) -> int:
        """How many cells are not as they were a segment ago."""
        return int((self.guess != self.previous).sum())

    @property
    def confidence(self) -> float:
        """The margin as a fraction of 0 to 1: above a half the halting head says stop."""
        return float(1 / (1 + np.exp(-np.clip(self.margin, -50, 50))))


# Told every segment when it has come.
Watch = Callable[[Moment], None]


def told_all(watches: Sequence[Watch]) -> Watch | None:
    """One for all of them; None where there are none."""
    if len(watches) < 2:
        return watches[0] if watches else None

    def tell(moment: Moment) -> None:
        for watch in watches:
            watch(moment)

    return tell


def think(
    engine: Engine,
    question: np.ndarray,
    *,
    puzzle: int = 1,
    halt: str = "learned",
    max_think_steps: int | None = None,
    retries: int = 0,
    seed: int = 0,
    puzzle_identifiers: np.ndarray | None = None,
) -> Iterator[Moment]:
    """Think over ``question`` int32[1, S] and its variants as :func:`solve_with_retries` does, with its errors."""
    task, head = engine.task, halting_head(engine.no_ACT_continue)
    for variant, symmetry in enumerate([None, *variants(engine, retries, seed)]):
        asked = question if symmetry is None else symmetry.apply(question)
        request = engine.request(asked, max_think_steps, halt, False, puzzle_identifiers)
        segments, previous = engine.segments(request), question[0]
        for segment in range(1, request.max_think_steps + 1):
            begin = time.perf_counter()
            output = next(segments)
            seconds = time.perf_counter() - begin
            guesses = output.guess[None] if symmetry is None else symmetry.invert(output.guess[None])
            moment = Moment(
                task=task,
                puzzle=puzzle,
                question=question[0],
                variant=variant,
                segment=segment,
                limit=request.max_think_steps,
                guess=guesses[0],
                previous=previous,
                margin=float(head.margin(output.q[None])[0]),
                stops=bool(engine.stops(request, slice(None), output.guess[None], output.q[None])[0]),
                verified=bool(task.verify(question, guesses)[0]) if task.has_rules else None,
                seconds=seconds,
                output=output,
                logits=output.logits if symmetry is None else _mapped_back(symmetry, output.logits),
            )
            yield moment
            previous = moment.guess
            if moment.last:
                break
        if moment.verified:
            return


def watched(
    engine: Engine, question: np.ndarray, watch: Watch, *, trace: bool = False, **options: Any
) -> RetriedAnswers:
    """The answer to ``question`` int32[1, S]; ``watch`` is told every segment, ``options`` are :func:`think`'s."""
    if question.shape[0] != 1:
        raise InputError(f"thinking is watched one puzzle at a time, not {question.shape[0]}")
    moments = []
    for moment in think(engine, question, **options):
        watch(moment)
        moments.append(moment)
    final = moments[-1]
    answering = final.variant if final.verified else 0
    own = [moment for moment in moments if moment.variant == answering]
    answers = Answers(
        tokens=own[-1].guess[None],
        steps=np.array([len(own)], np.int32),
        halted=np.array([own[-1].stops]),
        q=own[-1].output.q[None],
        trace=np.stack([moment.guess for moment in own])[:, None] if trace else None,
    )
    verified, variant = np.array([bool(own[-1].verified)]), np.array([answering], np.int32)
    return RetriedAnswers(answers, verified, variant, np.array([len(moments)], np.int32), _seconds(moments))


def _mapped_back(symmetry: Symmetry, logits: np.ndarray | None) -> np.ndarray | None:
    """float32[S, V] of a variant as of the puzzle as asked."""
    if logits is None:
        return None
    back = np.empty_like(logits)
    back[symmetry.cells] = logits[:, symmetry.values]
    return back


def _seconds(moments: list[Moment]) -> float:
    """The engine's time. What shows no logits was asked anew for each segment: the last call did all of them."""
    return sum(moment.seconds for moment in moments if moment.output.logits is not None or moment.last)
