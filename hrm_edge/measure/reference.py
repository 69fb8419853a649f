"""The float reference: a checkpoint's answers, cached, and its network segment by segment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import numpy as np
import torch

from ..data.puzzles import PuzzleSet
from ..identifiers import rows_of
from ..models.checkpoint import Checkpoint
from ..models.engine import ROWS as ENGINE_ROWS
from ..models.engine import TorchEngine
from ..models.hrm import HRM
from ..models.network import device_of
from ..progress import Progress
from ..runtimes import Answers
from ..runtimes.engine import joined
from .cache import cache_file, cached_answers, read_answers
from .drift import SegmentNetwork

# Rows that one thread thinks over together: with as many threads as cores, each on rows of its own, PyTorch answers
# `sudoku-9x9` half as fast again as with all of them on each product, and alike on any number of cores.
ROWS = 32


def reference_answers(
    checkpoint: Checkpoint,
    puzzles: PuzzleSet,
    *,
    max_think_steps: int | None = None,
    halt: str = "learned",
    progress: Progress | None = None,
) -> Answers:
    """The reference's answers to `puzzles`, from the cache when they were computed before."""
    settings: dict[str, Any] = {"max_think_steps": max_think_steps, "halt": halt}

    def compute() -> Answers:
        return _computed(checkpoint, puzzles, settings, progress)

    return cached_answers(_KIND, _key(checkpoint, **settings), puzzles, compute)


def _computed(
    checkpoint: Checkpoint, puzzles: PuzzleSet, settings: dict[str, Any], progress: Progress | None
) -> Answers:
    parts: list[Answers] = []
    with _callers(checkpoint) as (count, each, pool):
        stopped = Event()
        engine = TorchEngine(checkpoint, streams=count, stopped=stopped)

        def solve(rows: np.ndarray) -> Answers:
            some = puzzles.select(rows)
            return engine.solve(some.questions, puzzle_identifiers=some.identifiers, **settings)

        try:
            for answers in pool.map(solve, np.split(np.arange(len(puzzles)), range(each, len(puzzles), each))):
                parts.append(answers)
                if progress is not None:
                    progress(f"solving with {engine.backend}", sum(len(part.steps) for part in parts), len(puzzles))
        finally:  # after Ctrl-C, or another's failure, each would think all its rows to the end
            stopped.set()
    return joined(parts)


def _apart(checkpoint: Checkpoint) -> bool:
    """Whether several may ask at once: not on a GPU, nor of another's network, which may keep things to itself."""
    return isinstance(checkpoint.model, HRM) and device_of(checkpoint.model).type == "cpu"


@contextmanager
def _callers(checkpoint: Checkpoint) -> Iterator[tuple[int, int, Executor]]:
    """(how many ask at once, of how many rows, their threads)."""
    before = torch.get_num_threads()
    count, rows, each = (before, ROWS, 1) if _apart(checkpoint) else (1, ENGINE_ROWS, before)
    # PyTorch's number is that of the thread which sets it, and of those that come later.
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,))
    try:
        yield count, rows, pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def has_reference_answers(checkpoint: Checkpoint, puzzles: PuzzleSet) -> bool:
    """Whether :func:`reference_answers` would find them ready, learned halting within the usual segments."""
    return read_answers(cache_file(_KIND, _key(checkpoint, None, "learned"), puzzles), puzzles) is not None


_KIND = "reference"


def _key(checkpoint: Checkpoint, max_think_steps: int | None, halt: str) -> dict[str, Any]:
    """What the answers depend on besides the puzzles and the code."""
    return {
        **identity(checkpoint),
        "max_think_steps": max_think_steps or checkpoint.config.halt_max_steps,
        "halt": halt,
        "device": str(device_of(checkpoint.model)),
        "precision": torch.get_float32_matmul_precision(),
        "threads": ["one", ROWS] if _apart(checkpoint) else torch.get_num_threads(),  # sums are split among them
    }


def identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """What answers depend on of a checkpoint: weights, config, and whose embedding each row of its table is."""
    kept = checkpoint.kept_identifiers
    return {
        "checkpoint": checkpoint.content_hash,
        "config": checkpoint.config.to_dict(),
        "identifiers": None if kept is None else kept.tolist(),
    }


# -- the reference segment by segment ------------------------------------------------------------------


def reference_segments(checkpoint: Checkpoint) -> SegmentNetwork:
    """The checkpoint's network as numpy calls, for :func:`hrm_edge.measure.drift.roll_out`."""
    model, kept = checkpoint.model.eval(), checkpoint.kept_identifiers
    device = device_of(model)

    @torch.inference_mode()
    def start(tokens: np.ndarray, identifiers: np.ndarray | None = None) -> list[np.ndarray]:
        rows = None if identifiers is None else torch.from_numpy(rows_of(identifiers, kept)).to(device)
        return [array.float().cpu().numpy() for array in model.start(torch.from_numpy(tokens).to(device), rows)]

    @torch.inference_mode()
    def segment(*arrays: np.ndarray) -> list[np.ndarray]:
        outputs = model.segment(*(torch.from_numpy(array).to(device) for array in arrays))
        return [array.float().cpu().numpy() for array in outputs]

    return SegmentNetwork(start, segment, checkpoint.config.no_ACT_continue, state=tuple(model.state))
