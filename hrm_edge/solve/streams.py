"""The threads of a scheduler, and the queue that they share."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from typing import Any

import numpy as np

from ..runtimes import Engine
from ..runtimes.engine import Flight, Request, SegmentOutput
from .requests import Attempt, Closed, DeadlinePassed, Outcome, QueueFull, Ticket

_GHOSTS = 64  # entries of requests that are over, which a queue may hold beside as many as are not


class Streams:
    """``count`` threads that think over what waits, the most urgent first. All state is changed under one lock, and
    futures are settled outside it, as whoever hears of them may ask again."""

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine, self._each = engine, engine.together
        self.rows = count * self._each
        lock = threading.Lock()
        self._work, self._space = threading.Condition(lock), threading.Condition(lock)
        self._queue: list[tuple[int, int, int, Attempt]] = []  # a heap: -priority, arrival, variant
        self._deadlines: list[tuple[float, int, Ticket]] = []  # a heap
        self._arrivals = itertools.count()
        self._tickets: dict[Ticket, int] = {}  # that are not over, and when they came
        self.waiting = 0  # tickets that nobody has begun
        self._listeners: list[Callable[[], Any]] = []  # told when one more may wait
        self._open = True
        names = (f"hrm-edge stream {number}" for number in range(1, count + 1))
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> int:
        """Tickets that somebody has begun."""
        return len(self._tickets) - self.waiting

    # -- in ------------------------------------------------------------------------------------------

    def enter(self, ticket: Ticket, room: int, wait: bool) -> None:
        """Have a ticket wait among no more than ``room``. QueueFull, Closed."""
        wait = wait and threading.current_thread() not in self._threads  # who would make room, if not they?
        with self._space:
            while self._open and self.waiting >= room:
                if not wait:
                    raise QueueFull(f"{self.waiting} requests wait already; ask again later")
                self._space.wait()
            if not self._open:
                raise Closed("the scheduler is closed; open another")
            self._tickets[ticket] = next(self._arrivals)
            self.waiting += 1
            self._push(ticket)
            if ticket.deadline is not None:
                heapq.heappush(self._deadlines, (ticket.deadline, self._tickets[ticket], ticket))
        ticket.future.add_done_callback(lambda future: self._over(ticket, future))

    @contextlib.contextmanager
    def told_of_room(self, listener: Callable[[], Any]) -> Iterator[None]:
        """``listener`` is called whenever one more may wait."""
        with self._space:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._space:
                self._listeners.remove(listener)

    def close(self, drain: bool) -> None:
        """Take no more; end what there is, and the threads."""
        with self._work:
            self._open = False
            left = [] if drain else list(self._tickets)
            self._work.notify_all()
            self._space.notify_all()
        for ticket in left:
            ticket.future.cancel()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _push(self, ticket: Ticket) -> None:
        attempt = Attempt(ticket, ticket.next_attempt())
        heapq.heappush(self._queue, (-ticket.priority, self._tickets[ticket], attempt.variant, attempt))
        if ticket.todo:
            self._work.notify_all()  # rows that nobody waits for may try the rest
        else:
            self._work.notify()

    def _over(self, ticket: Ticket, future: Future[Outcome]) -> None:
        """A future has its result, or was cancelled: its place is free."""
        if future.cancelled():
            with contextlib.suppress(InvalidStateError, RuntimeError):
                future.set_running_or_notify_cancel()  # or whoever waits for several would wait for ever
        with self._work:
            del self._tickets[ticket]
            if ticket.begun_at is None:
                self.waiting -= 1
                self._make_room()
            if not self._open and not self._tickets:
                self._work.notify_all()
            self._forget_ghosts()

    def _make_room(self) -> None:
        self._space.notify()
        for listener in self._listeners:
            with contextlib.suppress(RuntimeError):  # an event loop that is closed
                listener()

    def _forget_ghosts(self) -> None:
        """What is over is left in the heaps until its turn comes; not so where much of it is."""
        most = 2 * len(self._tickets) + _GHOSTS
        if len(self._queue) > most:
            self._queue = [entry for entry in self._queue if entry[3].ticket in self._tickets]
            heapq.heapify(self._queue)
        if len(self._deadlines) > most:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self._tickets]
            heapq.heapify(self._deadlines)

    # -- out -----------------------------------------------------------------------------------------

    def _take(self, free: int, wait: bool) -> list[Attempt] | None:
        """The most urgent attempts, at most ``free``; None: there will be no more."""
        while True:
            with self._work:
                late = self._late()
                found = self._next(free)
                if not found and not late and wait:
                    if not self._open and not self._tickets:
                        return None
                    self._work.wait()
            for ticket in late:
                self._fail(ticket, _too_late(ticket))
            if found or not wait:
                return found

    def _late(self) -> list[Ticket]:
        late = []
        while self._deadlines and (self._deadlines[0][2] not in self._tickets or self._deadlines[0][2].too_late):
            _, _, ticket = heapq.heappop(self._deadlines)
            if ticket in self._tickets:
                late.append(ticket)
        return late

    def _next(self, free: int) -> list[Attempt]:
        found: list[Attempt] = []
        while self._queue and len(found) < free:
            attempt = self._queue[0][3]
            wanted = self._wanted(attempt)
            if wanted and not self._together(found, attempt):
                return found
            heapq.heappop(self._queue)
            if wanted:
                if attempt.ticket.begin():
                    self.waiting -= 1
                    self._make_room()
                found.append(attempt)
        for ticket in self._hopeful() if len(found) < free else ():
            while ticket.todo and len(found) < free:
                attempt = Attempt(ticket, ticket.todo[0])
                if not self._together(found, attempt):
                    break
                ticket.next_attempt()
                found.append(attempt)
        return found

    def _hopeful(self) -> list[Ticket]:
        """Begun tickets that have attempts left, for rows that nobody waits for; the most urgent first."""
        tickets = [ticket for ticket in self._tickets if ticket.todo and ticket.begun_at is not None]
        return sorted(tickets, key=lambda ticket: (-ticket.priority, self._tickets[ticket]))

    def _together(self, found: list[Attempt], attempt: Attempt) -> bool:
        """Whether an attempt may go where others do: one call for answers has one limit and one halting rule."""
        if not found or self._engine.shows_segments:
            return True
        first = found[0]
        calls = [(each.request.max_think_steps, each.request.halt) for each in (first, attempt)]
        return calls[0] == calls[1] and first.listener is None and attempt.listener is None

    def _wanted(self, attempt: Attempt) -> bool:
        return attempt.ticket in self._tickets and attempt.ticket.needed(attempt.variant)

    # -- a stream ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (flying := self._take(self._each, wait=True)) is not None:
            try:
                self._think(flying)
            except BaseException as error:  # a backend's may be of any kind, and the next puzzle is another one's
                for attempt in flying:
                    self._fail(attempt.ticket, error)

    def _think(self, flying: list[Attempt]) -> None:
        """Answer these, and where segments are seen those that come meanwhile; ``flying`` is who is not done."""
        if self._engine.shows_segments:
            with self._engine.flight(self._each) as flight:
                self._fly(flight, flying)
        elif flying[0].listener is not None:
            with self._engine.flight(1) as flight:
                self._fly(flight, flying, refill=False)
        else:
            self._answer(flying)

    def _answer(self, flying: list[Attempt]) -> None:
        """All in one call of an engine that shows answers only."""
        answers = self._engine.answer(self._stacked(flying))
        for row, attempt in enumerate(flying):
            if self._stays(attempt):
                halted = bool(answers.halted[row])
                self._done(attempt, answers.tokens[row], int(answers.steps[row]), halted, answers.q[row])

    def _fly(self, flight: Flight, flying: list[Attempt], refill: bool = True) -> None:
        fresh = list(flying)
        while flying:
            if fresh:
                asked = self._stacked(fresh)
                flight.put(asked.tokens, asked.puzzle_identifiers)
            seen = flight.think()
            staying = [self._seen(attempt, seen.row(row)) for row, attempt in enumerate(flying)]
            if not all(staying):
                flight.keep(np.array(staying))
                flying[:] = [attempt for attempt, stays in zip(flying, staying, strict=True) if stays]
            fresh = (self._take(self._each - len(flying), wait=False) or []) if refill else []
            flying += fresh

    def _stacked(self, attempts: list[Attempt]) -> Request:
        """Several rows as one request, of the first one's limit and rule."""
        requests = [attempt.prepared(self._engine) for attempt in attempts]
        identifiers = [each.puzzle_identifiers for each in requests if each.puzzle_identifiers is not None]
        return replace(
            requests[0],
            tokens=np.concatenate([each.tokens for each in requests]),
            puzzle_identifiers=np.concatenate(identifiers) if identifiers else None,
        )

    def _seen(self, attempt: Attempt, seen: SegmentOutput) -> bool:
        """Whether an attempt thinks on after a segment."""
        attempt.steps += 1
        if not self._stays(attempt):
            return False
        try:
            if attempt.listener is not None:
                attempt.listener(seen)
            request = attempt.request
            stop = bool(self._engine.stops(request, slice(None), seen.guess[None], seen.q[None])[0])
            if not stop and attempt.steps < request.max_think_steps:
                return True
            self._done(attempt, seen.guess, attempt.steps, stop, seen.q)
        except BaseException as error:  # of whoever listens, or of a task: the rows beside go on
            self._fail(attempt.ticket, error)
        return False

    def _stays(self, attempt: Attempt) -> bool:
        """Whether anybody waits for an attempt, and for no other more."""
        ticket = attempt.ticket
        with self._work:
            if not self._wanted(attempt):
                return False
            if self._queue and attempt.variant > min(ticket.begun):
                ticket.put_back(attempt.variant)
                return False
        if ticket.too_late:
            self._fail(ticket, _too_late(ticket))
        return not ticket.future.done()

    def _done(self, attempt: Attempt, guess: np.ndarray, steps: int, halted: bool, q: np.ndarray) -> None:
        ticket = attempt.ticket
        done = attempt.done(self._engine, guess, steps, halted, q)
        with self._work:
            if not self._wanted(attempt):
                return
            outcome = ticket.ended(attempt.variant, done)
            if outcome is None and not ticket.begun:
                self._push(ticket)
        if outcome is not None:
            with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
                ticket.future.set_result(outcome)

    def _fail(self, ticket: Ticket, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            ticket.future.set_exception(error)


def _too_late(ticket: Ticket) -> DeadlinePassed:
    return DeadlinePassed(f"not answered within {ticket.seconds:g} seconds; allow more, or ask when less is asked")
