"""Sudoku boards as text: one-line puzzles, grids with or without rulers, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .base import Tokens

if TYPE_CHECKING:
    from .sudoku import Sudoku

# Between cells: spaces, ASCII rulers, and the box-drawing block.
_SEPARATORS = re.compile(r"[\s|+=,─-╿]+")
_RULER = re.compile(r"[\s|+=─-╿-]+")


def parse(task: Sudoku, text: str) -> Tokens:
    """One puzzle, on one line or as a grid."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        lines = _without_rulers(task, lines)
    return _tokens(task, _SEPARATORS.sub("", "".join(lines)))


def _without_rulers(task: Sudoku, lines: list[str]) -> list[str]:
    """Drop ruler lines. A line of dashes alone may also be a row of blanks: it is, if n rows need it."""
    kept = [line for line in lines if not _RULER.fullmatch(line)]
    return lines if len(kept) < task.n == len(lines) else kept


def _tokens(task: Sudoku, cells: str) -> Tokens:
    if len(cells) != task.seq_len:
        raise InputError(
            f"puzzle has {len(cells)} characters, expected {task.seq_len} "
            f"({task.n} rows of {task.n}; '.' or 0 for a blank)"
        )
    table = task.character_tokens()
    tokens = np.array([table[ord(c)] if ord(c) < 256 else -1 for c in cells], np.int32)
    wrong = np.flatnonzero(tokens < 0)
    if wrong.size:
        what = f"a digit 1-{task.n}" if task.n < 10 else f"one of 1-9 A-{task.vocabulary[-1]}"
        raise InputError(f"{cells[wrong[0]]!r} at {task.where(wrong[0])} is not {what} or a blank ('.' or 0)")
    return tokens


def parse_many(task: Sudoku, text: str) -> list[Tokens]:
    """Every puzzle of a text: S cells on a line, or n lines of n cells; ``#`` starts a comment line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if (plain := task.parse_lines([line.strip() for line in lines])) is not None:
        return list(plain)
    found: list[Tokens] = []
    grid: list[str] = []
    first = 0

    def finish() -> None:
        if grid:
            found.append(_at_line(first, task, "\n".join(grid)))
            grid.clear()

    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            finish()
            continue
        if line.lstrip().startswith("#"):
            continue
        width = len(_SEPARATORS.sub("", line))
        ruler = _RULER.fullmatch(line) is not None
        if ruler and (width != task.n or any(c in line for c in "+|=")) and width != task.seq_len:
            continue
        if width != task.n and not grid:
            found.append(_at_line(number, task, line))
            continue
        if not grid:
            first = number
        grid.append(line)
        cells = sum(len(_SEPARATORS.sub("", row)) for row in grid if not _RULER.fullmatch(row))
        if cells >= task.seq_len:
            finish()
    finish()
    return found


def _at_line(number: int, task: Sudoku, text: str) -> Tokens:
    try:
        return parse(task, text)
    except InputError as error:
        raise InputError(f"line {number}: {error}") from None


def render(task: Sudoku, question: Tokens, answer: Tokens | None = None) -> str:
    """A grid with rulers between boxes; :func:`parse` reads it back."""
    shown = question if answer is None else np.where(question == task.blank, answer, question)
    symbols = [task.vocabulary[t] if t else "?" for t in np.asarray(shown).tolist()]
    width = 2 * task.box_cols
    ruler = "+".join(["-" * width, *["-" * (width + 1)] * (task.n // task.box_cols - 1)])
    lines = []
    for row in range(task.n):
        if row and row % task.box_rows == 0:
            lines.append(ruler)
        cells = symbols[row * task.n : (row + 1) * task.n]
        boxes = [" ".join(cells[c : c + task.box_cols]) for c in range(0, task.n, task.box_cols)]
        lines.append(" | ".join(boxes))
    return "\n".join(lines)
