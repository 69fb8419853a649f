"""Time that passed, that this process computed, and that it waited for a CPU which others had."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

# Share of the time spent waiting for a CPU from which no ratio is told: it would be the other work's.
MOST_WAITING = 0.2


@dataclass(frozen=True)
class Span:
    """Seconds. ``waited``: of the thread that waited longest, as all others end up waiting for that one."""

    seconds: float
    cpu: float  # of all threads together, those that only spin included
    waited: float

    @property
    def waiting(self) -> float:
        """Share of the time in which a thread was ready to run and had no CPU; 0 where the system does not tell."""
        return min(1.0, self.waited / self.seconds) if self.seconds > 0 else 0.0


class Clock:
    """Started as it is made."""

    def __init__(self) -> None:
        self._waited = _waited()
        self._cpu = time.process_time()
        self._begin = time.perf_counter()

    def stop(self) -> Span:
        """What passed since."""
        seconds, cpu = time.perf_counter() - self._begin, time.process_time() - self._cpu
        longest = max((now - self._waited.get(thread, 0.0) for thread, now in _waited().items()), default=0.0)
        return Span(seconds, cpu, max(0.0, longest))


def _waited() -> dict[str, float]:
    """By thread of this process, seconds in which it was ready to run and another had its CPU (Linux tells)."""
    found = {}
    try:
        for thread in os.listdir("/proc/self/task"):
            try:
                found[thread] = int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]) * 1e-9
            except (OSError, IndexError, ValueError):  # it ended meanwhile
                continue
    except OSError:
        pass
    return found
