"""Workers, each in a thread that waits for it: pieces of a job go to whoever is free, again where one is lost."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import HrmEdgeError, InputError
from ..progress import Say
from .answers import Answered

_LOSSES = 4  # of workers, the last three over one row alone, until that is taken for what ends them
_FAILED_STARTS = 4  # for each worker, all of them in a row without an answer, until nothing more is expected
_LONGEST_WAIT = 30.0  # seconds between starts of one worker
_SECONDS_TO_END = 5.0  # of workers that are at work when nobody waits for them any more
_QUIET = 60.0  # seconds without an answer until somebody is told


# The questions [n, S] of a piece that can be asked, and int32[n] identifiers beside them, NOT_TOLD among them.
Asked = Callable[["Piece"], tuple[np.ndarray, np.ndarray]]


class WorkerLost(Exception):
    """A worker is gone, with whatever it was doing."""


@dataclass(frozen=True)
class Piece:
    """Rows ``first`` to ``last`` of a job; ``losses``: how many workers were lost over them."""

    first: int
    last: int
    losses: int = 0

    def again(self) -> list[Piece]:
        """What to ask after one more worker was lost: halves, so that a row which ends workers is found."""
        losses, middle = self.losses + 1, (self.first + self.last) // 2
        if losses < 2 or self.last - self.first == 1:
            return [Piece(self.first, self.last, losses)]
        return [Piece(self.first, middle, losses - 1), Piece(middle, self.last, losses - 1)]


class Worker(Protocol):
    """One engine somewhere. Each is used by one thread; after WorkerLost it is started anew."""

    def start(self) -> None:
        """Get ready, however long that takes. WorkerLost; InputError where it never will be."""

    def answer(self, piece: Piece) -> Answered:
        """The answers to a piece's rows. WorkerLost; InputError."""

    def stop(self) -> None:
        """End it, also while it is at work."""


def work(
    pieces: Iterable[Piece], workers: Sequence[Worker], say: Say = lambda line: None
) -> Generator[tuple[Piece, Answered | None], None, None]:
    """Each row's answers once, in pieces as they come; None: a piece of one row that ended several workers.

    Raises InputError of any worker, and where none will start.
    """
    waiting = _Waiting(pieces, len(workers))
    done: queue.SimpleQueue[tuple[Piece, Answered | None] | Exception | str] = queue.SimpleQueue()
    threads = [threading.Thread(target=_serve, args=(worker, waiting, done.put), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    lost = 0
    try:
        while waiting.left:
            try:
                came = done.get(timeout=_QUIET)
            except queue.Empty:
                say(f"no answer for {_QUIET:.0f} s: {waiting.started} of {len(workers)} workers have started")
                continue
            if isinstance(came, str):
                lost += 1
                say(f"a worker was lost ({lost} so far): {came}")
                continue
            if isinstance(came, Exception):
                raise came
            waiting.left -= came[0].last - came[0].first
            yield came
    finally:
        waiting.close()
        for worker in workers:
            with suppress(Exception):
                worker.stop()
        until = time.monotonic() + _SECONDS_TO_END
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


class _Waiting:
    """Pieces that nobody has, for all workers; `left`: rows that were not answered."""

    def __init__(self, pieces: Iterable[Piece], workers: int) -> None:
        self._pieces, self._workers, self._failed = deque(pieces), workers, 0
        self._changed = threading.Condition()
        self._closed = False
        self.left = sum(piece.last - piece.first for piece in self._pieces)
        self.started = 0
        self.failed_starts = 0

    def take(self) -> Piece | None:
        """The next piece, when there is one; None at the end."""
        with self._changed:
            self._failed = 0  # who asks for more has started, or answered
            self._changed.wait_for(lambda: self._closed or self._pieces)
            return None if self._closed else self._pieces.popleft()

    def put_back(self, pieces: list[Piece]) -> None:
        """First in turn: an early row that is late keeps nobody waiting at the end."""
        with self._changed:
            self._pieces.extendleft(reversed(pieces))
            self._changed.notify_all()

    def count(self, started: int) -> None:
        """Note one worker more or less."""
        with self._changed:
            self.started += started

    def failed(self) -> bool:
        """Note a start that failed; whether so many did that none will succeed. A host that dies takes a while to
        be known as dead, and the next workers are sent there too: while others answer, that is no reason to end."""
        with self._changed:
            self._failed += 1
            return self._failed >= _FAILED_STARTS * self._workers

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def closed(self, seconds: float) -> bool:
        """Whether the end comes within some time."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._closed, seconds))


def _serve(worker: Worker, waiting: _Waiting, tell: Callable[..., None]) -> None:
    """One worker's thread, from start to end."""
    failed = 0
    try:
        while not waiting.closed(0):
            try:
                worker.start()
            except WorkerLost as lost:
                failed += 1
                if waiting.failed():
                    raise InputError(f"workers do not start: {lost}") from None
                tell(str(lost))
                if waiting.closed(min(2.0**failed, _LONGEST_WAIT)):
                    return
                continue
            failed = 0
            waiting.count(+1)
            if not _answered(worker, waiting, tell):
                return
            waiting.count(-1)
    except HrmEdgeError as error:
        tell(error)
    except Exception as error:  # ours, which must reach whoever waits
        tell(error)


def _answered(worker: Worker, waiting: _Waiting, tell: Callable[..., None]) -> bool:
    """Answer pieces until there are no more (False) or the worker is lost (True)."""
    while (piece := waiting.take()) is not None:
        try:
            tell((piece, worker.answer(piece)))
        except WorkerLost as lost:
            tell(str(lost))
            if piece.losses + 1 >= _LOSSES and piece.last - piece.first == 1:
                tell((piece, None))
            else:
                waiting.put_back(piece.again())
            return True
    return False
