"""The float reference: a checkpoint's answers, cached, and its network segment by segment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..data.puzzles import PuzzleSet
from ..identifiers import rows_of
from ..models.checkpoint import Checkpoint
from ..models.engine import TorchEngine
from ..progress import Progress
from ..runtimes import Answers
from .accuracy import answer_all
from .cache import cache_file, cached_answers, read_answers
from .drift import SegmentNetwork


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
        return answer_all(TorchEngine(checkpoint), puzzles, **settings, progress=progress)

    return cached_answers(_KIND, _key(checkpoint, **settings), puzzles, compute)


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
        "device": str(checkpoint.model.H_init.device),
        "precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),  # sums are split among them
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

    return SegmentNetwork(start, segment, checkpoint.config.no_ACT_continue)
