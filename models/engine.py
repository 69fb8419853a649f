"""The float engine: a checkpoint run by PyTorch straight from the definition."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

import numpy as np
import torch

from ..runtimes import Answers, Engine
from ..runtimes.engine import Flight, Request, Segments, joined
from .checkpoint import Checkpoint
from .network import device_of

# Rows thought over together; bounds memory at paper size.
ROWS = 64


class TorchEngine(Engine):
    """PyTorch eager, float32: what every exported artifact is compared with and timed against.

    Deliberately plain. Rows start together, a row that halts leaves the batch with its answer, and the rest
    think on. `compiled` runs the segment through `torch.compile` instead of eagerly. Once `stopped` is set, whoever
    waits for an answer is given CancelledError after the segment that is under way.
    """

    loop, shows_segments = "host", True

    def __init__(
        self,
        checkpoint: Checkpoint,
        compiled: bool = False,
        streams: int = 1,
        stopped: threading.Event | None = None,
    ) -> None:
        config = checkpoint.config
        super().__init__(
            checkpoint.task,
            config.halt_max_steps,
            backend="torch.compile" if compiled else "torch",
            no_ACT_continue=config.no_ACT_continue,
            num_puzzle_identifiers=config.num_puzzle_identifiers,
            kept_identifiers=checkpoint.kept_identifiers,
            numbering=checkpoint.numbering,
            state=tuple(checkpoint.model.state),
            streams=streams,
        )
        self.stopped = stopped or threading.Event()
        self.model = checkpoint.model.eval()
        self.segment = torch.compile(self.model.segment) if compiled else self.model.segment
        # Other calls wait: more would share the same cores, and torch.compile may not be entered twice.
        self.turn = threading.Semaphore(1 if compiled else streams)

    @torch.inference_mode()
    def _solve(self, request: Request) -> Answers:
        identifiers = request.puzzle_identifiers
        parts = []
        with self.turn:
            for begin in range(0, len(request.tokens), ROWS):
                rows = np.arange(begin, min(begin + ROWS, len(request.tokens)))
                some = None if identifiers is None else identifiers[rows]
                parts.append(self._think(request, rows, some))
        return joined(parts)

    @contextmanager
    def flight(self, rows: int | None = None) -> Iterator[Flight]:
        yield _TorchFlight(self, rows or ROWS)

    def _think(self, request: Request, rows: np.ndarray, identifiers: np.ndarray | None) -> Answers:
        """Up to `max_think_steps` segments on a few rows; `active` are those that have not halted."""
        questions = request.tokens[rows]
        B, T = len(questions), request.max_think_steps
        device = device_of(self.model)
        answers = Answers(
            tokens=np.zeros_like(questions),
            steps=np.zeros(B, np.int32),
            halted=np.zeros(B, bool),
            q=np.zeros((B, 2), np.float32),
        )
        trace: list[np.ndarray] = []
        puzzles = None if identifiers is None else torch.from_numpy(identifiers).to(device)
        e, *state = self.model.start(torch.from_numpy(questions).to(device), puzzles)
        active = np.arange(B)
        for step in range(1, T + 1):
            if self.stopped.is_set():
                raise CancelledError
            *state, logits, q = self.segment(*[*state, e])
            guess = logits.argmax(-1).to(torch.int32).cpu().numpy()
            values = q.float().cpu().numpy()
            stop = self.stops(request, rows[active], guess, values)
            answers.tokens[active] = guess
            answers.steps[active] = step
            answers.halted[active] = stop
            answers.q[active] = values
            if request.trace:
                trace.append(answers.tokens.copy())
            if stop.all():
                break
            if stop.any():
                keep = torch.from_numpy(~stop).to(device)
                state, e = [tensor[keep] for tensor in state], e[keep]
                active = active[~stop]
        return dataclasses.replace(answers, trace=np.stack(trace)) if request.trace else answers


class _TorchFlight(Flight):
    """Rows whose state stays where the model is. Others have their turn while nobody asks for a segment."""

    def __init__(self, engine: TorchEngine, rows: int) -> None:
        self.rows = rows
        self._engine = engine
        self._held: list[torch.Tensor] = []  # (e, *state), each [b, …]

    @torch.inference_mode()
    def put(self, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        device = device_of(self._engine.model)
        puzzles = None if puzzle_identifiers is None else torch.from_numpy(puzzle_identifiers).to(device)
        with self._engine.turn:
            fresh = self._engine.model.start(torch.from_numpy(tokens).to(device), puzzles)
            joined = zip(self._held, fresh, strict=True) if self._held else ((tensor,) for tensor in fresh)
            self._held = [torch.cat(tensors) for tensors in joined]

    @torch.inference_mode()
    def think(self) -> Segments:
        e, *state = self._held
        with self._engine.turn:
            *state, logits, q = self._engine.segment(*[*state, e])
        self._held = [e, *state]
        seen = [tensor.float().cpu().numpy() for tensor in (logits, q, *state)]
        return Segments(seen[0].argmax(-1).astype(np.int32), seen[1], seen[0], tuple(seen[2:]))

    def keep(self, rows: np.ndarray) -> None:
        kept = torch.from_numpy(rows)
        self._held = [tensor[kept.to(tensor.device)] for tensor in self._held] if rows.any() else []
