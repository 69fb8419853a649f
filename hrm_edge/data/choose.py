"""Which puzzles a model is trained, calibrated and measured on where nobody says: the seeds, and the choice.

Seeds are kept apart here, so that nothing is measured on what it was made from: puzzle i of a task depends on the
seed, the difficulty and i alone. A checkpoint names its held-out puzzles in ``metadata["held_out"]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..precision import FP32
from ..progress import Progress
from ..tasks import Task
from .leaks import distinct_puzzles, fingerprints, seen_before
from .public_layout import split_within
from .puzzles import PuzzleSet, generate_puzzles, judged_only, load_puzzles, open_puzzles

# What no training run may see, and every measure of a shipped model is taken on.
HELD_OUT_SEED, HELD_OUT_PUZZLES = 20_260_101, 1000
HELD_OUT = {"seed": HELD_OUT_SEED, "difficulty": "ordinary", "n": HELD_OUT_PUZZLES}  # as a checkpoint says it
# What fixes a trained model's halting margin: so many puzzles at most.
MARGIN_SEED, MARGIN_PUZZLES = 20_260_102, 500
# What `train --data generated:N` learns.
TRAINING_SEED = 1
# What needs no more than a board of the right size: timing, a network without training.
ANY_SEED = 0
# Quantization looks at activations, and compares its choices, on puzzles this far from the held-out seed.
CALIBRATION_OFFSET, SELECTION_OFFSET = 100, 101


class Measurable(Protocol):
    """What is asked of a checkpoint: its task, and the puzzles that it was not trained on."""

    @property
    def path(self) -> Path: ...
    @property
    def task(self) -> Task: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


# -- training ------------------------------------------------------------------------------------------


def held_out_puzzles(task: Task) -> PuzzleSet:
    """What a training run is measured on, and may not learn."""
    return generate_puzzles(task, HELD_OUT_PUZZLES, HELD_OUT_SEED)


def margin_puzzles(task: Task, n: int = MARGIN_PUZZLES) -> PuzzleSet:
    """At most ``n`` for the halting margin alone, not trained on; of small boards some may also be held out."""
    return generate_puzzles(task, max(1, min(MARGIN_PUZZLES, n)), MARGIN_SEED)


# -- measuring -----------------------------------------------------------------------------------------


def gate_puzzles(checkpoint: Measurable, data: Path | str | None = None, n: int | None = None) -> PuzzleSet:
    """The puzzles to compare on: from `data`, else the checkpoint's own held-out ones (generated, seeded).

    `n` of them (default: the gate's number in full precision): the first n generated, or drawn with a fixed seed
    from a file; more begin with what fewer are. Of a file, puzzles are left out that have no label where only
    labels tell what is right; where it holds fewer than n, all are taken. Copies up to symmetry count once.
    """
    if n is not None and n < 1:
        raise InputError(f"--gate-puzzles must be at least 1, not {n}")
    n = n or FP32.gate_puzzles
    if data is not None:
        data = split_within(data, "test")
        if checkpoint.task.has_rules:  # all can be told: no other puzzle needs a look
            file = open_puzzles(data, checkpoint.task)
            return distinct_puzzles(file.checked(first_of_all(len(file.unchecked), n)))
        puzzles = judged_only(load_puzzles(data, checkpoint.task))
        return distinct_puzzles(puzzles.select(first_of_all(len(puzzles), n)))
    held_out = checkpoint.metadata.get("held_out") if checkpoint.task.generates else None
    seed = _seed(held_out)
    if seed is None or not isinstance(held_out, dict):
        raise InputError(
            f"{checkpoint.path}: names no held-out puzzles to measure accuracy on; give some with --data FILE"
        )
    difficulty = str(held_out.get("difficulty", "ordinary"))
    return distinct_puzzles(generate_puzzles(checkpoint.task, n, seed, difficulty))


def _seed(held_out: Any) -> int | None:
    """The seed that a checkpoint names, where it names one that a generator takes."""
    seed = held_out.get("seed") if isinstance(held_out, dict) else None
    return seed if type(seed) is int and 0 <= seed < 2**63 else None


def first_of_all(total: int, n: int) -> np.ndarray:
    """int[n] of ``total`` rows, in an order in which more begin with what fewer are."""
    return np.random.default_rng(0).permutation(total)[:n]


def evaluated_puzzles(
    task: Task,
    checkpoint: Measurable | None,
    data: Path | None = None,
    n: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PuzzleSet:
    """The puzzles of a file, all or ``n`` of them; without a file the checkpoint's own, as the gate takes them."""
    if data is not None:
        data = split_within(data, "test")
        return load_puzzles(data, task, progress) if n is None else measured_puzzles(data, task, n, seed)
    if checkpoint is None:
        raise InputError("a bundle brings no puzzles with it; give some with --data FILE")
    return gate_puzzles(checkpoint, n=n)


def measured_puzzles(data: Path | str, task: Task, n: int | None = None, seed: int = 0) -> PuzzleSet:
    """``n`` puzzles of a file whose answers can be told right from wrong; all of them where ``n`` is None."""
    data = split_within(data, "test")
    if n is not None and task.has_rules:
        return open_puzzles(data, task).drawn(n, seed)  # all can be told: no other puzzle needs a look
    puzzles = judged_only(load_puzzles(data, task))
    return puzzles if n is None else puzzles.take(n, seed)


def any_puzzles(
    task: Task, n: int, data: Path | None = None, checkpoint: Measurable | None = None, seed: int = ANY_SEED
) -> PuzzleSet:
    """``n`` for what is measured without saying how many are right: from ``data``, held-out ones, or generated."""
    if data is not None:
        return open_puzzles(split_within(data, "test"), task).drawn(n, seed)
    if checkpoint is not None and ("held_out" in checkpoint.metadata or not task.generates):
        return gate_puzzles(checkpoint, n=n)
    return generate_puzzles(task, n, seed)


# -- quantization --------------------------------------------------------------------------------------


def generated_apart(checkpoint: Measurable, n: int, offset: int, others: list[PuzzleSet | None]) -> PuzzleSet:
    """Up to ``n`` of the checkpoint's own difficulty, ``offset`` from its held-out seed, none of the others."""
    task, held_out = checkpoint.task, checkpoint.metadata.get("held_out")
    if not task.generates:
        raise InputError(
            f"{task.name} puzzles cannot be generated to calibrate on; "
            "give the training set with --calibration-data"
        )
    held_out = held_out if isinstance(held_out, dict) else {}
    seed = (_seed(held_out) or 0) + offset
    return apart(generate_puzzles(task, n, seed, str(held_out.get("difficulty", "ordinary"))), others)


def apart(puzzles: PuzzleSet, others: list[PuzzleSet | None]) -> PuzzleSet:
    """Those of ``puzzles`` that stand in no other set, turned and renamed or not."""
    taken = {mark for other in others if other is not None for mark in fingerprints(other)}
    free = np.flatnonzero(~seen_before(taken, puzzles))
    if not free.size:
        raise InputError(
            f"all {len(puzzles)} puzzles of {puzzles.name} are measured or calibrated on already; "
            "give more with --calibration-data, or calibrate on fewer with --calibration"
        )
    return puzzles.select(free)
