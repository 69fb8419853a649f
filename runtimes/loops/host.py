"""Halting outside the artifact: one segment at a time, finished rows make room for waiting puzzles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..engine import Answers, Engine, Request, SegmentOutput

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

    Continuous batching: up to ``slots`` rows are in flight; a row that stops leaves at once, so its answer
    cannot change, and the next waiting puzzle takes its place. Nothing is kept between calls, so the engine
    is as thread-safe as its callables. With a fixed ``batch`` the callables always get exactly that many
    rows, short batches padded with copies of their last row.
    """

    loop = "host"

    start: Start
    segment: Segment
    slots: int = field(default=DEFAULT_SLOTS, kw_only=True)

    def __post_init__(self) -> None:
        self.slots = self.batch or self.slots

    def _solve(self, request: Request) -> Answers:
        results = Results(request, self.task.seq_len)
        none = np.zeros(0, np.int32)
        flight = _Flight(none, none, none, ())
        waiting = 0  # the next puzzle nobody has thought about yet
        while waiting < len(request.tokens) or len(flight.rows):
            free = self.slots - len(flight.rows)
            if free and waiting < len(request.tokens):
                fresh = np.arange(waiting, min(waiting + free, len(request.tokens)))
                waiting = int(fresh[-1]) + 1
                e, *state = self._begin(request, fresh)
                known = (flight.e, *flight.state) if len(flight.rows) else (e, *state)
                for i, (tensor, before) in enumerate(zip((e, *state), known, strict=True)):
                    self.require(f"state {i}" if i else "e", tensor, (len(fresh), *before.shape[1:]))
                flight = flight.joined(_Flight(fresh, np.zeros(len(fresh), np.int32), e, tuple(state)))
            *state, logits, q = self._padded(self.segment, *flight.state, flight.e)
            for i, (tensor, before) in enumerate(zip(state, flight.state, strict=True), 1):
                self.require(f"state {i}", tensor, before.shape)
            self.require_guess(logits, q, len(flight.rows))
            flight = _Flight(flight.rows, flight.steps + 1, flight.e, tuple(state))
            guess = logits.argmax(axis=-1).astype(np.int32)
            stop = self.stops(request, flight.rows, guess, q)
            done = stop | (flight.steps >= request.max_think_steps)
            results.record(flight.rows, flight.steps, guess, q, stop, done)
            if done.any():
                flight = flight.kept(~done)
        return results.answers()

    def segments(self, request: Request) -> Iterator[SegmentOutput]:
        e, *state = self._begin(request, np.arange(1))
        while True:
            *state, logits, q = self._padded(self.segment, *state, e)
            self.require_guess(logits, q, 1)
            guess = logits[0].argmax(axis=-1).astype(np.int32)
            yield SegmentOutput(guess, q[0], logits[0], tuple(tensor[0] for tensor in state))

    def _begin(self, request: Request, rows: np.ndarray) -> Sequence[np.ndarray]:
        if request.puzzle_identifiers is None:
            return self._padded(self.start, request.tokens[rows])
        return self._padded(self.start, request.tokens[rows], request.puzzle_identifiers[rows])

    def _padded(self, function: Callable[..., Sequence[np.ndarray]], *arrays: np.ndarray) -> Sequence[np.ndarray]:
        """Call with as many rows as the artifact wants, and give back only the real ones."""
        count = len(arrays[0])
        missing = (self.batch or count) - count
        if not missing:
            return function(*arrays)
        return [output[:count] for output in function(*(padded(array, missing) for array in arrays))]


def padded(array: np.ndarray, missing: int) -> np.ndarray:
    """Copies of the last row make up what a fixed batch lacks: they halt no later than that row does."""
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


class _Flight(NamedTuple):
    """The rows being thought over: their puzzle's number, segments so far, and state."""

    rows: np.ndarray
    steps: np.ndarray
    e: np.ndarray
    state: tuple[np.ndarray, ...]

    def joined(self, fresh: _Flight) -> _Flight:
        if not len(self.rows):
            return fresh
        return _Flight(
            np.concatenate([self.rows, fresh.rows]),
            np.concatenate([self.steps, fresh.steps]),
            np.concatenate([self.e, fresh.e]),
            tuple(np.concatenate(pair) for pair in zip(self.state, fresh.state, strict=True)),
        )

    def kept(self, keep: np.ndarray) -> _Flight:
        rows, steps, e, state = self
        return _Flight(rows[keep], steps[keep], e[keep], tuple(tensor[keep] for tensor in state))


class Results:
    """Collects each row's last guess, and every guess when a trace is wanted."""

    def __init__(self, request: Request, length: int) -> None:
        count = len(request.tokens)
        self._tokens = np.zeros((count, length), np.int32)
        self._steps = np.zeros(count, np.int32)
        self._halted = np.zeros(count, bool)
        self._q = np.zeros((count, 2), np.float32)
        self._guesses: list[list[np.ndarray]] | None = [[] for _ in range(count)] if request.trace else None

    def record(
        self,
        rows: np.ndarray,
        steps: np.ndarray,
        guess: np.ndarray,
        q: np.ndarray,
        stop: np.ndarray,
        done: np.ndarray,
    ) -> None:
        if self._guesses is not None:
            for row, tokens in zip(rows, guess, strict=True):
                self._guesses[row].append(tokens)
        finished = rows[done]
        self._tokens[finished] = guess[done]
        self._steps[finished] = steps[done]
        self._halted[finished] = stop[done]
        self._q[finished] = q[done]

    def answers(self) -> Answers:
        trace = None
        if self._guesses is not None:
            longest = int(self._steps.max())
            padded = [guesses + [guesses[-1]] * (longest - len(guesses)) for guesses in self._guesses]
            trace = np.stack([np.stack(guesses) for guesses in padded], axis=1)
        return Answers(self._tokens, self._steps, self._halted, self._q, trace)
