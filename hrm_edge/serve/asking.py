"""The puzzles of one request: read, given to the scheduler, and their results as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from ..errors import HrmEdgeError, InputError
from ..runtimes.engine import SegmentOutput
from ..solve.scheduler import DeadlinePassed, Outcome
from .bundles import Served
from .metrics import Metrics
from .records import Answer, Milliseconds, Refused, Segment, SolveRequest, finite

# Of a stream that nobody reads: as many segments are kept for it, and then it is given up.
_UNREAD = 4096
_FAULT = "this service failed at it, which is told in its log"

Result = Answer | Refused
# Told what nothing here expects.
Tell = Callable[[BaseException], object]


class Asking:
    """One request's puzzles on their way. Made and used in the event loop, whose thread never waits here.

    ``seconds``: the longest that a puzzle may take. ``watched``: every segment is told, as an event.
    QueueFull, and nothing is asked, where not all of them find a place.
    """

    def __init__(
        self,
        served: Served,
        request: SolveRequest,
        *,
        seconds: float,
        metrics: Metrics,
        tell: Tell,
        watched: bool = False,
    ) -> None:
        self._served, self._request, self._metrics, self._tell = served, request, metrics, tell
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Segment | Result] = asyncio.Queue()
        self._futures: list[Future[Outcome]] = []
        self._timer: asyncio.TimerHandle | None = None
        puzzles = [request.puzzles] if isinstance(request.puzzles, str) else request.puzzles
        self._left = len(puzzles)
        self.refused = 0
        self._seconds = deadline = min(request.deadline or seconds, seconds)
        self._late = False
        options: dict[str, Any] = {
            "max_think_steps": request.max_think_steps,
            "halt": request.halt.value,
            "retries": request.retries,
            "seed": request.seed,
            "priority": request.priority,
            "deadline": deadline,
        }
        try:
            for index, puzzle in enumerate(puzzles):
                self._submit(index, puzzle, options, watched)
        except BaseException:
            self.cancel()
            raise
        # A graph that thinks to its end in one call notices a deadline only then.
        self._timer = self._loop.call_later(deadline, self._expire)

    def _submit(self, index: int, puzzle: str | list[int], options: dict[str, Any], watched: bool) -> None:
        served, identifiers = self._served, self._request.puzzle_identifiers
        try:
            question = read_question(served, puzzle)
            future = served.scheduler.submit(
                question,
                **options,
                puzzle_identifier=None if identifiers is None else identifiers[index],
                on_segment=self._watch(index, question) if watched else None,
                wait=False,
            )
        except InputError as error:
            self._metrics.puzzles.labels(served.name, "refused").inc()
            self._put(Refused(index=index, error=str(error)))
            return
        self._metrics.begun(served.name)
        self._futures.append(future)
        as_tokens = not isinstance(puzzle, str)
        future.add_done_callback(lambda done: self._later(self._finished, index, as_tokens, done))

    def _watch(self, index: int, question: np.ndarray) -> Callable[[SegmentOutput], None]:
        task, count = self._served.task, 0

        def watch(output: SegmentOutput) -> None:
            nonlocal count
            count += 1
            verified = bool(task.verify(question[None], output.guess[None])[0]) if task.has_rules else None
            segment = Segment(
                index=index, segment=count, guess=task.format(output.guess), q=finite(output.q), verified=verified
            )
            self._later(self._put, segment)

        return watch

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        """In the event loop; of what comes when that has ended, nobody is told."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _put(self, event: Segment | Result) -> None:
        if isinstance(event, Segment) and self._events.qsize() > _UNREAD:
            self.cancel()
            return
        if not isinstance(event, Segment):
            self._left -= 1
            self.refused += isinstance(event, Refused)
        self._events.put_nowait(event)

    def _finished(self, index: int, as_tokens: bool, future: Future[Outcome]) -> None:
        name = self._served.name
        if future.cancelled():
            self._metrics.ended(name, "late" if self._late else "cancelled")
            late = f"was not answered within {self._seconds:g} s"
            self._put(Refused(index=index, error=late if self._late else "was cancelled"))
            return
        error = future.exception()
        if error is None:
            self._answered(index, as_tokens, future.result())
            return
        if not isinstance(error, HrmEdgeError):
            self._tell(error)
        refused = "late" if isinstance(error, DeadlinePassed) else "refused"
        self._metrics.ended(name, refused if isinstance(error, HrmEdgeError) else "failed")
        self._put(Refused(index=index, error=str(error) if isinstance(error, HrmEdgeError) else _FAULT))

    def _answered(self, index: int, as_tokens: bool, outcome: Outcome) -> None:
        name, task, metrics = self._served.name, self._served.task, self._metrics
        metrics.ended(name, "answered" if not task.has_rules else "verified" if outcome.verified else "wrong")
        metrics.segments.labels(name).inc(outcome.segments)
        metrics.puzzle_seconds.labels(name, "queued").observe(outcome.queued_ms / 1000)
        metrics.puzzle_seconds.labels(name, "thinking").observe(outcome.thinking_ms / 1000)
        self._put(
            Answer(
                index=index,
                answer=task.format(outcome.tokens),
                tokens=outcome.tokens.tolist() if as_tokens else None,
                verified=bool(outcome.verified) if task.has_rules else None,
                steps=int(outcome.steps),
                halted=bool(outcome.halted),
                q=finite(outcome.q),
                variant=int(outcome.variant),
                segments=int(outcome.segments),
                ms=Milliseconds(queued=round(outcome.queued_ms, 3), thinking=round(outcome.thinking_ms, 3)),
            )
        )

    async def events(self) -> AsyncIterator[Segment | Result]:
        """Segments where they are watched, and each puzzle's result, as they come."""
        while self._left or not self._events.empty():
            yield await self._events.get()

    async def results(self) -> list[Result]:
        """One result a puzzle, in the order asked."""
        found = [event async for event in self.events() if not isinstance(event, Segment)]
        return sorted(found, key=lambda result: result.index)

    def cancel(self) -> None:
        """Think no more about what has no answer yet; what is answered stays so."""
        if self._timer is not None:
            self._timer.cancel()
        # Forgotten too: they know of this request, and a cycle would keep a bundle that was replaced in memory.
        futures, self._futures = self._futures, []
        for future in futures:
            future.cancel()

    def _expire(self) -> None:
        self._late = True
        self.cancel()


def read_question(served: Served, puzzle: str | list[int]) -> np.ndarray:
    """int32[S] of a text or of tokens. InputError where it is no puzzle of the bundle's task.

    Whether it has a solution is not asked: that may take longer than to think about it.
    """
    task = served.task
    question = task.parse(puzzle) if isinstance(puzzle, str) else np.array(puzzle, np.int32)
    if not task.by_example:
        task.check_question(question)
    return question
