"""What a run trains and is measured on: one process makes it beside the run, all of them read it."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..data.choose import held_out_puzzles, margin_puzzles, measured_puzzles
from ..data.puzzles import PuzzleSet, load_puzzles
from ..errors import InputError
from ..files import replacing_file
from ..tasks import Task
from .data import Source, content_hash, fingerprints, read_source, require_one_numbering, split_folder

SOURCES_VERSION = 2  # of what is kept; the first version left the test puzzles in


@dataclasses.dataclass(frozen=True)
class Measured:
    """The held-out puzzles, and others to measure the finished model on beside them."""

    held_out: PuzzleSet
    tests: list[PuzzleSet]


def measured_on(task: Task, identifiers: int, data: list[str], test: Path | None) -> Measured:
    """What a run of a model with so many puzzle identifiers is measured on.

    ``data`` and ``test`` as :func:`trainer.loop.train` takes them. Where nothing can be
    generated, the test puzzles are the held-out ones.
    """
    if task.generates:
        return Measured(held_out_puzzles(task), [] if test is None else [load_puzzles(test, task)])
    folder = tested_on(data, test)
    if folder is None:
        raise InputError(
            f"--data {data[0]}: no test folder lies beside it, and {task.name} puzzles cannot be generated; "
            "name the set's test folder with --test"
        )
    held_out = measured_puzzles(folder, task)
    most = 0 if held_out.identifiers is None else int(held_out.identifiers.max())
    if most >= identifiers:
        raise InputError(
            f"--test {folder}: names puzzle {most}, but the model has 0 to {identifiers - 1}; "
            "name the test folder of the set that it is trained on"
        )
    if most:
        require_one_numbering([split_folder(data[0], "train"), folder])
    return Measured(held_out, [])


def tested_on(data: list[str], test: Path | None) -> Path | None:
    """The test folder that is named, or that lies beside what is learned; None: there is none."""
    if test is not None:
        return split_folder(str(test), "test")
    first = Path(data[0].partition("@")[0])
    learned = {split_folder(argument, "train").resolve() for argument in data}
    beside = (place for place in (first / "test", first.parent / "test") if place.exists())
    return next((place for place in beside if place.resolve() not in learned), None)


def keep_sources(folder: Path, task: Task, data: list[str], measured: Measured) -> list[str]:
    """Put the training puzzles beside the run, where they are not yet: a resume need not generate them again.

    Returns those of ``data`` that were kept already and have changed since; they are read anew. What is kept of a
    file that is gone stays. A task without a generator has its puzzles read from where they are, as they are drawn.
    """
    if not task.generates:
        for argument in data:
            read_source(argument, task)  # what does not fit is told before the run has a folder
        return []
    # Exactly these puzzles of exactly these files: a file that was edited since is read anew.
    keys = [[SOURCES_VERSION, task.name, argument, content_hash(argument)] for argument in data]
    kept = [_read(_place(folder, index)) for index in range(len(data))]
    pairs = list(zip(keys, kept, strict=True))
    missing = [index for index, (key, each) in enumerate(pairs) if each is None or not _is_of(key, each[0])]
    if not missing:
        return []
    generated = [measured.held_out, margin_puzzles(task)]
    sources = [read_source(data[index], task, generated, measured.tests) for index in missing]
    for index, source in zip(missing, sources, strict=True):
        place = _place(folder, index)
        content = {"questions": source.questions, "answers": source.answers}
        facts = {"key": json.dumps(keys[index]), "name": source.name, "w": source.weight}
        with replacing_file(place) as scratch, open(scratch, "wb") as file:
            np.savez(file, **content, **{name: np.array(fact) for name, fact in facts.items()})  # type: ignore[arg-type]
    return [
        data[index] for index in missing if (each := kept[index]) is not None and each[0][:3] == keys[index][:3]
    ]


def _is_of(key: list[Any], kept: list[Any]) -> bool:
    """Whether what is kept under ``kept`` is what ``key`` names; a file that is gone cannot have changed."""
    return kept == key or (key[3] is None and kept[:3] == key[:3])


def kept_sources(folder: Path, task: Task, data: list[str]) -> list[Source]:
    """The training puzzles as another process kept them."""
    kept = [_read(_place(folder, index)) for index in range(len(data))] if task.generates else []
    if not (folder / "run.json").is_file() or None in kept:
        raise InputError(
            f"{folder}: a process does not see what the first one wrote there; all nodes must see the run's folder"
        )
    if not task.generates:
        return [read_source(argument, task) for argument in data]
    return [each[1] for each in kept if each is not None]


def require_sources(folder: Path) -> None:
    """InputError where :func:`keep_sources` would write over what it has not kept."""
    for place in sorted((folder / "data").glob("source*.npz")):
        if _read(place) is None:
            raise InputError(f"{place}: holds something else than a run's puzzles; choose another --output")


def _place(folder: Path, index: int) -> Path:
    return folder / "data" / f"source{index}.npz"


def _read(place: Path) -> tuple[list[Any], Source] | None:
    """What is kept at ``place``, and under which key; None where that is nothing whole."""
    try:
        with np.load(place) as saved:
            source = Source(str(saved["name"]), saved["questions"], saved["answers"], float(saved["w"]))
            return list(json.loads(str(saved["key"]))), source
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, RecursionError):
        return None


def unseen(puzzles: PuzzleSet, sources: list[Source]) -> PuzzleSet:
    """Those of ``puzzles`` that are not trained on, up to the task's symmetries.

    A run keeps its training puzzles, and so those that it started with stay in when a resume names others to
    measure on.
    """
    trained = np.concatenate([fingerprints(puzzles.task, source.questions) for source in sources])
    return puzzles.select(np.flatnonzero(~np.isin(fingerprints(puzzles.task, puzzles.questions), trained)))
