"""Halting outside the artifact with the state inside it: slots that keep z_H and z_L on the device.

A host loop that carries its state through the host copies it twice a segment. Here each of an artifact's rows
is a *slot*: a puzzle is put into it once, every call thinks on about all slots, and only guesses come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..base import Idle
from ..engine import Answers, Engine, Flight, Request, Segments
from .flight import fly


class Slots(Protocol):
    """A batch of rows whose state the device keeps between calls. Serves one thread at a time."""

    def put(self, slots: np.ndarray, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        """Begin new puzzles ``tokens int32[n, S]`` (``puzzle_identifiers int32[n]``) in ``slots int[n]``.

        What was thought about there is forgotten; other slots are left as they are.
        """

    def think(self) -> tuple[np.ndarray, np.ndarray]:
        """One segment on every slot: (logits float32[rows, S, V], q float32[rows, 2]).

        Slots that nothing was ever put into give numbers that mean nothing.
        """


@dataclass(eq=False, repr=False)
class SlotLoop(Engine):
    """An engine made of slots: `make()` gives a fresh set of `batch` of them, one for every thread at once."""

    loop, shows_segments = "host", True

    make: Callable[[], Slots]

    def __post_init__(self) -> None:
        self._idle = Idle(self.make)

    def _solve(self, request: Request) -> Answers:
        with self.flight() as flight:
            return fly(self, flight, request)

    @contextmanager
    def flight(self, rows: int | None = None) -> Iterator[Flight]:
        with self._idle.one() as slots:
            yield _SlotFlight(self, slots)


class _SlotFlight(Flight):
    """Rows in flight, each in a slot of its own; what is in the others means nothing."""

    def __init__(self, engine: SlotLoop, slots: Slots) -> None:
        assert engine.batch is not None
        self.rows = engine.batch
        self._engine, self._slots = engine, slots
        self._taken = np.zeros(0, int)  # the slot of each row in flight

    def put(self, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        free = np.setdiff1d(np.arange(self.rows), self._taken)[: len(tokens)]
        self._slots.put(free, tokens, puzzle_identifiers)
        self._taken = np.concatenate([self._taken, free])

    def think(self) -> Segments:
        logits, q = self._slots.think()
        self._engine.require_guess(logits, q, self.rows)
        logits, q = logits[self._taken], q[self._taken]
        return Segments(self._engine.guess_of(logits), q, logits)

    def keep(self, rows: np.ndarray) -> None:
        self._taken = self._taken[rows]
