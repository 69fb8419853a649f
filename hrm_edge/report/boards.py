"""Boards of the report as small inline SVG, as their task says: wrong cells framed and crossed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..tasks import Task
from ..tasks.base import PADDING
from ..tasks.boards import board
from ..tasks.drawing import WALL, WAY, Drawing

_CELL = 10  # units of the view box
_HALO = "stroke:var(--page);stroke-width:3"


def board_svg(task: Task, puzzle: Mapping[str, Any], side: str, label: str) -> str:
    """One answer ("reference" or "candidate") to a puzzle of the report, as markup; `label` is read aloud."""
    question, answer = (task.read_back(text) for text in (puzzle["question"], puzzle[side]["answer"]))
    other = task.read_back(puzzle["candidate" if side == "reference" else "reference"]["answer"])
    wrong = set(puzzle[side]["wrong"])
    differs = set(np.flatnonzero(answer != other).tolist()) - wrong
    fills = bool(task.drawing.fills)
    # A symbol must stay readable beside its cross; a filled cell is too small on the page for anything else.
    at, wide = (1, 8) if fills else (7, 2)
    crosses = [f"M{x + at} {y + 1}l{wide} {wide}m0 -{wide}l-{wide} {wide}" for x, y in _corners(task, wrong)]
    halo = task.drawing.is_coloured  # so that marks show on cells of any colour
    body = (
        _squares(task, "hit", wrong)
        + (_filled if fills else _symbols)(task, question, answer, wrong)
        + _path("dot", (f"M{x + 7} {y + 0.6}h2.4v2.4z" for x, y in _corners(task, differs)), _HALO if halo else "")
        + (_path("cross", crosses, _HALO) if halo else "")
        + _path("cross", crosses)
    )
    width, height = task.drawn_cols * _CELL, task.drawn_rows * _CELL
    label = escape(label)
    # The style sheet's names for the two ways to draw, of the first tasks that were drawn so.
    kind = "maze" if fills else "sudoku"
    return (
        f'<svg class="board {kind}" viewBox="-1 -1 {width + 2} {height + 2}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{body}</svg>"
    )


def board_legend(task: Task) -> str:
    """What the boards' symbols and fills stand for, as items of a list; empty where they speak for themselves."""
    drawing = task.drawing
    if not drawing.fills:
        example = escape(drawing.example)
        return f'<li><b>{example}</b>&ensp;given</li><li><span class="answered">{example}</span>&ensp;answered</li>'
    return "".join(f"<li>{_key(drawing, symbol)}{escape(name)}</li>" for symbol, name in drawing.names.items())


def _key(drawing: Drawing, symbol: str) -> str:
    fill = drawing.fills.get(symbol)
    if fill is None:
        return f"<b>{escape(symbol)}</b>&ensp;"
    if fill == WAY:
        return '<i class="key way" aria-hidden="true"></i>'
    return f'<i class="key low-box" style="--c: {"var(--wall)" if fill == WALL else fill}" aria-hidden="true"></i>'


def board_text(task: Task, puzzle: Mapping[str, Any], side: str) -> str:
    """The same as plain text, cells that break a rule marked with `!`."""
    question, answer = (task.read_back(text) for text in (puzzle["question"], puzzle[side]["answer"]))
    return board(task, question, answer).plain


def wrong_cells_text(task: Task, cells: Sequence[int], most: int = 8) -> str:
    """The first wrong cells by row and column, counted from 1: "r3c4, r5c9 and 4 more"."""
    if task.rows == 1:
        named = [str(cell + 1) for cell in cells[:most]]
    else:
        named = [f"r{cell // task.cols + 1}c{cell % task.cols + 1}" for cell in cells[:most]]
    return ", ".join(named) + (f" and {len(cells) - most} more" if len(cells) > most else "")


def _symbols(task: Task, question: np.ndarray, answer: np.ndarray, wrong: set[int]) -> str:
    rows, cols = task.drawn_rows, task.drawn_cols
    width, height = cols * _CELL, rows * _CELL
    box_rows, box_cols = task.drawing.box or (rows, cols)
    given = set(np.flatnonzero(task.givens(question)).tolist()) - wrong
    kinds = {"given": given, "answer": set(range(len(answer))) - given - wrong, "bad": wrong}
    thick = [f"M0 {i * _CELL}h{width}" for i in range(0, rows + 1, box_rows)]
    thick += [f"M{i * _CELL} 0v{height}" for i in range(0, cols + 1, box_cols)]
    symbols = (_text(task, name, answer, sorted(cells)) for name, cells in kinds.items())
    return _grid(task) + _path("thick", thick) + "".join(symbols)


def _filled(task: Task, question: np.ndarray, answer: np.ndarray, wrong: set[int]) -> str:
    cells: dict[str, set[int]] = {}
    for cell, symbol in enumerate(_shown(task, answer)):
        cells.setdefault(symbol, set()).add(cell)
    parts = []
    for symbol, fill in task.drawing.fills.items():
        some = cells.pop(symbol, set())
        if fill == WAY:
            parts += [_way(task, "way", some - wrong), _way(task, "way bad", some & wrong)]
        elif fill == WALL:
            parts.append(_squares(task, "wall", some))
        else:
            parts.append(_squares(task, "fill", some, f"fill:{fill}"))
    cells.pop(task.format(np.array([task.blank])), None)
    other = {cell for some in cells.values() for cell in some}  # a maze's start and goal; anything else is wrong
    ends = _text(task, "given", answer, sorted(other - wrong)) + _text(task, "bad", answer, sorted(other & wrong))
    width, height = task.drawn_cols * _CELL, task.drawn_rows * _CELL
    frame = _path("thick", [f"M0 0h{width}v{height}h-{width}z"])
    # Cells of one colour side by side must still be counted.
    return "".join(parts) + (_grid(task) if task.drawing.is_coloured else "") + ends + frame


def _grid(task: Task) -> str:
    """Thin lines between all cells."""
    width, height = task.drawn_cols * _CELL, task.drawn_rows * _CELL
    rows, cols = ([i * _CELL for i in range(1, number)] for number in (task.drawn_rows, task.drawn_cols))
    if len(rows) == len(cols):
        return _path("thin", (f"M0 {at}h{width}M{at} 0v{height}" for at in rows))
    return _path("thin", [*(f"M0 {at}h{width}" for at in rows), *(f"M{at} 0v{height}" for at in cols)])


def _squares(task: Task, name: str, cells: Iterable[int], style: str = "") -> str:
    return _path(name, (f"M{x} {y}h{_CELL}v{_CELL}h-{_CELL}z" for x, y in _corners(task, cells)), style)


def _way(task: Task, name: str, cells: Iterable[int]) -> str:
    return _path(name, (f"M{x + 2} {y + 2}h6v6h-6z" for x, y in _corners(task, cells)))


def _corners(task: Task, cells: Iterable[int]) -> list[tuple[int, int]]:
    return [(cell % task.drawn_cols * _CELL, cell // task.drawn_cols * _CELL) for cell in sorted(cells)]


def _path(name: str, parts: Iterable[str], style: str = "") -> str:
    drawn, look = "".join(parts), f' style="{style}"' if style else ""
    return f'<path class="{name}"{look} d="{drawn}"/>' if drawn else ""


def _shown(task: Task, tokens: np.ndarray) -> list[str]:
    """The symbol of each cell."""
    return [task.vocabulary[token] if token else PADDING for token in tokens.tolist()]


def _text(task: Task, name: str, answer: np.ndarray, cells: Sequence[int]) -> str:
    """One element for all cells of a kind: SVG places every character by itself. Longer symbols take one each."""
    if not cells:
        return ""
    corners, symbols = _corners(task, cells), _shown(task, answer)
    if max(len(symbols[cell]) for cell in cells) > 1:
        return "".join(_long_text(name, symbols[cell], *at) for cell, at in zip(cells, corners, strict=True))
    x, y = (" ".join(str(corner[axis] + offset) for corner in corners) for axis, offset in ((0, 5), (1, 7.9)))
    return f'<text class="{name}" x="{x}" y="{y}">{escape("".join(symbols[cell] for cell in cells))}</text>'


def _long_text(name: str, symbol: str, x: int, y: int) -> str:
    """One symbol, as narrow as its cell."""
    fits = f' textLength="{_CELL - 1}" lengthAdjust="spacingAndGlyphs"' if len(symbol) > 1 else ""
    return f'<text class="{name}" x="{x + 5}" y="{y + 7.9}"{fits}>{escape(symbol)}</text>'
