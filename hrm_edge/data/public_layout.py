"""The public trainers' puzzle folders: ``dataset.json`` and ``all__*.npy``, read with every check, and written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import entries, read_text, replacing_folder
from ..foreign import what_it_is
from ..identifiers import Numbering, hash_of_names
from ..tasks import Task
from ..workspace import unmixed

DESCRIPTION = "dataset.json"
IDENTIFIERS = "identifiers.json"  # name of each puzzle identifier
_ARRAYS = tuple(
    f"all__{part}.npy" for part in ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
)
_CHUNK = 65536  # rows looked at together


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which puzzle and which group each of N rows belongs to: ``puzzles``, ``groups`` int32[N].

    The public layout calls examples that share an identifier (the demonstrations of an ARC task) one *puzzle*,
    and variants of one original (its augmentations) one *group*. Both are runs of rows.
    """

    puzzles: np.ndarray
    groups: np.ndarray

    def select(self, rows: np.ndarray) -> Grouping:
        """Those of ``rows`` (int[k])."""
        return Grouping(self.puzzles[rows], self.groups[rows])

    @property
    def is_plain(self) -> bool:
        """Whether every row is a puzzle and a group of its own, as in sets that were never augmented."""
        return len(self.groups) == _starts(self.groups).size - 1


@dataclass(frozen=True, eq=False)
class Folder:
    """What such a folder holds: ``questions``, ``answers`` int32[N, S], ``identifiers`` int32[N].

    ``num_identifiers`` is the size of the table of puzzle embeddings, identifier 0 (no puzzle) included.
    """

    questions: np.ndarray
    answers: np.ndarray
    identifiers: np.ndarray
    num_identifiers: int
    grouping: Grouping


# -- reading -------------------------------------------------------------------------------------------


def read_folder(folder: Path, task: Task, on_disk: bool = False) -> Folder:
    """Read and check everything but the puzzles' own rules. InputError names file and row of what is wrong.

    ``on_disk``: the tokens stay in their files and have these files' dtype, for sets larger than the memory.
    """
    return unmixed(folder, lambda place: _read_folder(place, task, on_disk))


def _read_folder(folder: Path, task: Task, on_disk: bool) -> Folder:
    described = read_description(folder, task)
    questions, answers = (_read_tokens(folder / f"all__{part}.npy", task, on_disk) for part in ("inputs", "labels"))
    if len(questions) != len(answers):
        raise InputError(f"{folder}: {len(questions)} inputs but {len(answers)} labels")
    identifiers_file, indices_file, groups_file = (
        folder / f"all__{part}.npy" for part in ("puzzle_identifiers", "puzzle_indices", "group_indices")
    )
    identifiers = _read_numbers(identifiers_file)
    num_identifiers = described["num_puzzle_identifiers"]
    strange = np.flatnonzero((identifiers < 0) | (identifiers >= num_identifiers))
    if strange.size:
        raise InputError(
            f"{identifiers_file} row {strange[0]}: identifier {identifiers[strange[0]]} is outside "
            f"0..{num_identifiers - 1}, as dataset.json has num_puzzle_identifiers {num_identifiers}"
        )
    rows = _run_lengths(indices_file, len(questions), "rows")
    if len(rows) != len(identifiers):
        raise InputError(f"{folder}: {len(identifiers)} puzzle_identifiers but puzzle_indices for {len(rows)}")
    puzzles = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
    sizes = _run_lengths(groups_file, len(rows), "puzzles")
    groups = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    of_rows = np.repeat(identifiers, rows).astype(np.int32)
    return Folder(questions, answers, of_rows, num_identifiers, Grouping(puzzles, groups[puzzles]))


def split_within(path: Path | str, split: str) -> Path:
    """The folder of a split, where ``path`` is the one above it; else ``path`` itself."""
    path = Path(path)
    above = not (path / DESCRIPTION).exists() and (path / split / DESCRIPTION).is_file()
    return path / split if above else path


def read_description(folder: Path, task: Task) -> dict[str, Any]:
    """``dataset.json``, whose tokens must be the task's."""
    file = folder / DESCRIPTION
    if not file.is_file():
        splits = sorted(inner.parent.name for inner in folder.glob("*/dataset.json"))
        if splits:
            raise InputError(f"{folder} holds several sets; name one: {', '.join(str(folder / s) for s in splits)}")
        raise InputError(f"{folder} is no puzzle set: it has no dataset.json beside all__inputs.npy")
    try:
        described = json.loads(read_text(file))
        for field, value in {"seq_len": task.seq_len, "vocab_size": task.vocab_size}.items():
            if described[field] != value:
                raise InputError(f"{folder}: {field} is {described[field]!r}, but {task.name} has {value}")
        # What the public trainers write; any other value would give the same numbers another meaning.
        fixed = {"pad_id": (0,), "ignore_label_id": (0, None), "blank_identifier_id": (0,), "sets": (["all"],)}
        for field, allowed in fixed.items():
            if field in described and described[field] not in allowed:
                raise InputError(f"{file}: {field} is {described[field]!r}; only {allowed[0]!r} can be read")
        number = described["num_puzzle_identifiers"]
        if type(number) is not int or not 1 <= number < 2**31:
            raise InputError(f"{file}: num_puzzle_identifiers is {number!r}, not a number above 0")
        return described
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {type(error).__name__} {error}") from None


def _read_array(path: Path, on_disk: bool = False) -> np.ndarray:
    try:
        if on_disk:
            return np.lib.format.open_memmap(path, mode="r")
        with open(path, "rb") as file:  # not np.load, which also opens archives
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # numpy's header parser raises nearly every kind on a damaged file
        if what := what_it_is(path):
            raise InputError(f"{path} is {what}") from None
        why = " ".join(str(error).split())
        raise InputError(f"{path} is no whole .npy file of numbers ({why})") from None


def _read_tokens(path: Path, task: Task, on_disk: bool) -> np.ndarray:
    tokens = _read_array(path, on_disk)
    if tokens.dtype.kind not in "iu" or tokens.shape[1:] != (task.seq_len,):
        raise InputError(f"{path} holds {tokens.dtype}{list(tokens.shape)}, not whole numbers [N, {task.seq_len}]")
    if not len(tokens):
        raise InputError(f"{path} holds no puzzles")
    for start in range(0, len(tokens), _CHUNK):
        some = tokens[start : start + _CHUNK]
        outside = np.argwhere((some < 0) | (some >= task.vocab_size))
        if outside.size:
            row, cell = outside[0]
            raise InputError(
                f"{path} row {start + row}: token {some[row, cell]} is outside 0..{task.vocab_size - 1}"
            )
    return tokens if on_disk else tokens.astype(np.int32)


def _read_numbers(path: Path) -> np.ndarray:
    """int64[K]."""
    numbers = _read_array(path)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise InputError(f"{path} holds {numbers.dtype}{list(numbers.shape)}, not a list of whole numbers")
    return numbers.astype(np.int64)


def _run_lengths(path: Path, total: int, what: str) -> np.ndarray:
    """int64[K] from K + 1 boundaries, which must rise from 0 to ``total``."""
    bounds = _read_numbers(path)
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != total:
        ends = f"{bounds[0]} to {bounds[-1]}" if len(bounds) else "nowhere"
        raise InputError(f"{path} goes from {ends}, not from 0 to the {total} {what} there are")
    # Compared, not subtracted: in a damaged file a difference could overflow.
    falls = np.flatnonzero(bounds[1:] <= bounds[:-1])
    if falls.size:
        at = int(falls[0])
        raise InputError(f"{path} does not rise: {bounds[at]} is followed by {bounds[at + 1]} at row {at + 1}")
    return np.diff(bounds)


# -- writing -------------------------------------------------------------------------------------------


def require_set(folder: Path) -> None:
    """InputError where ``folder`` holds anything but one set in this layout; nothing but such is replaced."""
    try:
        if not folder.is_dir():
            raise InputError("it is a file")
        names = entries(folder)
        if others := sorted(names - {DESCRIPTION, *_ARRAYS}):
            raise InputError(f"it holds {others[0]!r}")
        if DESCRIPTION not in names:
            raise InputError(f"it has no {DESCRIPTION}")
        if len(names) <= len(_ARRAYS):  # a file of that name alone may be anybody's
            described = json.loads(read_text(folder / DESCRIPTION))
            if not isinstance(described, dict) or not {"seq_len", "vocab_size", "sets"} <= set(described):
                raise InputError(f"its {DESCRIPTION} is of another kind")
    except (InputError, OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{folder} exists and is no puzzle set alone: {str(error).splitlines()[0]}; choose another name, or "
            "move that away"
        ) from None


def write_folder(content: Folder, task: Task, folder: Path) -> None:
    """Write ``content`` in the place of ``folder``, whole or not at all."""
    puzzle_starts = _starts(content.grouping.puzzles, content.grouping.groups, content.identifiers)
    group_starts = _starts(content.grouping.groups)
    small = np.uint8 if task.vocab_size <= 256 else np.uint16
    arrays = {
        "inputs": content.questions.astype(small),
        "labels": content.answers.astype(small),
        "puzzle_identifiers": content.identifiers[puzzle_starts[:-1]].astype(np.int32),
        "puzzle_indices": puzzle_starts.astype(np.int32),
        # a group's first row is a puzzle's first row, so its number is found exactly
        "group_indices": np.searchsorted(puzzle_starts, group_starts).astype(np.int32),
    }
    with replacing_folder(folder, require_set, result=True) as scratch:
        for part, array in arrays.items():
            np.save(scratch / f"all__{part}.npy", array)
        counts = len(group_starts) - 1, len(puzzle_starts) - 1, len(content.questions)
        write_description(scratch, task, content.num_identifiers, *counts)


def write_description(folder: Path, task: Task, identifiers: int, groups: int, puzzles: int, examples: int) -> None:
    """``dataset.json`` of a split with so many of each."""
    described = {
        "seq_len": task.seq_len,
        "vocab_size": task.vocab_size,
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "num_puzzle_identifiers": identifiers,
        "total_groups": groups,
        "mean_puzzle_examples": examples / puzzles,
        "total_puzzles": puzzles,
        "sets": ["all"],
    }
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", "utf-8")


def _starts(*labels: np.ndarray) -> np.ndarray:
    """int64[runs + 1]: where a run of rows with equal ``labels`` (each int[N]) begins, and N."""
    changes = np.logical_or.reduce([label[1:] != label[:-1] for label in labels])
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [len(labels[0])]])


def names_of(folder: Path) -> list[str] | None:
    """Name of each identifier of a set, written in its folder or in the one above its splits; None: unknown."""
    place = next((place for place in (folder, folder.absolute().parent) if (place / IDENTIFIERS).is_file()), None)
    return None if place is None else read_names(place)


def numbering_of(folder: Path, count: int) -> Numbering:
    """Whose puzzles the ``count`` identifiers of a set are. InputError where the names beside it are too few."""
    names = names_of(folder) if count > 1 else None
    if names is not None and len(names) < count:
        raise InputError(f"{folder}: has {count} puzzle identifiers, but its {IDENTIFIERS} names {len(names)}")
    return Numbering(count, None if names is None else hash_of_names(names))


def read_names(folder: Path) -> list[str]:
    """Name of each identifier, from ``identifiers.json``."""
    file = folder / IDENTIFIERS
    try:
        names = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        why = str(getattr(error, "strerror", None) or error).splitlines()[0]
        raise InputError(f"{file}: cannot be read ({why}); name a folder that `hrm-edge data arc` made") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: expected a list of names")
    return names
