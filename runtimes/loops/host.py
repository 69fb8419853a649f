"""Halting outside the artifact: one segment at a time, finished rows make room for waiting puzzles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..engine import Answers, Engine, Flight, Request, Segments
from .flight import fly

# (tokens int32[b, S] (, puzzle_identifiers int32[b])) → (e, *state), each float32[b, …]
Start = Callable[..., Sequence[np.ndarray]]
# (*state, e) → (*state, logits float32[b, S, V], q float32[b, 2])
Segment = Callable[..., Sequence[np.ndarray]]

# Rows thought over together when the artifact takes any number of them. On a CPU more is not faster: a row's
# share of a segment took 2.0, 2.3 and 3.1 ms with 1, 8 and 32 rows (OpenVINO, D 128, two cores), as the state
# outgrows the cache; several rows do keep more cores busy.
DEFAULT_SLOTS = 8


@dataclass(eq=False, repr=False)
class HostLoop(Engine):
    """An engine made of two callables, ``start`` and ``segment`` (see the types above).

    Up to ``slots`` rows are in flight (:func:`~.flight.fly`). Nothing is kept between calls, so the engine is as
    thread-safe as its callables. With a fixed ``batch`` the callables always get exactly that many
    rows, short batches padded with copies of their last row.
    """

    loop, shows_segments = "host", True

    start: Start
    segment: Segment
    slots: int = field(default=DEFAULT_SLOTS, kw_only=True)

    def __post_init__(self) -> None:
        self.slots = self.batch or self.slots

    def _solve(self, request: Request) -> Answers:
        with self.flight() as flight:
            return fly(self, flight, request)

    @contextmanager
    def flight(self, rows: int | None = None) -> Iterator[Flight]:
        yield HostFlight(self, self.batch or rows or self.slots)

    def begin(self, tokens: np.ndarray, identifiers: np.ndarray | None) -> Sequence[np.ndarray]:
        """(e, *state) of puzzles ``tokens`` int32[n, S]."""
        return self.padded(self.start, *((tokens,) if identifiers is None else (tokens, identifiers)))

    def padded(self, function: Callable[..., Sequence[np.ndarray]], *arrays: np.ndarray) -> Sequence[np.ndarray]:
        """Call with as many rows as the artifact wants, and give back only the real ones."""
        count = len(arrays[0])
        missing = (self.batch or count) - count
        if not missing:
            return function(*arrays)
        return [output[:count] for output in function(*(padded(array, missing) for array in arrays))]


def padded(array: np.ndarray, missing: int) -> np.ndarray:
    """Copies of the last row make up what a fixed batch lacks: they halt no later than that row does."""
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


class HostFlight(Flight):
    """Rows whose state passes through the host: those in flight alone are thought over, where the artifact lets."""

    def __init__(self, engine: HostLoop, rows: int) -> None:
        self.rows = rows
        self._engine = engine
        self._held: list[np.ndarray] = []  # (e, *state), each [b, …]

    def put(self, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        fresh = self._engine.begin(tokens, puzzle_identifiers)
        for i, (tensor, held) in enumerate(zip(fresh, self._held or fresh, strict=True)):
            self._engine.require(f"state {i}" if i else "e", tensor, (len(tokens), *held.shape[1:]))
        joined = [np.concatenate(pair) for pair in zip(self._held, fresh, strict=True)] if self._held else [*fresh]
        self._held = joined

    def think(self) -> Segments:
        e, *before = self._held
        *state, logits, q = self._engine.padded(self._engine.segment, *before, e)
        for i, (tensor, held) in enumerate(zip(state, before, strict=True), 1):
            self._engine.require(f"state {i}", tensor, held.shape)
        self._engine.require_guess(logits, q, len(e))
        self._held = [e, *state]
        return Segments(self._engine.guess_of(logits), q, logits, tuple(state))

    def keep(self, rows: np.ndarray) -> None:
        self._held = [tensor[rows] for tensor in self._held] if rows.any() else []
