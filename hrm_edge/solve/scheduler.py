"""Puzzles from many callers over one engine: priorities, deadlines, retries, and no row waits for a slower one.

The queue and what becomes of a request are here; the threads that think are in :mod:`.streams`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import queue as queues
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import require_whole
from ..runtimes import Engine
from ..runtimes.engine import SegmentOutput
from .requests import Closed, DeadlinePassed, Outcome, QueueFull, Ticket
from .retries import checked_retries
from .streams import Streams

__all__ = ["Closed", "DeadlinePassed", "Outcome", "QueueFull", "Scheduler"]

# Of a stream of puzzles, those asked at once for each row that is thought over: enough that one which thinks the
# longest keeps no other waiting, few enough that an endless one is read no faster than it is answered.
_AHEAD = 16


class Scheduler:
    """Answers puzzles from any number of threads, each row thought over for itself; thread-safe, to be closed.

    >>> import hrm_edge as he
    >>> model = he.load("sudoku-9x9")
    >>> puzzle = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
    >>> tokens = model.task.parse(puzzle)
    >>> with he.Scheduler(model.engine, streams=2) as scheduler:
    ...     urgent = scheduler.submit(tokens, priority=1, deadline=600)
    ...     others = scheduler.map([tokens] * 3, retries=8)
    ...     print(urgent.result().verified, [outcome.verified for outcome in others])
    True [True, True, True]

    ``streams`` threads, each of which thinks over one puzzle at a time, or as many as the engine's fixed batch has
    rows. Where segments are visible (a loop on the host) a puzzle that is done, cancelled or too late leaves its
    row after the segment, and the next one waiting takes it. A loop inside a graph is one call a puzzle, or a
    batch, and such ends are noticed when that call returns.

    What is guaranteed: an outcome is, bit for bit, what `Engine.solve` gives for the row alone, whatever was
    thought over beside it. With ``retries`` and a ``seed`` (a whole number, 0 by default) it is what
    :func:`~.retries.solve_with_retries` gives: of the attempts that verify the first in order, whichever came first
    in time. Rows that nobody waits for think on later attempts before earlier ones have failed; what was thought on
    attempts behind the answering one is not counted. With ``seed`` None the first in time to verify wins, which is
    quicker, and may be another variant's answer when asked again.

    An engine that raises fails the puzzles of that call alone, with the error it raised, and the stream goes on.
    """

    def __init__(self, engine: Engine, *, streams: int | None = None, queue: int = 1024) -> None:
        """``queue``: requests that may wait to be begun. As many ``streams`` as the engine was opened for."""
        require_whole(1, streams=streams, queue=queue)
        self.engine = engine
        self._room = queue
        self._streams = Streams(engine, streams or engine.streams)
        # A program that ends without closing ends what it asked before the backend is torn down.
        atexit.register(self._streams.close, False)

    @property
    def waiting(self) -> int:
        """How many requests nobody has begun to think about."""
        return self._streams.waiting

    @property
    def running(self) -> int:
        """How many requests are being thought about."""
        return self._streams.running

    def submit(
        self,
        tokens: np.ndarray,
        *,
        max_think_steps: int | None = None,
        halt: str = "learned",
        retries: int = 0,
        seed: int | None = 0,
        puzzle_identifier: int | None = None,
        priority: int = 0,
        deadline: float | None = None,
        on_segment: Callable[[SegmentOutput], None] | None = None,
        wait: bool = True,
    ) -> Future[Outcome]:
        """Ask for one puzzle, ``tokens`` int[S]; ``future.cancel()`` also ends one that is being thought over.

        ``priority``: larger first, and first come, first served. ``deadline``: seconds from now, after which the
        request ends with :class:`DeadlinePassed`. ``on_segment`` is told each segment of the puzzle as asked, in a
        worker's thread, where it should take no time; what it raises fails the request. A graph loop, which shows
        only answers, then does about T/2 times the work.

        Raises :class:`InputError` at once for what `Engine.solve` refuses. Where the queue is full it waits; with
        ``wait`` False, and in a worker's own thread, it raises :class:`QueueFull`. :class:`Closed` after `close`.
        """
        rows = np.asarray(tokens)[None]
        identifiers = None if puzzle_identifier is None else np.array([puzzle_identifier])
        request = self.engine.request(rows, max_think_steps, halt, False, identifiers)
        count = checked_retries(self.engine, retries)
        ticket = Ticket(request, count, seed, priority, deadline, on_segment)
        self._streams.enter(ticket, self._room, wait)
        return ticket.future

    def map(self, requests: Iterable[Any], *, ordered: bool = True, **options: Any) -> Iterator[Outcome]:
        """Outcomes of puzzles int[S], of which no more are read than are needed to keep every row busy.

        ``options`` are those of :meth:`submit`; an item may also be a mapping of ``tokens`` and options of its own.
        In order, or with ``ordered`` False as completed: ``outcome.number`` counts the items from 0. The first
        error ends it, and what is still in flight is cancelled, as when the iterator is closed.
        """
        items, ahead = iter(requests), min(self._room, _AHEAD * self._streams.rows)
        done: queues.SimpleQueue[int] = queues.SimpleQueue()
        flying: dict[int, Future[Outcome]] = {}  # in order
        asked, more = 0, True
        try:
            while True:
                while more and len(flying) < ahead:
                    try:
                        item = next(items)
                    except StopIteration:
                        more = False
                        break
                    own = {**options, **item} if isinstance(item, Mapping) else {**options, "tokens": item}
                    future = flying[asked] = self.submit(own.pop("tokens"), **own)
                    future.add_done_callback(functools.partial(_told, done, asked))
                    asked += 1
                if not flying:
                    return
                number = next(iter(flying)) if ordered else done.get()
                outcome = flying[number].result()
                del flying[number]
                yield replace(outcome, number=number)
        finally:
            for future in flying.values():
                future.cancel()

    async def solve(self, tokens: np.ndarray, **options: Any) -> Outcome:
        """:meth:`submit` for `asyncio`, which waits for room; cancelling the task cancels the request."""
        import asyncio  # a command that solves a puzzle does without

        return await asyncio.wrap_future(await self._entered(tokens, options))

    async def stream(self, tokens: np.ndarray, **options: Any) -> AsyncIterator[SegmentOutput | Outcome]:
        """Each segment as it comes, and the :class:`Outcome` at last; who stops listening cancels the request."""
        import asyncio

        loop, seen = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def told(what: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
                loop.call_soon_threadsafe(seen.put_nowait, what)

        future = await self._entered(tokens, {**options, "on_segment": told})
        future.add_done_callback(told)
        try:
            while not isinstance(came := await seen.get(), Future):
                yield came
            yield came.result()
        finally:
            future.cancel()

    async def _entered(self, tokens: np.ndarray, options: dict[str, Any]) -> Future[Outcome]:
        import asyncio

        loop, room = asyncio.get_running_loop(), asyncio.Event()
        with self._streams.told_of_room(lambda: loop.call_soon_threadsafe(room.set)):
            while True:
                room.clear()
                try:
                    return self.submit(tokens, **{**options, "wait": False})
                except QueueFull:
                    await room.wait()

    def close(self, *, drain: bool = True) -> None:
        """Take no more requests, and end what was asked: answered with ``drain``, else cancelled."""
        self._streams.close(drain)
        atexit.unregister(self._streams.close)

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close(drain=kind is None)


def _told(done: queues.SimpleQueue[int], number: int, _: Future[Outcome]) -> None:
    done.put(number)
