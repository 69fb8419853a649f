"""Workers of this machine: engines of one thread, each in a process of its own, whose end is no other's."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from ..bundle import Bundle
from ..errors import InputError
from ..runtimes import load_engine
from ..runtimes.loader import task_of
from ..solve.scheduler import Scheduler
from ..tasks import Task
from ..tasks.parallel import main_left_out
from .answers import Answered, Asking, answer
from .crew import Asked, Piece, WorkerLost

_SECONDS_TO_DIE = 5.0


class LocalWorker:
    """A process, and the next one where that is lost."""

    def __init__(self, bundle: Bundle, asking: Asking, asked: Asked) -> None:
        self._bundle, self._asking, self._asked = bundle, asking, asked
        self._process: Any = None
        self._changing, self._stopped = threading.Lock(), False

    def start(self) -> None:
        # Fresh, because a fork of a process whose libraries run threads may hang.
        context = multiprocessing.get_context("spawn")
        ours, its = context.Pipe()
        # It knows no task that was registered here, but what unpickles one registers it.
        task = task_of(self._bundle)
        process = context.Process(target=_work, args=(its, self._bundle, self._asking, task), daemon=True)
        with self._changing:
            if self._stopped:
                raise WorkerLost("nobody waits for it")
            with main_left_out(task), _uninterrupted():
                process.start()
            self._process, self._connection = process, ours
        its.close()  # or its end would not be noticed
        try:
            self._get()
        except WorkerLost as lost:
            if type(task).__module__ == "__main__":
                raise InputError(
                    f"{task.name}: no process starts that finds its class ({lost}); define it in a module of "
                    "its own, or call this below `if __name__ == '__main__':`, in a file"
                ) from None
            raise

    def answer(self, piece: Piece) -> Answered:
        with suppress(OSError):  # where it is gone, its answer will not come
            self._connection.send(self._asked(piece))
        return Answered(**self._get())

    def stop(self) -> None:
        with self._changing:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
                self._process.join(_SECONDS_TO_DIE)

    def _get(self) -> Any:
        """What it says next; what was raised there is raised here."""
        try:
            came = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_SECONDS_TO_DIE)
            self._connection.close()
            raise WorkerLost(f"process {self._process.pid} {_ended(self._process.exitcode)}") from None
        if isinstance(came, Exception):
            raise came
        return came


def _ended(code: int | None) -> str:
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"ended with exit code {code}"
    known = {each.value: each.name for each in signal.Signals}
    return f"was ended by {known.get(-code, f'signal {-code}')}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A block in which processes start that no Ctrl-C reaches, which goes to all that run in a terminal."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, bundle: Bundle, asking: Asking, task: Task) -> None:
    """What runs in the process: None when it is ready, then the arrays of :class:`Answered` for each piece."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # nobody waits any more
        try:
            scheduler = Scheduler(load_engine(bundle, threads=1))
            connection.send(None)
            while True:
                questions, identifiers = connection.recv()
                connection.send(answer(scheduler, questions, identifiers, asking).arrays())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # it is told there
            connection.send(error)
