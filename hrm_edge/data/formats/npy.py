"""Folders of `.npy` files in the public trainers' layout (see :mod:`hrm_edge.data.public_layout`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...progress import Progress
from ...tasks import Task
from ...workspace import standing
from ..public_layout import Folder, Grouping, numbering_of, read_folder, write_folder
from .base import File, Format, Rows

if TYPE_CHECKING:
    from ..puzzles import PuzzleSet


def _read(file: File, task: Task) -> Rows:
    content = read_folder(file.path, task)
    known = content.identifiers.any()
    return Rows(
        content.questions,
        content.answers,
        lambda row: f"{file.path} row {row}",
        identifiers=content.identifiers if known else None,
        num_identifiers=content.num_identifiers,
        # Rows of one identifier would be taken for one puzzle, so where there are any the grouping must say.
        grouping=content.grouping if known or not content.grouping.is_plain else None,
        identifier_names=numbering_of(file.path, content.num_identifiers).names if known else None,
    )


def _write(puzzles: PuzzleSet, path: Path, progress: Progress | None) -> None:
    identifiers, grouping = puzzles.identifiers, puzzles.grouping
    own = np.arange(len(puzzles), dtype=np.int32)
    if identifiers is None:
        identifiers = np.zeros_like(own)
    elif grouping is None:
        grouping = Grouping(identifiers, identifiers)  # what has one identifier is one puzzle
    number = max(puzzles.num_identifiers, int(identifiers.max(initial=0)) + 1)
    content = Folder(puzzles.questions, puzzles.solved, identifiers, number, grouping or Grouping(own, own))
    write_folder(content, puzzles.task, path)


NPY = Format(fits=lambda file: standing(file.path).is_dir(), read=_read, write=_write)
