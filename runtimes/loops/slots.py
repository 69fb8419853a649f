"""Halting outside the artifact with the state inside it: slots that keep z_H and z_L on the device.

A host loop that carries its state through the host copies it twice a segment. Here each of an artifact's rows
is a *slot*: a puzzle is put into it once, every call thinks on about all slots, and only guesses come back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..base import Idle
from ..engine import Answers, Engine, Request, SegmentOutput
from .host import Results


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

    loop = "host"

    make: Callable[[], Slots]

    def __post_init__(self) -> None:
        self._idle = Idle(self.make)

    def _solve(self, request: Request) -> Answers:
        with self._idle.one() as slots:
            return self._run(slots, request)

    def segments(self, request: Request) -> Iterator[SegmentOutput]:
        assert self.batch is not None
        with self._idle.one() as slots:
            slots.put(np.zeros(1, int), request.tokens, request.puzzle_identifiers)
            with contextlib.suppress(
                GeneratorExit
            ):  # who looked has seen enough, and the slots are as good as before
                while True:
                    logits, q = slots.think()
                    self.require_guess(logits, q, self.batch)
                    yield SegmentOutput(logits[0].argmax(axis=-1).astype(np.int32), q[0], logits[0])

    def _run(self, slots: Slots, request: Request) -> Answers:
        results = Results(request, self.task.seq_len)
        assert self.batch is not None
        rows = np.full(self.batch, -1)  # which puzzle each slot thinks about; -1: none
        steps = np.zeros(self.batch, np.int32)
        waiting = 0
        while waiting < len(request.tokens) or (rows >= 0).any():
            free = np.flatnonzero(rows < 0)[: len(request.tokens) - waiting]
            if len(free):
                fresh = np.arange(waiting, waiting + len(free))
                waiting += len(free)
                rows[free], steps[free] = fresh, 0
                identifiers = request.puzzle_identifiers
                slots.put(free, request.tokens[fresh], None if identifiers is None else identifiers[fresh])
            logits, q = slots.think()
            self.require_guess(logits, q, self.batch)
            steps += 1
            busy = np.flatnonzero(rows >= 0)
            guess = logits[busy].argmax(axis=-1).astype(np.int32)
            stop = self.stops(request, rows[busy], guess, q[busy])
            done = stop | (steps[busy] >= request.max_think_steps)
            results.record(rows[busy], steps[busy], guess, q[busy], stop, done)
            rows[busy[done]] = -1
        return results.answers()
