"""How many puzzles a model solves after each number of segments: while it trains, and for its card."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..models import HRM
from .losses import labels_of, solved
from .metrics import Metrics

EVAL_SEGMENTS = (1, 2, 4, 8, 16)
FINAL_SEGMENTS = (*EVAL_SEGMENTS, 32)


@torch.inference_mode()
def exact_by_segments(
    model: HRM, puzzles: PuzzleSet, segments: tuple[int, ...], batch: int = 64
) -> dict[str, float]:
    """Part of the puzzles solved after each number of segments, without early halting.

    Puzzles without any labelled cell (ARC test inputs whose answer is kept secret) do not count.
    """
    known = np.flatnonzero([] if puzzles.answers is None else puzzles.answers.any(axis=1))
    puzzles = puzzles.select(known)
    if not len(puzzles):
        raise InputError("none of the puzzles to measure on has an answer; name others with --test")
    assert puzzles.answers is not None
    right = dict.fromkeys(segments, 0)
    device = model.H_init.device
    for start in range(0, len(puzzles), batch):
        tokens = torch.from_numpy(puzzles.questions[start : start + batch]).long().to(device)
        answers = labels_of(torch.from_numpy(puzzles.answers[start : start + batch]).long()).to(device)
        e = model.embed(tokens, identifiers_of(puzzles, start, len(tokens), device))
        z_H, z_L = model.initial_state(len(tokens))
        for k in range(1, max(segments) + 1):
            z_H, z_L, logits, _ = model.segment(z_H, z_L, e)
            if k in right:
                right[k] += int(solved(logits, answers).sum())
    return {str(k): count / len(puzzles) for k, count in right.items()}


def identifiers_of(puzzles: PuzzleSet, start: int, count: int, device: torch.device) -> torch.Tensor | None:
    """int64 ``[count]`` of the puzzles from row ``start`` on, or None where they have no identifiers."""
    if puzzles.identifiers is None:
        return None
    return torch.from_numpy(puzzles.identifiers[start : start + count]).long().to(device)


def by_source(sets: list[PuzzleSet], most: int) -> dict[str, PuzzleSet]:
    """The puzzles that a card measures on: at most ``most`` of each source."""
    found: dict[str, PuzzleSet] = {}
    for puzzles in sets:
        for source in sorted(set(puzzles.sources)):
            rows = np.flatnonzero([name == source for name in puzzles.sources])
            name = source if source not in found else f"{source} of {puzzles.name}"
            found[name] = puzzles.select(rows).take(most, 0)
    return found


def accuracy(model: HRM, puzzles: dict[str, PuzzleSet], metrics: Metrics, step: int, what: str) -> dict[str, Any]:
    """A finished model's accuracy by source and number of segments; ``what`` tells several models apart."""
    found = {}
    for source, chosen in puzzles.items():
        metrics.say(f"measuring on {len(chosen)} puzzles of {source}" + (f" ({what})" if what else ""))
        exact = exact_by_segments(model, chosen, FINAL_SEGMENTS)
        found[source] = {"n": len(chosen), "exact_by_segments": exact}
        measured = {"measured": what} if what else {}
        metrics.write({"step": step, "source": source, **measured, **found[source]}, 1.0)
    return found
