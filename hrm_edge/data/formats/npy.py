"""Folders of `.npy` files in the public layout (see :mod:`hrm_edge.data.public_layout`), and single arrays."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...progress import Progress
from ...tasks import Task
from ...workspace import standing
from ..public_layout import Folder, Grouping, numbering_of, read_folder, write_folder
from .base import File, Format, Rows

if TYPE_CHECKING:
    from ..puzzles import PuzzleSet


def _read_set(file: File, task: Task) -> Iterator[Rows]:
    content = read_folder(file.path, task)
    known = content.identifiers.any()
    yield Rows(
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


def _read_array(file: File, task: Task) -> Iterator[Rows]:
    data = file.stream.read()
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy's header parser raises nearly every kind on a damaged file
        why = " ".join(str(error).split())
        raise file.wrong(f"no whole .npy file of numbers ({why})") from None
    yield from array_rows(file, array, task)


def array_rows(file: File, array: np.ndarray, task: Task, answers: np.ndarray | None = None) -> Iterator[Rows]:
    """An array of boards as the rows of a file: [N, rows, columns], [N, cells], or one board."""
    try:
        questions = _tokens(array, task)
        told = np.zeros_like(questions) if answers is None else _tokens(answers, task, array)
    except InputError as error:
        raise file.wrong(error) from None
    if len(told) != len(questions):
        raise file.wrong(f"{len(questions)} puzzles, but {len(told)} answers")
    yield Rows(questions, told, lambda row: f"{file.shown} row {row}")


def _tokens(array: np.ndarray, task: Task, beside: np.ndarray | None = None) -> np.ndarray:
    """int32[N, S] of texts, of digits with 0 for a blank, or of the tokens that the public sets have.

    Answers have no blank to tell it by; they are written as the questions ``beside`` them.
    """
    shape = f"{array.dtype}{list(array.shape)}"
    if array.dtype.kind == "S":
        array = np.char.decode(array, "latin-1")
    if array.dtype.kind == "U":
        reader = task.reader()
        boards = (
            array.reshape(-1).tolist() if array.ndim <= 1 else ["".join(row) for row in _boards(array, task, shape)]
        )
        for row, board in enumerate(boards):
            reader.put(row, board)
        found = reader.take()
        return np.zeros((0, task.seq_len), np.int32) if found is None else found.questions
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.floor(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"holds {shape}, not whole numbers [N, {task.rows}, {task.cols}] or [N, {task.seq_len}]")
    boards_ = _boards(array, task, shape)
    if not len(boards_):
        return np.zeros((0, task.seq_len), np.int32)
    least, most = int(boards_.min()), int(boards_.max())
    if beside is not None and beside.dtype.kind not in "US":
        least, most = min(least, int(beside.min())), max(most, int(beside.max()))
    digits = task.value_tokens is not None and least >= 0 and most <= task.vocab_size - 2
    tokens = least >= 1 and most <= task.vocab_size - 1
    if digits and tokens:
        raise InputError(
            f"holds {shape} from {least} to {most}: digits of full boards, or tokens, {task.blank} being a blank; "
            "write digits with 0 for a blank, or a folder in the public layout"
        )
    if not digits and not tokens:
        what = f"0 to {task.vocab_size - 2}" if task.value_tokens is not None else f"1 to {task.vocab_size - 1}"
        raise InputError(f"holds numbers from {least} to {most}; those of {task.name} go from {what}")
    return (boards_ + (task.blank if digits else 0)).astype(np.int32)


def _boards(array: np.ndarray, task: Task, shape: str) -> np.ndarray:
    """[N, S] of an array of boards."""
    if array.ndim and array.shape[-2:] == (task.rows, task.cols) and array.ndim <= 3:
        return array.reshape(-1, task.seq_len)
    if array.ndim in (1, 2) and array.shape[-1] == task.seq_len:
        return array.reshape(-1, task.seq_len)
    raise InputError(f"holds {shape}, not [N, {task.rows}, {task.cols}] or [N, {task.seq_len}]")


NPY = Format(fits=lambda file: file.content is None and standing(file.path).is_dir(), read=_read_set, write=_write)
ARRAY = Format(fits=lambda file: file.stream.peek(6).startswith(b"\x93NUMPY"), read=_read_array)
