"""The puzzles a model can be trained on, by name. Needs numpy and nothing else."""

from __future__ import annotations

import functools

from ..errors import InputError
from .arc import Arc
from .base import Symmetry, Task
from .maze import Maze
from .sudoku import Sudoku

__all__ = ["Arc", "Maze", "Sudoku", "Symmetry", "Task", "get_task", "register"]

# A new family of tasks is a file or folder beside this one, and its class here. What it needs drawn, counted,
# verified or suggested, the class says.
_FAMILIES: list[type[Task]] = [Sudoku, Maze, Arc]


def register(family: type[Task]) -> type[Task]:
    """Make the tasks of a class that does not ship here known by name, in this process and those it starts."""
    if family not in _FAMILIES:
        _FAMILIES.append(family)
    return family


@functools.cache
def get_task(name: str) -> Task:
    """The task called ``name``; equal names and aliases give the same object.

    ``sudoku`` (9×9), ``sudoku-NxN`` with the squarest boxes, ``sudoku-NxN-RxC`` with boxes of R rows and C
    columns, ``maze-RxC``, ``arc`` (30×30) and ``arc-NxN`` (grids of N×N at most). InputError lists these when
    ``name`` is unknown.
    """
    for family in _FAMILIES:
        task = family.from_name(name.strip().lower())
        if task is not None:
            # One object per canonical name, so that tables are built once.
            return task if task.name == name else get_task(task.name)
    raise InputError(f"unknown task {name!r}; there are {', '.join(family.spellings for family in _FAMILIES)}")
