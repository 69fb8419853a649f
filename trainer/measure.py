"""How many puzzles a model solves after each number of segments: while it trains, and for its card."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..halting import halting_head
from ..models import HRM
from ..models.network import Wrapped, device_of
from .losses import labels_of, solved
from .metrics import Metrics

EVAL_SEGMENTS = (1, 2, 4, 8, 16)
FINAL_SEGMENTS = (*EVAL_SEGMENTS, 32)
FINAL_CALLS = (1, 4, 16, 64, 256)  # of a network whose segments are calls
_ROWS = 64  # puzzles that think together
_TIMED = 16  # puzzles from which the time that measuring takes is told
_LEAST = 16  # puzzles that a card measures on, however little time there is


@torch.inference_mode()
def solved_by_segment(
    model: HRM | Wrapped, puzzles: PuzzleSet, segments: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(segment, counted from 1, which of some puzzles are solved after it, their q) for all of them in turn.

    Nobody halts early, but where that would change no answer. Cells without a label do not count.
    """
    assert puzzles.answers is not None
    device, head = device_of(model), halting_head(model.config.no_ACT_continue)
    for start in range(0, len(puzzles), _ROWS):
        rows = slice(start, start + _ROWS)
        tokens = torch.from_numpy(puzzles.questions[rows]).long().to(device)
        labels = labels_of(torch.from_numpy(puzzles.answers[rows]).long()).to(device)
        identifiers = None
        if puzzles.identifiers is not None:
            identifiers = torch.from_numpy(puzzles.identifiers[rows]).long().to(device)
        e, *state = model.start(tokens, identifiers)
        exact, last_q = torch.zeros(len(tokens), dtype=torch.bool, device=device), torch.zeros(len(tokens), 2)
        last_q, going = last_q.to(device), torch.arange(len(tokens), device=device)
        for k in range(1, segments + 1):
            if len(going):
                *state, logits, q = model.segment(*[*state, e])
                exact[going], last_q[going] = solved(logits, labels[going]), q
                if model.config.keeps_answers:
                    stay = ~head.says_stop(q)
                    going, e, state = going[stay], e[stay], [tensor[stay] for tensor in state]
            yield k, exact.clone(), last_q.clone()


def exact_by_segments(model: HRM | Wrapped, puzzles: PuzzleSet, segments: tuple[int, ...]) -> dict[str, float]:
    """Part of the puzzles solved after each number of segments.

    Puzzles without any labelled cell (ARC test inputs whose answer is kept secret) do not count.
    """
    known = np.flatnonzero([] if puzzles.answers is None else puzzles.answers.any(axis=1))
    puzzles = puzzles.select(known)
    if not len(puzzles):
        raise InputError("none of the puzzles to measure on has an answer; name others with --test")
    right = dict.fromkeys(segments, 0)
    for k, exact, _ in solved_by_segment(model, puzzles, max(segments)):
        if k in right:
            right[k] += int(exact.sum())
    return {str(k): count / len(puzzles) for k, count in right.items()}


def by_source(sets: list[PuzzleSet], most: int) -> dict[str, PuzzleSet]:
    """The puzzles that a card measures on: at most ``most`` of each source."""
    found: dict[str, PuzzleSet] = {}
    for puzzles in sets:
        for source in sorted(set(puzzles.sources)):
            rows = np.flatnonzero([name == source for name in puzzles.sources])
            name = source if source not in found else f"{source} of {puzzles.name}"
            found[name] = puzzles.select(rows).take(most, 0)
    return found


def final_segments(model: HRM | Wrapped) -> tuple[int, ...]:
    """Numbers of segments after which a finished model is measured."""
    return FINAL_CALLS if model.config.keeps_answers else FINAL_SEGMENTS


def seconds_each(model: HRM | Wrapped, puzzles: PuzzleSet, most: int) -> float:
    """Seconds that measuring on a puzzle takes, told by a few, of ``most`` at most; 0 where none has an answer."""
    known = np.flatnonzero([] if puzzles.answers is None else puzzles.answers.any(axis=1))
    few = puzzles.select(known[: max(1, min(_TIMED, most // _TIMED))])
    if not len(few):
        return 0.0
    begun = time.perf_counter()
    exact_by_segments(model, few, final_segments(model))
    return (time.perf_counter() - begun) / len(few)


def affordable(most: int, seconds: float, each: float, times: float) -> int:
    """Puzzles, ``most`` at most, that ``seconds`` are enough for, at ``times`` so many ``each``; never too few."""
    return min(most, max(_LEAST, int(seconds / (each * times)))) if each * times else most


def accuracy(
    model: HRM | Wrapped, puzzles: dict[str, PuzzleSet], metrics: Metrics, step: int, what: str, each: float
) -> dict[str, Any]:
    """A finished model's accuracy by source and number of segments; ``what`` tells several models apart.

    ``each``: seconds that a puzzle takes, about.
    """
    found = {}
    for source, chosen in puzzles.items():
        about = f", about {each * len(chosen):.0f} s"
        metrics.say(f"measuring on {len(chosen)} puzzles of {source}" + (f" ({what})" if what else "") + about)
        exact = exact_by_segments(model, chosen, final_segments(model))
        found[source] = {"n": len(chosen), "exact_by_segments": exact}
        measured = {"measured": what} if what else {}
        metrics.write({"step": step, "source": source, **measured, **found[source]}, 1.0)
    return found
