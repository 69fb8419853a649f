"""Puzzles as Python has them: texts, files, lists and arrays of digits or tokens, told apart and never guessed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import Rows
from ..data.formats.json import is_board
from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..runtimes.engine import checked_tokens
from ..tasks import Task
from .answer import Questions, is_path, read_puzzles

_HOW = "pass puzzles as text, as lists or arrays of digits, or as tokens with tokens=True"


def questions_of(
    puzzles: Any,
    task: Task,
    *,
    tokens: bool | None = None,
    data: Path | str | None = None,
    puzzle_identifiers: Any = None,
) -> Questions:
    """What ``puzzles`` asks, and after it what the file or folder ``data`` holds.

    ``puzzles`` is a text or the name of a file, as on the command line, or a list of these; or one board or a list
    of them, each as S cells or rows of cells, in lists or an array of any kind; or a :class:`PuzzleSet`.

    Whole numbers are *digits* as people write them (a Sudoku's 0 is a blank, 5 is a 5) unless ``tokens`` is True,
    which makes them the task's tokens (1 a blank, 6 a 5). With None a board of digits without any blank is refused,
    as it could just as well be tokens; False takes it for digits. Where cells hold no numbers, as in mazes, whole
    numbers are tokens.

    ``puzzle_identifiers`` int[N], one a board, are those of models trained with several.

    Raises :class:`InputError`: nothing is asked, or what is asked can not be read or can be read in two ways; of
    files, when their turn comes.
    """
    parts: list[Iterable[Rows]] = []
    texts = None if isinstance(puzzles, PuzzleSet) else _texts(puzzles, task)
    if texts is not None:
        if tokens:
            raise InputError("tokens=True: a text has no tokens; leave it out, or pass numbers")
        parts.append(read_puzzles(texts, task))
    elif isinstance(puzzles, PuzzleSet):
        parts.append([_of_set(puzzles, task)])
    elif puzzles is not None:
        boards = _boards(puzzles, task, tokens)
        parts.append([Rows(boards, np.zeros_like(boards), _names(len(boards)))])
    if data is not None:
        parts.append(read_puzzles([], task, Path(data)))
    if not parts:
        raise InputError(f"no puzzle given: {_HOW}, or name a file of them with data")
    if puzzle_identifiers is None:
        if task.by_example and texts is None and data is None and not isinstance(puzzles, PuzzleSet):
            raise _asked_by_example(task)
        at_hand = all(part.at_hand for part in parts if isinstance(part, Questions))
        return Questions(itertools.chain.from_iterable(parts), at_hand=at_hand)
    if texts is not None or data is not None or isinstance(puzzles, PuzzleSet):
        raise InputError("puzzle_identifiers go with lists and arrays of boards; files have their own")
    (rows,) = parts[0]
    return Questions(
        [
            Rows(
                rows.questions,
                rows.answers,
                rows.where,
                identifiers=_identifiers(puzzle_identifiers, len(rows.questions)),
            )
        ]
    )


def _identifiers(values: Any, boards: int) -> np.ndarray:
    given = np.atleast_1d(np.asarray(values))
    if given.dtype.kind not in "iu" or given.shape != (boards,):
        raise InputError(
            f"puzzle_identifiers must be a whole number for each of {boards} boards, not {given.dtype} of shape "
            f"{list(given.shape)}"
        )
    return given


def _names(count: int) -> Any:
    return lambda row: f"puzzle {row + 1}" if count > 1 else ""


def _texts(puzzles: Any, task: Task) -> list[str | Path] | None:
    """The texts and files that are asked; None where these are boards of cells."""
    if isinstance(puzzles, str | Path):
        return [puzzles]
    if isinstance(puzzles, np.ndarray) and puzzles.dtype.kind == "U":
        puzzles = puzzles.tolist()
    if not isinstance(puzzles, list | tuple) or not any(isinstance(item, str | Path) for item in puzzles):
        return None
    listed = list(puzzles)
    if is_board(listed, task):
        named = [item for item in listed if isinstance(item, str) and len(item) > 1 and is_path(item)]
        if named and len(named) < len(listed):
            raise InputError(
                f"these {len(listed)} texts are the rows of one board, but {named[0]!r} is a file here too; join "
                "the rows with line ends, or pass files as pathlib.Path"
            )
        if not named:
            return None  # the rows of one board, or its cells
    if not all(isinstance(item, str | Path) for item in listed):
        raise InputError(f"a list of texts and of something else can not be read; {_HOW}")
    return listed


def _of_set(puzzles: PuzzleSet, task: Task) -> Rows:
    if (puzzles.task.name, puzzles.task.definition) != (task.name, task.definition):
        raise InputError(f"{puzzles.name}: holds {puzzles.task.name} puzzles, but the model solves {task.name}")
    answers = np.zeros_like(puzzles.questions) if puzzles.answers is None else puzzles.answers
    where = f"{puzzles.name} puzzle"
    return Rows(
        puzzles.questions,
        answers,
        lambda row: f"{where} {row + 1}",
        identifiers=puzzles.identifiers,
        num_identifiers=puzzles.num_identifiers,
        identifier_names=puzzles.identifier_names,
    )


# -- boards of cells -------------------------------------------------------------------------------------


def _boards(puzzles: Any, task: Task, tokens: bool | None) -> np.ndarray:
    """int32[N, S] tokens of one board or several."""
    if isinstance(puzzles, np.ma.MaskedArray):
        # What is masked is not known, and so is blank.
        puzzles = np.where(np.ma.getmaskarray(puzzles), np.array(None), np.ma.getdata(puzzles))
    try:
        values = np.asarray(puzzles)
    except (ValueError, TypeError):  # rows of different lengths, or numbers that NumPy has not
        values = np.array(None)
    if values.dtype.kind in "iu":
        return _of_numbers(_flat(values, task), task, tokens)
    if values.dtype.kind in "OU" and isinstance(listed := _plain(values.tolist()), list) and listed:
        if tokens:
            raise InputError("tokens=True: tokens are whole numbers, and here are others")
        # Of rows of text as many as there are rows look like cells: they are the rows of so many boards.
        several = not is_board(listed, task) or all(is_board(item, task) for item in listed)
        return _of_cells(listed if several else [listed], task)
    if values.size == 0 and values.ndim:
        raise InputError(f"no puzzle given: {_HOW}")
    what = f"{values.dtype} of shape {list(values.shape)}" if values.ndim else f"{type(puzzles).__name__}"
    raise InputError(f"puzzles can not be {what}; {_HOW}")


def _plain(value: Any) -> Any:
    """Lists as they are, with Python's numbers for NumPy's."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _flat(values: np.ndarray, task: Task) -> np.ndarray:
    """[N, S] of one board or several, of cells or of rows."""
    S, grid = task.seq_len, (task.rows, task.cols)
    if values.shape in ((S,), grid):
        return values.reshape(1, S)
    if values.shape[1:] in ((S,), grid) and len(values):
        return values.reshape(len(values), S)
    shapes = f"[{S}] or [{grid[0]}, {grid[1]}] for one puzzle, [N, {S}] or [N, {grid[0]}, {grid[1]}] for several"
    raise InputError(f"puzzles of {task.name} have the shape {shapes}, not {list(values.shape)}")


def _of_numbers(values: np.ndarray, task: Task, tokens: bool | None) -> np.ndarray:
    """int32[N, S] tokens of whole numbers [N, S]."""
    numbers = task.numbers
    if not numbers and tokens is False:
        raise InputError(f"tokens=False: {task.name} has no digits; pass text, or tokens with tokens=True")
    if task.by_example and not tokens:
        raise _asked_by_example(task)  # colours as well as tokens
    if tokens or not numbers:
        return checked_tokens(values, task)
    written = np.array(sorted(numbers))
    if not (known := np.isin(values, written)).all():
        row, cell = np.argwhere(~known)[0]
        raise InputError(
            f"{_at(values, row, cell, task)} is no digit of {task.name} ({written[0]} to {written[-1]}); if these "
            "are tokens, say tokens=True"
        )
    board = np.array([numbers[number] for number in written.tolist()], np.int32)[np.searchsorted(written, values)]
    full = np.flatnonzero((board != task.blank).all(axis=1))
    if full.size and tokens is None:
        which = f"puzzle {full[0] + 1}" if len(board) > 1 else "the puzzle"
        raise InputError(
            f"{which} can be read in two ways: as tokens (say tokens=True), or as digits without a blank (say "
            "tokens=False)"
        )
    return board


def _at(values: np.ndarray, row: int, cell: int, task: Task) -> str:
    where = task.where(cell) + (f" of puzzle {row + 1}" if len(values) > 1 else "")
    return f"{values[row, cell]} at {where}"


def _asked_by_example(task: Task) -> InputError:
    return InputError(
        f"{task.name} is asked by example: pass task.encode(grid) with tokens=True and puzzle_identifiers, or use "
        f"`{task.answered_with}` with --data"
    )


def _of_cells(boards: list[Any], task: Task) -> np.ndarray:
    """int32[N, S] tokens of boards whose cells are texts, digits or None for a blank."""
    if task.by_example:
        raise _asked_by_example(task)
    reader = task.reader()
    try:
        for number, board in enumerate(boards, 1):
            reader.put(number, board)
        found = reader.take()
    except InputError as error:
        raise InputError(re.sub(r"^line (?=\d)", "puzzle ", str(error))) from None
    assert found is not None
    return found.questions
