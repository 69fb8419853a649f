"""Sudoku boards as text: one-line puzzles, grids with or without rulers, and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..base import Tokens

if TYPE_CHECKING:
    from . import Sudoku

# Between cells: spaces, commas, ASCII rulers, and the box-drawing block.
_SEPARATORS = re.compile(r"[\s|+=,─-╿]+")
_RULER = re.compile(r"[\s|+=─-╿-]+")
# A row as `tasks.boards` draws it: each cell a space, a symbol and the mark of its kind ("5·" was answered).
_DRAWN_ROW = re.compile(r"\s*[│|](?:(?: \S[ ·'*!])+[│|])+\s*")
_DRAWN_CELL = re.compile(r" (\S)[ ·'*!]")


def parse(task: Sudoku, text: str) -> Tokens:
    """One puzzle, on one line or as a grid; of a drawn board what it shows, answers included."""
    text = _unmarked(text)
    is_ruler = _ruler_test(task, text)
    return _tokens(task, "".join(_cells(line) for line in text.splitlines() if not is_ruler(line)))


def parse_many(task: Sudoku, text: str) -> list[Tokens]:
    """Every puzzle of a text: S cells on a line, or n lines of n cells; ``#`` starts a comment line."""
    text = _unmarked(text)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if not line.startswith("#")]
    plain = task.parse_lines([line for _, line in lines if line])
    return _parse_layout(task, text, lines) if plain is None else list(plain)


def _parse_layout(task: Sudoku, text: str, lines: list[tuple[int, str]]) -> list[Tokens]:
    """Puzzles from numbered lines that mix grids, rulers and one-line puzzles."""
    is_ruler = _ruler_test(task, text)
    found: list[Tokens] = []
    grid: list[str] = []
    first = 0

    def read(cells: str, number: int) -> None:
        try:
            found.append(_tokens(task, cells))
        except InputError as error:
            raise InputError(f"line {number}: {error}") from None

    for number, line in [*lines, (len(lines) + 1, "")]:
        cells = _cells(line)
        if grid and (len(grid) == task.n or not line or len(cells) == task.seq_len):
            read("".join(grid), first)
            grid.clear()
        if not line or is_ruler(line):
            continue
        if len(cells) == task.n:
            first = first if grid else number
            grid.append(cells)
        elif grid:
            raise InputError(f"line {number}: this row has {len(cells)} cells, expected {task.n}")
        else:
            read(cells, number)
    return found


def _unmarked(text: str) -> str:
    """``text`` with the rows of drawn boards as plain symbols."""
    if "│" not in text and "|" not in text:
        return text
    lines = (
        "".join(_DRAWN_CELL.findall(line)) if _DRAWN_ROW.fullmatch(line) else line for line in text.splitlines()
    )
    return "\n".join(lines)


def _cells(line: str) -> str:
    return _SEPARATORS.sub("", line)


def _ruler_test(task: Sudoku, text: str) -> Callable[[str], bool]:
    """Which lines of ``text`` only separate rows. Dashes are blanks where no other blank is in use."""
    dashes_are_blanks = not any(blank in text for blank in ".0*_")

    def is_ruler(line: str) -> bool:
        if not _RULER.fullmatch(line):
            return False
        cells = _cells(line)
        is_row = dashes_are_blanks and "+" not in line and len(cells) in (task.n, task.seq_len)
        return not is_row

    return is_ruler


def _tokens(task: Sudoku, cells: str) -> Tokens:
    if len(cells) != task.seq_len:
        raise InputError(
            f"puzzle has {len(cells)} characters, expected {task.seq_len} "
            f"({task.n} rows of {task.n}; '.' or 0 for a blank)"
        )
    what = f"a digit 1-{task.n}" if task.n < 10 else f"one of 1-9 A-{task.vocabulary[-1]}"
    return task.parse_cells(cells, f"not {what} or a blank ('.' or 0)")


def render(task: Sudoku, question: Tokens, answer: Tokens | None = None) -> str:
    """A grid with rulers between boxes; :func:`parse` reads it back."""
    shown = question if answer is None else np.where(question == task.blank, answer, question)
    symbols = [task.vocabulary[t] if t else "?" for t in np.asarray(shown).tolist()]
    boxes_across = task.n // task.box_cols
    ruler = "+".join("-" * (2 * task.box_cols + (0 < k < boxes_across - 1)) for k in range(boxes_across))
    lines = []
    for row in range(task.n):
        if row and row % task.box_rows == 0:
            lines.append(ruler)
        cells = symbols[row * task.n : (row + 1) * task.n]
        boxes = [" ".join(cells[c : c + task.box_cols]) for c in range(0, task.n, task.box_cols)]
        lines.append(" | ".join(boxes))
    return "\n".join(lines)
