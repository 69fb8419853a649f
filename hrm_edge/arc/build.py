"""From tasks to a folder in the public .npy layout: train and test split, one identifier per augmented task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.public_layout import IDENTIFIERS, read_names, require_set, write_description
from ..errors import InputError
from ..files import check_place, check_replaceable, entries, replacing_folder
from ..limits import IDENTIFIERS as IDENTIFIERS_OF_A_MODEL
from ..progress import Progress
from ..tasks import Task
from .augment import Augmentation
from .collection import ArcTask, Collection, Pair

NO_PUZZLE = "<blank>"  # name of identifier 0
_SPLITS = ("train", "test")
# A task of few colours or much symmetry has fewer views than are asked for; then this many tries have to do.
_TRIES = 5


@dataclass(frozen=True)
class BuiltSet:
    """What was written. ``repeated``: demonstrations left out because they equal a held-out test pair."""

    tasks: int
    puzzles: int
    train_rows: int
    test_rows: int
    repeated: int


@dataclass(frozen=True, eq=False)
class _Group:
    """A task, its views, and the pairs of it that go into each split."""

    task: ArcTask
    views: tuple[Augmentation, ...]
    first_identifier: int
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


def build(
    collection: Collection,
    task: Task,
    folder: Path,
    augmentations: int,
    seed: int = 0,
    progress: Progress | None = None,
    overwrite: bool = True,
) -> BuiltSet:
    """Write ``folder/{train,test}`` and ``folder/identifiers.json``, whole or not at all.

    Each task is a group; its original and up to ``augmentations`` views of it that all look different are its
    puzzles, each with an identifier from 1 up. All pairs of training tasks and the demonstrations of evaluation
    tasks are the train split; the test pairs of evaluation tasks are the test split alone. Equal arguments
    give equal bytes. InputError where there is nothing to write, or the folder is something else (or such a set
    already, unless ``overwrite``).
    """
    _check_writable(folder, overwrite)
    held_out = {_content(pair) for one in collection.evaluation for pair in one.tests if pair[1] is not None}
    total = len(collection.training) + len(collection.evaluation)
    if (1 + augmentations) * total >= IDENTIFIERS_OF_A_MODEL:
        raise InputError(
            f"{augmentations} views of each of {total} tasks are more than the {IDENTIFIERS_OF_A_MODEL} puzzle "
            "identifiers that a model may have; ask for fewer with --augmentations"
        )
    groups: list[_Group] = []
    repeated, identifier = 0, 1
    for number, (one, learned) in enumerate(_ordered(collection), 1):
        pairs = one.demonstrations + (tuple(p for p in one.tests if p[1] is not None) if learned else ())
        kept = tuple(pair for pair in pairs if _content(pair) not in held_out)
        repeated += len(pairs) - len(kept)
        # By name, so that a task's views do not depend on which others there are.
        rng = np.random.default_rng([seed, *one.name.encode()])
        views = _views(one, augmentations, rng)
        groups.append(_Group(one, views, identifier, kept, () if learned else one.tests))
        identifier += len(views)
        if progress is not None:
            progress("ARC tasks", number, 2 * total)
    if not any(group.train for group in groups) or not any(group.test for group in groups):
        raise InputError(f"{collection.name}: no evaluation task fits {task.name}, or nothing is left to train on")
    names = [NO_PUZZLE, *(view.name(group.task.name) for group in groups for view in group.views)]
    with replacing_folder(folder, _require_sets, result=True) as scratch:
        (scratch / IDENTIFIERS).write_text(json.dumps(names) + "\n", "utf-8")
        rows = []
        for split in _SPLITS:
            some = [group for group in groups if getattr(group, split)]
            rows.append(_write_split(scratch / split, some, split, task, len(names)))
            if progress is not None:
                progress("ARC tasks", total + total * len(rows) // 2, 2 * total)
    return BuiltSet(len(groups), len(names) - 1, rows[0], rows[1], repeated)


def _ordered(collection: Collection) -> Iterator[tuple[ArcTask, bool]]:
    """Every task, and whether its test pairs are learned too."""
    for learned, tasks in ((True, collection.training), (False, collection.evaluation)):
        for one in sorted(tasks, key=lambda task: task.name):
            yield one, learned


def _views(task: ArcTask, count: int, rng: np.random.Generator) -> tuple[Augmentation, ...]:
    """The original and up to ``count`` views, in all of which the task looks different."""
    pairs = (*task.demonstrations, *task.tests)
    views = [Augmentation()]
    seen = {_appearance(pairs, views[0])}
    for _ in range(_TRIES * count):
        if len(views) > count:
            break
        view = Augmentation.random(rng)
        appearance = _appearance(pairs, view)
        if appearance not in seen:
            seen.add(appearance)
            views.append(view)
    return tuple(views)


def _appearance(pairs: tuple[Pair, ...], view: Augmentation) -> int:
    return hash(tuple(_content((view.apply(a), None if b is None else view.apply(b))) for a, b in pairs))


def _content(pair: Pair) -> tuple[bytes | tuple[int, ...], ...]:
    """What makes two pairs the same."""
    return tuple(part for grid in pair if grid is not None for part in (grid.shape, grid.astype(np.int8).tobytes()))


def _write_split(folder: Path, groups: list[_Group], split: str, task: Task, identifiers: int) -> int:
    """One split in the public layout; returns its rows. Tokens are written as they are made: they may be many."""
    folder.mkdir()
    examples = [len(getattr(group, split)) for group in groups]
    views = [len(group.views) for group in groups]
    rows = int(np.dot(examples, views))
    of_puzzles = np.concatenate([[0], np.repeat(examples, views)]).cumsum()
    arrays = {
        "puzzle_identifiers": np.concatenate([g.first_identifier + np.arange(len(g.views)) for g in groups]),
        "puzzle_indices": of_puzzles,
        "group_indices": np.concatenate([[0], views]).cumsum(),
    }
    for name, array in arrays.items():
        np.save(folder / f"all__{name}.npy", array.astype(np.int32))
    shape = (rows, task.seq_len)
    inputs, labels = (
        np.lib.format.open_memmap(folder / f"all__{name}.npy", mode="w+", dtype=np.uint8, shape=shape)
        for name in ("inputs", "labels")
    )
    row = 0
    for group in groups:
        for view in group.views:
            for question, answer in getattr(group, split):
                inputs[row] = task.encode(view.apply(question))
                labels[row] = 0 if answer is None else task.encode(view.apply(answer))
                row += 1
    inputs.flush()
    labels.flush()
    write_description(folder, task, identifiers, len(groups), len(of_puzzles) - 1, rows)
    return rows


def _check_writable(folder: Path, overwrite: bool) -> None:
    check_replaceable(folder, _require_sets)
    check_place(folder)
    if folder.is_dir() and entries(folder) and not overwrite:
        raise InputError(f"{folder} exists; choose another name, or replace it with --force")


def _require_sets(folder: Path) -> None:
    """InputError where ``folder`` holds anything but what :func:`build` wrote; nothing but such is replaced."""
    try:
        if not folder.is_dir():
            raise InputError("it is a file")
        if others := sorted(entries(folder) - {IDENTIFIERS, *_SPLITS}):
            raise InputError(f"it holds {others[0]!r}")
        read_names(folder)
        for split in _SPLITS:
            require_set(folder / split)
    except InputError as error:
        raise InputError(f"{folder} exists and is no ARC puzzle set alone: {error}") from None
