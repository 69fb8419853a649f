"""One puzzle on its way through a scheduler: what was asked, its attempts, and what came of them."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from ..errors import HrmEdgeError
from ..runtimes import Engine
from ..runtimes.engine import Request, SegmentOutput
from ..tasks.base import Symmetry


class QueueFull(HrmEdgeError):
    """So many requests wait that no other may join them."""


class DeadlinePassed(HrmEdgeError):
    """A request was not answered within the time it was given."""


class Closed(HrmEdgeError):
    """The scheduler takes no more requests."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one puzzle.

    ``tokens`` int32[S], ``steps``, ``halted`` and ``q`` float32[2] are those of `Answers`, of the attempt that
    answered, mapped back. ``verified``: the task accepts the answer; without rules it accepts none. ``variant``:
    that attempt, 0 for the puzzle as asked. ``segments``: of all attempts up to it, of all where none verified.
    ``queued_ms`` until it was begun, ``thinking_ms`` from then on. ``number``: which it was of those mapped.
    """

    tokens: np.ndarray
    steps: int
    halted: bool
    q: np.ndarray
    verified: bool
    variant: int
    segments: int
    queued_ms: float
    thinking_ms: float
    number: int = 0

    @property
    def ms(self) -> float:
        """From asking to answer."""
        return self.queued_ms + self.thinking_ms


class Ticket:
    """A request, and what is known of its attempts. Whoever changes it holds the lock of its streams."""

    def __init__(
        self,
        request: Request,
        retries: int,
        seed: int | None,
        priority: int,
        deadline: float | None,
        on_segment: Callable[[SegmentOutput], None] | None,
    ) -> None:
        self.request, self.priority, self.on_segment = request, priority, on_segment
        self.future: Future[Outcome] = Future()
        self.asked_at = time.monotonic()
        self.begun_at: float | None = None
        self.deadline = None if deadline is None else self.asked_at + deadline
        self.seconds = deadline or 0.0
        self.todo = list(range(retries + 1))  # attempts that nobody has begun, a heap
        self.begun: set[int] = set()  # attempts that wait for a row, or are in one
        self._retries, self._seed = retries, seed
        self._done: dict[int, Done] = {}
        self._symmetries: list[Symmetry] | None = None

    @property
    def too_late(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def begin(self) -> bool:
        """Whether its first attempt is begun now."""
        if self.begun_at is not None:
            return False
        self.begun_at = time.monotonic()
        return True

    def next_attempt(self) -> int:
        """The first attempt that nobody has begun, which is begun herewith."""
        variant = heapq.heappop(self.todo)
        self.begun.add(variant)
        return variant

    def put_back(self, variant: int) -> None:
        """An attempt is given up for something more urgent."""
        self.begun.discard(variant)
        heapq.heappush(self.todo, variant)

    def needed(self, variant: int) -> bool:
        """Whether an attempt in flight can still be the answer."""
        return variant in self.begun

    def symmetry(self, engine: Engine, variant: int) -> Symmetry | None:
        """What turns the puzzle into its variant; None for the puzzle as asked."""
        if not variant:
            return None
        if self._symmetries is None:  # of most puzzles none is ever needed
            self._symmetries = engine.task.variants(self._seed or 0, self._retries)
        return self._symmetries[variant - 1]

    def ended(self, variant: int, done: Done) -> Outcome | None:
        """An attempt has an answer: the outcome where that, or another, settles it."""
        self.begun.discard(variant)
        self._done[variant] = done
        if done.verified and self._seed is None:
            return self._outcome(variant, self._done)
        verified = [number for number, each in self._done.items() if each.verified]
        if verified:
            first = min(verified)
            self.todo = [number for number in self.todo if number < first]  # what is sorted is a heap
            heapq.heapify(self.todo)
            self.begun = {number for number in self.begun if number < first}
            if not self.todo and not self.begun:
                return self._outcome(first, range(first + 1))
        elif not self.todo and not self.begun:
            return self._outcome(0, self._done)
        return None

    def _outcome(self, variant: int, counted: dict[int, Done] | range) -> Outcome:
        done, now = self._done[variant], time.monotonic()
        begun = now if self.begun_at is None else self.begun_at
        return Outcome(
            tokens=done.tokens,
            steps=done.steps,
            halted=done.halted,
            q=done.q,
            verified=done.verified,
            variant=variant,
            segments=sum(self._done[number].steps for number in counted),
            queued_ms=1000 * (begun - self.asked_at),
            thinking_ms=1000 * (now - begun),
        )


@dataclass(frozen=True, eq=False)
class Done:
    """What an attempt came to, as the puzzle was asked."""

    tokens: np.ndarray
    steps: int
    halted: bool
    q: np.ndarray
    verified: bool


class Attempt:
    """A puzzle as asked, or one of its symmetric variants, on its way through a row."""

    def __init__(self, ticket: Ticket, variant: int) -> None:
        self.ticket, self.variant = ticket, variant
        self.request = ticket.request
        self.steps = 0
        self._symmetry: Symmetry | None = None

    @property
    def listener(self) -> Callable[[SegmentOutput], None] | None:
        """Who is told its segments."""
        return None if self.variant else self.ticket.on_segment

    def prepared(self, engine: Engine) -> Request:
        """What is asked: the puzzle turned into this variant of it."""
        self._symmetry = self.ticket.symmetry(engine, self.variant)
        if self._symmetry is not None:
            self.request = replace(self.ticket.request, tokens=self._symmetry.apply(self.ticket.request.tokens))
        return self.request

    def done(self, engine: Engine, guess: np.ndarray, steps: int, halted: bool, q: np.ndarray) -> Done:
        """What came of it, mapped back and judged: ``guess`` int32[S], ``q`` float32[2]."""
        tokens = guess[None] if self._symmetry is None else self._symmetry.invert(guess[None])
        question, task = self.ticket.request.tokens, engine.task
        verified = bool(task.verify(question, tokens)[0]) if task.has_rules else False
        return Done(np.array(tokens[0], np.int32), steps, halted, np.array(q, np.float32), verified)
