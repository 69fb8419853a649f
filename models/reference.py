"""The float reference: a checkpoint run by PyTorch straight from the definition, its answers cached."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..answer_cache import cache_file, cached_answers, read_answers
from ..drift import Segments
from ..evaluate import Progress, answer_all
from ..files import sha256
from ..identifiers import rows_of
from ..puzzles import PuzzleSet
from ..runtimes import Answers, Engine
from ..runtimes.base import Request
from .checkpoint import Checkpoint
from .hrm import halts

# Rows thought over together; bounds memory at paper size.
ROWS = 64


class TorchEngine(Engine):
    """PyTorch eager, float32: what every exported artifact is compared with and timed against.

    Deliberately plain. Rows start together, a row that halts leaves the batch with its answer, and the rest
    think on. `compiled` runs the segment through `torch.compile` instead of eagerly.
    """

    loop = "host"

    def __init__(self, checkpoint: Checkpoint, compiled: bool = False) -> None:
        config = checkpoint.config
        super().__init__(
            checkpoint.task,
            config.halt_max_steps,
            backend="torch.compile" if compiled else "torch",
            no_ACT_continue=config.no_ACT_continue,
            num_puzzle_identifiers=config.num_puzzle_identifiers,
            kept_identifiers=checkpoint.kept_identifiers,
        )
        self.model = checkpoint.model.eval()
        self._segment = torch.compile(self.model.segment) if compiled else self.model.segment
        # One solve at a time: two would share the same cores, and torch.compile may not be entered twice.
        self._turn = threading.Lock()

    @torch.inference_mode()
    def _solve(self, request: Request) -> Answers:
        identifiers = request.puzzle_identifiers
        parts = []
        with self._turn:
            for begin in range(0, len(request.tokens), ROWS):
                rows = slice(begin, begin + ROWS)
                some = None if identifiers is None else identifiers[rows]
                parts.append(self._think(request, request.tokens[rows], some))
        return _joined(parts)

    def _think(self, request: Request, questions: np.ndarray, identifiers: np.ndarray | None) -> Answers:
        """Up to `max_think_steps` segments on a few rows; `active` are those that have not halted."""
        B, T = len(questions), request.max_think_steps
        device = self.model.H_init.device
        answers = Answers(
            tokens=np.zeros_like(questions),
            steps=np.zeros(B, np.int32),
            halted=np.zeros(B, bool),
            q=np.zeros((B, 2), np.float32),
        )
        trace: list[np.ndarray] = []
        puzzles = None if identifiers is None else torch.from_numpy(identifiers).to(device)
        e = self.model.embed(torch.from_numpy(questions).to(device), puzzles)
        z_H, z_L = self.model.initial_state(B)
        active = np.arange(B)
        for step in range(1, T + 1):
            z_H, z_L, logits, q = self._segment(z_H, z_L, e)
            guess = logits.argmax(-1).to(torch.int32).cpu().numpy()
            if request.halt == "learned":
                stop = halts(q, self.no_ACT_continue).cpu().numpy()
            elif request.halt == "verified":
                stop = np.asarray(self.task.verify(questions[active], guess), bool)
            else:
                stop = np.zeros(len(active), bool)
            answers.tokens[active] = guess
            answers.steps[active] = step
            answers.halted[active] = stop
            answers.q[active] = q.float().cpu().numpy()
            if request.trace:
                trace.append(answers.tokens.copy())
            if stop.all():
                break
            if stop.any():
                keep = torch.from_numpy(~stop).to(device)
                z_H, z_L, e = z_H[keep], z_L[keep], e[keep]
                active = active[~stop]
        return Answers(
            answers.tokens, answers.steps, answers.halted, answers.q, np.stack(trace) if request.trace else None
        )


def _joined(parts: list[Answers]) -> Answers:
    """Groups of rows as one; a shorter trace goes on with its last guess."""
    names = ("tokens", "steps", "halted", "q")
    fields: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    traces = [part.trace for part in parts if part.trace is not None]
    if traces:
        longest = max(len(trace) for trace in traces)
        fields["trace"] = np.concatenate([t[np.minimum(np.arange(longest), len(t) - 1)] for t in traces], axis=1)
    return Answers(**fields)


# -- cached answers ------------------------------------------------------------------------------------


def reference_answers(
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    *,
    max_think_steps: int | None = None,
    halt: str = "learned",
    progress: Progress | None = None,
) -> Answers:
    """The reference's answers to `puzzles`, from the cache when they were computed before."""
    engine = TorchEngine(checkpoint)

    def compute() -> Answers:
        return answer_all(engine, puzzles, max_think_steps=max_think_steps, halt=halt, progress=progress)

    return cached_answers(_KIND, _key(checkpoint, puzzles, max_think_steps, halt), compute)


def has_reference_answers(
    checkpoint: Checkpoint, puzzles: PuzzleSet, *, max_think_steps: int | None = None, halt: str = "learned"
) -> bool:
    """Whether :func:`reference_answers` would find them ready."""
    file = cache_file(_KIND, _key(checkpoint, puzzles, max_think_steps, halt))
    return read_answers(file) is not None


_KIND = "reference"


def _key(checkpoint: Checkpoint, puzzles: PuzzleSet, max_think_steps: int | None, halt: str) -> dict[str, Any]:
    """Everything the answers depend on, the code that computes them and torch included."""
    here = Path(__file__).parent
    return {
        "checkpoint": checkpoint.content_hash,
        "puzzles": puzzles.content_hash(),
        "max_think_steps": max_think_steps or checkpoint.config.halt_max_steps,
        "halt": halt,
        "code": [sha256(here / name) for name in ("hrm.py", "family.py", "reference.py")],
        "torch": torch.__version__,
    }


# -- the reference segment by segment ------------------------------------------------------------------


def reference_segments(checkpoint: Checkpoint) -> Segments:
    """The checkpoint's network as numpy calls, for :func:`hrm_edge.drift.roll_out`."""
    model, kept = checkpoint.model.eval(), checkpoint.kept_identifiers
    device = model.H_init.device

    @torch.inference_mode()
    def start(tokens: np.ndarray, identifiers: np.ndarray | None = None) -> list[np.ndarray]:
        rows = None if identifiers is None else torch.from_numpy(rows_of(identifiers, kept)).to(device)
        e = model.embed(torch.from_numpy(tokens).to(device), rows)
        return [array.float().cpu().numpy() for array in (e, *model.initial_state(len(tokens)))]

    @torch.inference_mode()
    def segment(z_H: np.ndarray, z_L: np.ndarray, e: np.ndarray) -> list[np.ndarray]:
        states = [torch.from_numpy(state).to(device) for state in (z_H, z_L, e)]
        outputs = model.segment(states[0], states[1], states[2])
        return [array.float().cpu().numpy() for array in outputs]

    return Segments(start, segment, checkpoint.config.no_ACT_continue)
