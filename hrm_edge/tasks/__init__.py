"""The puzzles a model can be trained on, by name. Needs numpy and nothing else."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from .arc import Arc
from .base import Symmetry, Task
from .dataset import TASK_TOML, DatasetTask, TaskDefinition, read_definition, read_sizes, set_folder, toml_of
from .maze import Maze
from .plugins import installed
from .sudoku import Sudoku

__all__ = ["Arc", "Maze", "Sudoku", "Symmetry", "Task", "get_task", "register"]

# A new family of tasks is a file or folder beside this one, and its class here. What it needs drawn, counted,
# verified or suggested, the class says.
_FAMILIES: list[type[Task]] = [Sudoku, Maze, Arc]

# Sizes (S, V) of the public sets whose tasks ship.
_PUBLIC = {(81, 11): "sudoku-9x9", (900, 6): "maze-30x30", (900, 12): "arc"}


def register(family: type[Task]) -> type[Task]:
    """Make the tasks of a class that does not ship here known by name, in this process and those it starts."""
    if family not in _FAMILIES:
        _FAMILIES.append(family)
    return family


def get_task(name: str | os.PathLike[str]) -> Task:
    """The task called ``name``, or that of a folder; what says the same gives the same object.

    ``sudoku`` (9×9), ``sudoku-NxN`` with the squarest boxes, ``sudoku-NxN-RxC`` with boxes of R rows and C
    columns, ``maze-RxC``, ``arc`` (30×30) and ``arc-NxN`` (grids of N×N at most), tasks of installed packages, or
    the path of a folder in the public layout. InputError lists these when ``name`` is unknown.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"a task is given by its name or folder, not by {type(name).__name__}")
    name = os.fspath(name)
    is_folder = _is_folder(name)
    if not (is_folder and {"/", os.sep, "."} & set(name)) and (found := named_task(name)):
        return found
    if is_folder:
        return _of_folder(Path(name))
    raise unknown_task(name, "it is no folder of puzzles, and ")


def named_task(name: str) -> Task | None:
    """The task that a class here or in an installed package calls so."""
    return _named(name.strip().lower())


def unknown_task(name: str, besides: str = "") -> InputError:
    """What to raise where nothing is called so: it lists what there is."""
    families, broken = installed()
    known = ", ".join(family.spellings for family in dict.fromkeys([*_FAMILIES, *families]))
    failed = "".join(f"; those of the package {each.package} cannot be loaded ({each.why})" for each in broken)
    return InputError(f"unknown task {name!r}; {besides}there are {known}{failed}")


@functools.cache
def _named(name: str) -> Task | None:
    task = _of(_FAMILIES, name) or _of(installed()[0], name)
    # One object per canonical name, so that tables are built once.
    return task if task is None or task.name == name else _named(task.name)


get_task.cache_clear = _named.cache_clear  # type: ignore[attr-defined]


def _of(families: Iterable[type[Task]], name: str) -> Task | None:
    return next((task for family in families if (task := family.from_name(name)) is not None), None)


@functools.cache
def defined_task(definition: TaskDefinition) -> Task:
    """The task that a definition says; equal ones give the same object. InputError where its name is another's."""
    try:
        taken = _of(_FAMILIES, definition.name.lower()) is not None
    except InputError:
        taken = True  # one that there cannot be
    if taken:
        raise InputError(f"the name {definition.name!r} is that of another task; give it one of its own")
    return DatasetTask(definition)


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and Path(name).is_dir()
    except (OSError, ValueError):  # what no file can be called
        return False


def _of_folder(folder: Path) -> Task:
    definition = read_definition(folder)
    try:
        return defined_task(definition)
    except InputError as error:
        raise InputError(f"{folder}: {error} in {TASK_TOML}") from None


def task_for(name: str | None, data: Iterable[Path | str], otherwise: str = "sudoku") -> Task:
    """The task called ``name`` or, where none is named, the one that ``data`` tell: sets are of the public tasks by
    their sizes, or else of their own."""
    if name is not None:
        return get_task(name)
    folder = next((found for path in data if (found := set_folder(Path(path))) is not None), None)
    if folder is None:
        return get_task(otherwise)
    public = _PUBLIC.get(read_sizes(folder))
    return _of_folder(folder) if public is None or toml_of(folder) is not None else get_task(public)
