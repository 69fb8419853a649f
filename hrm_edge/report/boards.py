"""Boards of the report as small inline SVG: givens bold, answers light, wrong cells framed and crossed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..tasks import Sudoku, Task
from ..tasks.boards import board

_CELL = 10  # units of the view box


def board_svg(task: Task, puzzle: Mapping[str, Any], side: str, label: str) -> str:
    """One answer ("reference" or "candidate") to a puzzle of the report, as markup; `label` is read aloud."""
    question, answer = puzzle["question"], puzzle[side]["answer"]
    other = puzzle["candidate" if side == "reference" else "reference"]["answer"]
    wrong = set(puzzle[side]["wrong"])
    differs = {cell for cell in range(len(answer)) if answer[cell] != other[cell]} - wrong
    draw = _sudoku if isinstance(task, Sudoku) else _maze
    # A number must stay readable beside its cross; a maze's cell is too small on the page for anything else.
    at, wide = (7, 2) if isinstance(task, Sudoku) else (1, 8)
    marks = [
        _path("hit", (f"M{x} {y}h{_CELL}v{_CELL}h-{_CELL}z" for x, y in _corners(task, wrong))),
        _path("dot", (f"M{x + 7} {y + 0.6}h2.4v2.4z" for x, y in _corners(task, differs))),
        _path(
            "cross", (f"M{x + at} {y + 1}l{wide} {wide}m0 -{wide}l-{wide} {wide}" for x, y in _corners(task, wrong))
        ),
    ]
    body = marks[0] + draw(task, question, answer, wrong) + marks[1] + marks[2]
    width, height = task.cols * _CELL, task.rows * _CELL
    label = escape(label)
    kind = "sudoku" if isinstance(task, Sudoku) else "maze"
    return (
        f'<svg class="board {kind}" viewBox="-1 -1 {width + 2} {height + 2}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{body}</svg>"
    )


def board_text(task: Task, puzzle: Mapping[str, Any], side: str) -> str:
    """The same as plain text, cells that break a rule marked with `!`."""
    question, answer = (tokens_of(task, text) for text in (puzzle["question"], puzzle[side]["answer"]))
    return board(task, question, answer).plain


def wrong_cells_text(task: Task, cells: Sequence[int], most: int = 8) -> str:
    """The first wrong cells by row and column, counted from 1: "r3c4, r5c9 and 4 more"."""
    named = [f"r{cell // task.cols + 1}c{cell % task.cols + 1}" for cell in cells[:most]]
    return ", ".join(named) + (f" and {len(cells) - most} more" if len(cells) > most else "")


def tokens_of(task: Task, text: str) -> np.ndarray:
    """int32[S]: a board of the report as tokens, `?` being the padding token."""
    tokens = {symbol: token for token, symbol in enumerate(task.vocabulary)} | {"?": 0}
    return np.array([tokens[symbol] for symbol in text], np.int32)


def _sudoku(task: Task, question: str, answer: str, wrong: set[int]) -> str:
    assert isinstance(task, Sudoku)
    n, size = task.n, task.n * _CELL
    empty = task.vocabulary[task.blank]
    given = {cell for cell, symbol in enumerate(question) if symbol != empty} - wrong
    kinds = {"given": given, "answer": set(range(len(answer))) - given - wrong, "bad": wrong}
    thin = [f"M0 {i * _CELL}h{size}M{i * _CELL} 0v{size}" for i in range(1, n)]
    thick = [f"M0 {i * _CELL}h{size}" for i in range(0, n + 1, task.box_rows)]
    thick += [f"M{i * _CELL} 0v{size}" for i in range(0, n + 1, task.box_cols)]
    symbols = (_text(task, name, answer, sorted(cells)) for name, cells in kinds.items())
    return _path("thin", thin) + _path("thick", thick) + "".join(symbols)


def _maze(task: Task, question: str, answer: str, wrong: set[int]) -> str:
    cells: dict[str, list[int]] = {}
    for cell, symbol in enumerate(answer):
        cells.setdefault(symbol, []).append(cell)
    walls = _path("wall", (f"M{x} {y}h{_CELL}v{_CELL}h-{_CELL}z" for x, y in _corners(task, cells.pop("#", []))))
    path = set(cells.pop("o", []))
    way = _way("way", _corners(task, path - wrong)) + _way("way bad", _corners(task, path & wrong))
    cells.pop(" ", None)
    other = {cell for some in cells.values() for cell in some}  # start and goal; anything else is wrong there
    ends = _text(task, "given", answer, sorted(other - wrong)) + _text(task, "bad", answer, sorted(other & wrong))
    frame = _path("thick", [f"M0 0h{task.cols * _CELL}v{task.rows * _CELL}h-{task.cols * _CELL}z"])
    return walls + way + ends + frame


def _way(name: str, corners: Iterable[tuple[int, int]]) -> str:
    return _path(name, (f"M{x + 2} {y + 2}h6v6h-6z" for x, y in corners))


def _corners(task: Task, cells: Iterable[int]) -> list[tuple[int, int]]:
    return [(cell % task.cols * _CELL, cell // task.cols * _CELL) for cell in sorted(cells)]


def _path(name: str, parts: Iterable[str]) -> str:
    drawn = "".join(parts)
    return f'<path class="{name}" d="{drawn}"/>' if drawn else ""


def _text(task: Task, name: str, answer: str, cells: Sequence[int]) -> str:
    """One element for all cells of a kind: SVG places every character by itself."""
    if not cells:
        return ""
    corners = _corners(task, cells)
    x, y = (" ".join(str(corner[axis] + offset) for corner in corners) for axis, offset in ((0, 5), (1, 7.9)))
    return f'<text class="{name}" x="{x}" y="{y}">{escape("".join(answer[cell] for cell in cells))}</text>'
