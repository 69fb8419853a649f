"""Signals that ask a program to stop, held off where they would cut something in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

# What asks a program to stop; SIGHUP is no signal on Windows.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A block that no wish to stop cuts in two: a signal that comes meanwhile acts at its end."""
    came: list[int] = []
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():  # where handlers run, and which alone sets them
            for number in STOP_SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    before[number] = handler
                    signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            before[number](number, None)


def once(call: Callable[[], object]) -> None:
    """Undisturbed, also where a wish to stop comes just before that."""
    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True
        call()

    try:
        with undisturbed():
            begin()
    except BaseException:
        if not begun:
            with undisturbed():
                begin()
        raise
