"""The puzzles a model can be trained on, by name. Needs numpy and nothing else."""

from __future__ import annotations

import functools
import re

from ..errors import InputError
from .arc import Arc
from .base import Symmetry, Task
from .maze import Maze
from .sudoku import Sudoku

__all__ = ["Arc", "Maze", "Sudoku", "Symmetry", "Task", "get_task"]


@functools.cache
def _canonical(name: str) -> Task:
    """One object per canonical name, so that tables are built once."""
    return _build(name)


@functools.cache
def get_task(name: str) -> Task:
    """The task called ``name``; equal names and aliases give the same object.

    ``sudoku`` (9×9), ``sudoku-NxN`` with the squarest boxes, ``sudoku-NxN-RxC`` with boxes of R rows and C
    columns, ``maze-RxC``, ``arc`` (30×30) and ``arc-NxN`` (grids of N×N at most). InputError lists these when
    ``name`` is unknown.
    """
    return _canonical(_build(name.strip().lower()).name)


def _build(name: str) -> Task:
    if name == "sudoku":
        return Sudoku(3, 3)
    if match := re.fullmatch(r"sudoku-(\d{1,3})x(\d{1,3})(?:-(\d{1,2})x(\d{1,2}))?", name):
        side, other, box_rows, box_cols = (int(g) if g else 0 for g in match.groups())
        return Sudoku.of_side(side, other, box_rows, box_cols)
    if match := re.fullmatch(r"maze-(\d{1,3})x(\d{1,3})", name):
        return Maze(int(match[1]), int(match[2]))
    if name == "arc":
        return Arc()
    if (match := re.fullmatch(r"arc-(\d{1,3})x(\d{1,3})", name)) and match[1] == match[2]:
        return Arc(int(match[1]))
    raise InputError(
        f"unknown task {name!r}; there are sudoku (9x9), sudoku-4x4, sudoku-6x6, sudoku-NxN, "
        "sudoku-NxN-RxC (boxes of R rows and C columns), maze-30x30, maze-RxC, arc (30x30), arc-NxN"
    )
