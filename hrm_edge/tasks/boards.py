"""Boards for the terminal: givens, answers and mistakes told apart by colour, and by marks without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.columns import Columns
from rich.text import Text

from . import Task
from .base import PADDING

if TYPE_CHECKING:
    from ..console import Console

# Kinds of cells, each with its style. Where a cell is of several kinds, the later one wins.
GIVEN, BLANK, ANSWERED, CHANGED, WRONG, CHANGED_WRONG = range(6)
_STYLES = ("bold", "dim", "cyan", "black on yellow", "bold white on red", "bold red on yellow")


@dataclass(frozen=True)
class Glyphs:
    """Characters a stream can show. ``marks`` stand beside a cell, one per kind, and work without colour."""

    marks: str
    across: str
    down: str
    top: tuple[str, str, str]  # left, between boxes, right
    between: tuple[str, str, str]
    bottom: tuple[str, str, str]

    def ruler(self, ends: tuple[str, str, str], widths: list[int]) -> str:
        """A line across boxes of these widths."""
        left, middle, right = ends
        return left + middle.join(self.across * width for width in widths) + right


_EDGE = ("+", "+", "+")
UNICODE = Glyphs("  ·*!!", "─", "│", top=("┌", "┬", "┐"), between=("├", "┼", "┤"), bottom=("└", "┴", "┘"))
ASCII = Glyphs("  '*!!", "-", "|", top=_EDGE, between=_EDGE, bottom=_EDGE)


def glyphs_for(console: Console) -> Glyphs:
    """Box-drawing characters where the output's encoding has them."""
    return UNICODE if console.encoding.lower().startswith("utf") else ASCII


def board(
    task: Task,
    question: np.ndarray,
    answer: np.ndarray | None = None,
    previous: np.ndarray | None = None,
    glyphs: Glyphs = UNICODE,
) -> Text:
    """A board of int32[S] tokens as styled text whose plain form says the same.

    With ``previous``, an earlier guess, cells that differ from it are marked as changed too. One that has changed
    and breaks a rule has the mark of the rule, in a colour of its own.
    """
    shown = question if answer is None else answer
    kinds = _kinds(task, question, shown, previous)
    symbols = [task.vocabulary[token] if token else PADDING for token in shown.tolist()]
    return (_filled if task.drawing.fills else _ruled)(task, symbols, kinds, glyphs)


def legend(
    task: Task,
    question: np.ndarray,
    answer: np.ndarray,
    glyphs: Glyphs = UNICODE,
    previous: np.ndarray | None = None,
) -> Text:
    """One line that explains the marks of :func:`board` for an answer, or for a guess behind ``previous``."""
    return _explained(task, set(_kinds(task, question, answer, previous).tolist()), glyphs)


def trace_legend(task: Task, question: np.ndarray, guesses: np.ndarray, glyphs: Glyphs = UNICODE) -> Text:
    """One line that explains the marks of :func:`trace_boards`."""
    pairs = zip(guesses, [question, *guesses[:-1]], strict=True)
    used = [_kinds(task, question, guess, previous) for guess, previous in pairs]
    return _explained(task, set(np.concatenate(used).tolist()), glyphs)


def _explained(task: Task, used: set[int], glyphs: Glyphs) -> Text:
    names = {GIVEN: "given", ANSWERED: "answered", CHANGED: "changed", WRONG: "breaks a rule"}
    names[CHANGED_WRONG] = "breaks a rule, changed"
    symbol = task.drawing.example
    if task.drawing.fills:
        # What was filled in needs no mark to be seen.
        names, symbol = {kind: names[kind] for kind in (WRONG, CHANGED_WRONG)}, ""
    return Text("   ").join(
        Text.assemble((symbol + glyphs.marks[kind].strip(), _STYLES[kind]), (f" {name}", "dim"))
        for kind, name in names.items()
        if kind in used
    )


def trace_boards(task: Task, question: np.ndarray, guesses: np.ndarray, glyphs: Glyphs = UNICODE) -> Columns:
    """One titled board per segment, side by side: ``guesses`` int32[T, S]. What changed since is marked, and what
    breaks a rule."""
    boards = []
    previous = question
    for number, guess in enumerate(guesses, 1):
        changed = int((guess != previous).sum())
        wrong = int(wrong_cells(task, question, guess).sum())
        title = f"segment {number}: {changed} changed" + (f", {wrong} break a rule" if wrong else "")
        drawn = board(task, question, guess, previous, glyphs)
        boards.append(Text.assemble((title, "italic"), "\n", drawn, "\n"))
        previous = guess
    return Columns(boards, padding=(0, 3))


def wrong_cells(task: Task, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """bool[S]: cells that by themselves show an answer to be wrong; a given is never at fault.

    A changed given, a value that stands twice in a row, column or box, a symbol no answer may hold. (Whether
    a maze's path is connected and shortest is a matter of no single cell.)
    """
    if not task.has_rules:
        return np.zeros(len(answer), bool)
    given = task.givens(question)
    wrong = np.where(given, answer != question, ~np.isin(answer, task.answer_tokens))
    if task.groups is None:
        return wrong
    for cells in task.groups:
        values = answer[cells]
        twice = (values[:, None] == values[None, :]).sum(axis=1) > 1
        wrong[cells[twice & ~given[cells]]] = True
    return wrong


def _kinds(task: Task, question: np.ndarray, shown: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    """int[S]: what each cell is, for its style and mark."""
    given = np.ones(len(question), bool) if shown is question else task.givens(question)
    kinds = np.where(given, GIVEN, ANSWERED)
    kinds[shown == task.blank] = BLANK
    if previous is not None:
        kinds[shown != previous] = CHANGED
    if shown is not question:
        wrong = wrong_cells(task, question, shown)
        kinds[wrong] = np.where(kinds[wrong] == CHANGED, CHANGED_WRONG, WRONG)
    return kinds


def _ruled(task: Task, symbols: list[str], kinds: np.ndarray, glyphs: Glyphs) -> Text:
    """Boxes with rulers between them, every cell with room for its mark."""
    rows, cols = task.drawn_rows, task.drawn_cols
    box_rows, box_cols = task.drawing.box or (rows, cols)
    room = max(map(len, symbols))
    widths = [(2 + room) * box_cols] * (cols // box_cols)
    text = Text()
    for row in range(rows):
        if row % box_rows == 0:
            text.append(glyphs.ruler(glyphs.between if row else glyphs.top, widths) + "\n", "dim")
        for column in range(cols):
            if column % box_cols == 0:
                text.append(glyphs.down, "dim")
            cell = row * cols + column
            if cell >= len(symbols):
                text.append(" " * (2 + room))
                continue
            kind = int(kinds[cell])
            text.append(" " * (1 + room - len(symbols[cell])))
            text.append(symbols[cell] + glyphs.marks[kind], _STYLES[kind])
        text.append(f"{glyphs.down}\n", "dim")
    text.append(glyphs.ruler(glyphs.bottom, widths), "dim")
    return text


def _filled(task: Task, symbols: list[str], kinds: np.ndarray, glyphs: Glyphs) -> Text:
    """A frame around one character per cell; only a wrong cell shows its mark instead of its symbol."""
    text = Text()
    text.append(glyphs.ruler(glyphs.top, [task.cols]), "dim")
    for cell, symbol in enumerate(symbols):
        if cell % task.cols == 0:
            text.append(f"\n{glyphs.down}", "dim")
        kind = int(kinds[cell])
        style = _style(task.drawing.colour(symbol), kind)
        text.append(glyphs.marks[kind] if kind >= WRONG else symbol, style)
        if (cell + 1) % task.cols == 0:
            text.append(glyphs.down, "dim")
    text.append("\n" + glyphs.ruler(glyphs.bottom, [task.cols]), "dim")
    return text


def _style(colour: str | None, kind: int) -> str:
    """The kind's style, or the cell's own colour where it has one; what changed is shown reversed in it."""
    if colour is None or kind >= WRONG:
        return _STYLES[kind]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    ink = "#000000" if 299 * red + 587 * green + 114 * blue > 128_000 else "#ffffff"
    return f"{ink} on {colour}" + (" reverse" if kind == CHANGED else "")
