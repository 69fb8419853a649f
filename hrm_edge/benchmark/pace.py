"""How long a puzzle takes in PyTorch: how many segments a checkpoint may take says little of how many it takes."""

from __future__ import annotations

import time

import numpy as np

from ..data.puzzles import PuzzleSet
from ..models import Checkpoint
from ..models.engine import TorchEngine

_ASKED, _SECONDS = 8, 4.0  # at most as many puzzles, and none more after as long


def pace(checkpoint: Checkpoint, puzzles: PuzzleSet, learned: bool) -> tuple[float, float]:
    """(seconds of a segment, segments of a puzzle), means of the first few; not ``learned``: the most segments."""
    engine, halt = TorchEngine(checkpoint), "learned" if learned else "fixed"
    engine.solve(puzzles.questions[:1], 1, "fixed", puzzle_identifiers=_identifiers(puzzles, 0))  # warm up
    thought, begin, seconds = [], time.monotonic(), 0.0
    for row in range(min(_ASKED, len(puzzles))):
        question = puzzles.questions[row : row + 1]
        answers = engine.solve(question, halt=halt, puzzle_identifiers=_identifiers(puzzles, row))
        thought.append(int(answers.steps[0]))
        seconds = time.monotonic() - begin
        if seconds > _SECONDS:
            break
    return seconds / sum(thought), float(np.mean(thought))


def _identifiers(puzzles: PuzzleSet, row: int) -> np.ndarray | None:
    return None if puzzles.identifiers is None else puzzles.identifiers[row : row + 1]
