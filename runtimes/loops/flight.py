"""What both loops on the host share: puzzles fly as slots get free, and their answers are collected."""

from __future__ import annotations

import numpy as np

from ..engine import Answers, Engine, Flight, Request


def fly(engine: Engine, flight: Flight, request: Request) -> Answers:
    """Continuous batching: a row that stops leaves at once, so its answer cannot change, and the next waiting
    puzzle takes its place."""
    results = Results(request, engine.task.seq_len)
    identifiers = request.puzzle_identifiers
    rows, steps = np.zeros(0, int), np.zeros(0, np.int32)  # in flight: puzzles' numbers, and segments so far
    waiting = 0  # the next puzzle nobody has thought about yet
    while waiting < len(request.tokens) or len(rows):
        fresh = np.arange(waiting, min(waiting + flight.rows - len(rows), len(request.tokens)))
        if len(fresh):
            waiting += len(fresh)
            flight.put(request.tokens[fresh], None if identifiers is None else identifiers[fresh])
            rows, steps = np.concatenate([rows, fresh]), np.concatenate([steps, np.zeros(len(fresh), np.int32)])
        seen = flight.think()
        steps = steps + 1
        stop = engine.stops(request, rows, seen.guess, seen.q)
        done = stop | (steps >= request.max_think_steps)
        results.record(rows, steps, seen.guess, seen.q, stop, done)
        if done.any():
            flight.keep(~done)
            rows, steps = rows[~done], steps[~done]
    return results.answers()


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
