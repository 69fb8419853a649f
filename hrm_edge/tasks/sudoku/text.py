"""Sudoku boards as text: one puzzle, the puzzles of a text, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..base import Tokens
from .reader import SudokuReader, wrong_length

if TYPE_CHECKING:
    from . import Sudoku


def parse(task: Sudoku, text: str) -> Tokens:
    """One puzzle, on one line or as a grid; of a drawn board what it shows, answers included."""
    found = parse_many(task, text)
    if not found:
        raise InputError(wrong_length(task, ""))
    if len(found) > 1:
        raise InputError(f"{len(found)} puzzles where one is asked for")
    return found[0]


def parse_many(task: Sudoku, text: str) -> list[Tokens]:
    """Every puzzle of a text: S cells on a line, or n lines of n cells; ``#`` starts a comment line."""
    reader = SudokuReader(task, shown=True, strict=False)
    for number, line in enumerate(text.splitlines(), 1):
        reader.add(number, line)
    reader.end()
    found = reader.take()
    return [] if found is None else list(found.questions)


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
