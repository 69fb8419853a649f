"""Ctrl-C, SIGTERM and SIGHUP as wishes: the step is finished and the run saved; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from ..signals import STOP_SIGNALS


class Stopping:
    """Inside it, ``asked`` is the number of the signal that asked to stop, or 0."""

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in STOP_SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *exc: object) -> None:
        self._restore()
