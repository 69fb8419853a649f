"""Augmented tasks: a grid turned or mirrored, its colours exchanged, and back; how such a puzzle is named."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..tasks.arc import COLOURS

_NAME = re.compile(r"(?P<task>.+?)(?P<sep>\|\|\||_)t(?P<turn>[0-7])(?P=sep)(?P<colours>\d{10})", re.ASCII)


@dataclass(frozen=True)
class Augmentation:
    """One of 8 × 9! views of a task.

    ``turn``, numbered as in the public sets: 0 to 3 quarter turns counterclockwise; 4 mirrored left to right;
    5 mirrored top to bottom; 6 and 7 mirrored on the main and on the other diagonal. ``colours[c]`` is what colour
    c becomes; black (0) stays.
    """

    turn: int = 0
    colours: tuple[int, ...] = tuple(range(COLOURS))

    @classmethod
    def random(cls, rng: np.random.Generator) -> Augmentation:
        colours = [0, *(1 + rng.permutation(COLOURS - 1)).tolist()]
        return cls(int(rng.integers(8)), tuple(colours))

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """A grid int[h, w] in this view; a quarter turn exchanges h and w."""
        return np.array(self.colours, np.int32)[_turned(grid, self.turn)]

    def invert(self, grid: np.ndarray) -> np.ndarray:
        """A grid of this view as the original has it."""
        back = {1: 3, 3: 1}.get(self.turn, self.turn)  # the others undo themselves
        return np.argsort(self.colours).astype(np.int32)[_turned(grid, back)]

    def name(self, task: str) -> str:
        """The puzzle's name in ``identifiers.json``; the original's is the task's own."""
        if self == Augmentation():
            return task
        return f"{task}|||t{self.turn}|||{''.join(map(str, self.colours))}"


def parse_name(name: str) -> tuple[str, Augmentation]:
    """(task, augmentation) of a puzzle's name, in either of the public spellings."""
    match = _NAME.fullmatch(name)
    if match is None or sorted(match["colours"]) != list("0123456789"):
        return name, Augmentation()
    return match["task"], Augmentation(int(match["turn"]), tuple(map(int, match["colours"])))


def _turned(grid: np.ndarray, turn: int) -> np.ndarray:
    if turn < 4:
        return np.rot90(grid, turn)
    if turn == 4:
        return np.fliplr(grid)
    if turn == 5:
        return np.flipud(grid)
    return grid.T if turn == 6 else np.fliplr(np.rot90(grid))
