"""One line of a text: the cells of a row or of a whole puzzle, a ruler, or words beside puzzles."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from ..reading import Cells
from .symbols import BLANKS, MARKS, OTHERS

if TYPE_CHECKING:
    from . import Sudoku

# Between cells: spaces, commas, ASCII rulers, and the box-drawing block.
SEPARATORS = re.compile(r"[\s|+=,;/:'\"─-╿]+")
_BARS = re.compile(r"[|│║┃┆┊]")
# Runs of dashes with single joints between them, as rulers of any program have, or the box-drawing block. A line
# can match in one way only, as in several a long one that is no ruler would take for ever.
_RULER = re.compile(
    r"[|+.:*'`,\s]?(?:[-=─-╿_]{2,}[|+.:*'`,\s]{1,3})*[-=─-╿_]{2,}[|+.:*'`,\s]{0,3}"
    r"|[\s|+=─-╿]*[-+=─━═┄┈╌][\s|+=─-╿]*"
)
# A row as `tasks.boards` draws it: each cell a space, a symbol and the mark of its kind ("5·" was answered).
_DRAWN_ROW = re.compile(r"[│|](?:(?: \S[ ·'*!])+[│|])+")
_DRAWN_CELL = re.compile(r" (\S)([ ·'*!])")
_SIDE_BY_SIDE = re.compile(r"(?<=[│|])  (?=[│|])")
_TABLE = ",;\t"
_FIELDS = re.compile(r"[\s,;:|\"'()\[\]{}<>=]+")


@dataclass(frozen=True)
class Row:
    """Cells of one row: ``shown`` as drawn, ``cells`` without answers; ``doubtful``: one was marked as wrong."""

    line: int
    cells: list[str]
    shown: list[str]
    by_place: bool = False  # spaces are blanks in it
    maybe: bool = False  # or only a ruler, or an empty line
    doubtful: bool = False


def is_ruler(text: str) -> bool:
    return _RULER.fullmatch(text) is not None


def may_be_row(task: Sudoku, text: str) -> bool:
    """Whether a ruler may as well be a row whose blanks are dashes."""
    bare = SEPARATORS.sub("", text)
    return "+" not in text and set(bare) == {"-"} and len(bare) == task.n


def puzzle(task: Sudoku, raw: str) -> tuple[Cells, Cells | None] | None:
    """Question and answer of a line that holds a whole puzzle, whatever stands beside it; None where none does.

    InputError where it holds several.
    """
    size, text = task.seq_len, raw.strip()
    for mark in _TABLE:
        fields = [field.strip(" \"'") for field in (raw if mark == "\t" else text).split(mark)]
        if len(fields) == size and all(map(_is_cell, fields)):
            return fields, None
    if (cells := _characters(task, text, size)) is not None:
        return cells, None
    found = [field for field in _FIELDS.split(text) if len(field) == size and all(map(_is_cell, field))]
    if found:
        return _question_and_answer(task, found)
    if len(raw) == size and set(raw) & {" ", "\xa0"} and _by_place(raw, task):
        return [" " if cell == "\xa0" else cell for cell in raw], None
    return None


def _question_and_answer(task: Sudoku, found: list[str]) -> tuple[Cells, Cells | None]:
    """Which of the boards of a line is which: a question has blanks, an answer has none."""
    marked = [not BLANKS.isdisjoint(board) for board in found]
    if not any(marked):
        marked = ["0" in board for board in found]
    asked = [board for board, has in zip(found, marked, strict=True) if has]
    told = [board for board, has in zip(found, marked, strict=True) if not has]
    if len(set(asked)) == 1 and len(set(told)) <= 1:
        return asked[0], told[0] if told else None
    if not asked and len(set(told)) == 1:
        return told[0], None
    what = "puzzles" if len(set(asked)) > 1 else "answers" if asked else "full boards"
    raise InputError(
        f"this line holds {len(set(asked if what == 'puzzles' else told))} {what} of {task.seq_len} cells, and any "
        "of them could be meant; write one puzzle a line, with its answer beside it or without"
    )


def row(task: Sudoku, line: int, raw: str) -> Row | None:
    """The cells of a line that holds one row; None where it holds anything else."""
    text = raw.strip()
    drawn = _drawn(task, line, text)
    if drawn is not None:
        return drawn
    cells: Cells | None = _boxed(task, text) if _BARS.search(text) else None
    cells = cells or _table(task, raw) or _characters(task, text, task.n)
    if cells is not None:
        return Row(line, list(cells), list(cells))
    return None


def row_by_place(task: Sudoku, line: int, raw: str) -> Row | None:
    """The same where spaces are blanks; at the end of a line they may be lost. See :func:`placed`."""
    raw = raw.replace("\xa0", " ").rstrip()
    narrow, wide = len(raw) <= task.n, len(raw) <= 2 * task.n - 1 and not raw[1::2].strip()
    if not raw or not _by_place(raw, task) or not (narrow or wide) or (len(raw) == task.n and " " not in raw):
        return None
    return Row(line, list(raw), list(raw), by_place=True)


def placed(task: Sudoku, board: list[Row]) -> list[Row]:
    """A board's rows with all their cells, where spaces are blanks: one next to the other, or a space between two.

    InputError where that cannot be told.
    """
    by_place = [row for row in board if row.by_place]
    if not by_place:
        return board
    first = by_place[0].line
    width = max(len("".join(row.cells).rstrip()) for row in by_place)
    is_wide = all(cell == " " for row in by_place for cell in row.cells[1::2])
    marked = [row for row in board if not row.by_place and not MARKS.isdisjoint(row.cells)]
    if marked:
        raise InputError(f"line {marked[0].line}: blanks are marks in this row, and spaces in line {first}")
    if width not in ((2 * task.n - 1,) if is_wide else (task.n,)):
        raise InputError(f"line {first}: no row of this board reaches its last column; write blanks as dots")
    step = 2 if is_wide else 1
    cells = [(row.cells[::step] + [" "] * task.n)[: task.n] if row.by_place else row.cells for row in board]
    return [Row(row.line, filled, filled, by_place=row.by_place) for row, filled in zip(board, cells, strict=True)]


def _by_place(raw: str, task: Sudoku) -> bool:
    """Whether a text is of symbols and spaces alone."""
    symbols = (
        string.digits[1 : task.n + 1]
        if task.n < 10
        else string.digits + string.ascii_letters[:7] + string.ascii_uppercase[: task.n]
    )
    return all(cell in " \xa0" or cell in symbols for cell in raw)


def _drawn(task: Sudoku, line: int, text: str) -> Row | None:
    """Of two boards side by side, which are a question and its answer, the first."""
    sides = _SIDE_BY_SIDE.split(text)
    if len(sides) > 2 or not all(_DRAWN_ROW.fullmatch(side) for side in sides):
        return None
    found = _DRAWN_CELL.findall(sides[0])
    if len(found) != task.n:
        return None
    asked = [symbol if mark == " " else "." for symbol, mark in found]
    return Row(line, asked, [symbol for symbol, _ in found], doubtful=any(mark in "!*" for _, mark in found))


def _boxed(task: Sudoku, text: str) -> list[str] | None:
    """A row in boxes or in cells with bars between them, blanks being marks or spaces."""
    parts = _BARS.split(text)
    if not parts[0].strip() and len(parts) > 1:
        parts = parts[1:]
    if not parts[-1].strip() and len(parts) > 1 and _BARS.search(text[-1]):
        parts = parts[:-1]
    if len(parts) == task.n:
        fields = [part.strip() for part in parts]
        return fields if all(map(_is_cell, fields)) else None
    if task.n % len(parts):
        return None
    wide = task.n // len(parts)
    cells: list[str] = []
    for part in parts:
        inside = _box(task, part, wide)
        if inside is None:
            return None
        cells += inside
    return cells


def _box(task: Sudoku, part: str, wide: int) -> list[str] | None:
    fields = part.replace(",", " ").split()
    if len(fields) == wide and all(map(_is_cell, fields)):
        return fields
    bare = "".join(fields)
    if len(bare) == wide and len({len(field) for field in fields}) == 1:
        return list(bare)
    for first, step in ((0, 1), (1, 2), (0, 2)):
        width = first + (wide - 1) * step + 1 + first
        if (
            len(part) == width
            and not part.replace(" ", "").strip("".join(part[first::step]))
            and _by_place(part, task)
        ):
            places = part[first::step][:wide]
            if len(bare) == len(places.replace(" ", "")):
                return list(places)
    return None


def _table(task: Sudoku, text: str) -> list[str] | None:
    """A row of a table, which may leave cells empty or end in the mark that is between them."""
    for mark in _TABLE:
        fields = [field.strip(" \"'") for field in (text if mark == "\t" else text.strip()).split(mark)]
        if len(fields) == task.n + 1 and not fields[-1]:
            fields = fields[:-1]
        if len(fields) == task.n and all(map(_is_cell, fields)):
            return fields
    fields = text.replace(",", " ").split()
    return fields if len(fields) == task.n and all(map(_is_cell, fields)) else None


def _characters(task: Sudoku, text: str, count: int) -> str | None:
    """``count`` cells of one character each. Numbers of two digits are not taken apart."""
    cells = SEPARATORS.sub("", text)
    if len(cells) != count:
        return None
    if task.n > 9:
        lengths = {len(field) for field in SEPARATORS.split(text) if field}
        if len(lengths) > 1:
            return None
    return cells


def _is_cell(field: str) -> bool:
    return field in BLANKS or (
        field.isascii() and field.isalnum() and (len(field) == 1 or (len(field) == 2 and field.isdigit()))
    )


def has_dash(cells: list[str]) -> bool:
    return "-" in cells


def has_mark(cells: list[str]) -> bool:
    """Whether a blank other than a dash is in use."""
    return any(cell == "0" or (cell in MARKS | OTHERS and cell != "-") for cell in cells)
