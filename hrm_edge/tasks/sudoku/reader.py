"""The texts that Sudokus come in, line by line: puzzles on a line, boards, rulers, sections, captions."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..reading import CAPTION, Cells, Found, Reader, is_comment, is_words, rows_of
from . import rows
from .rows import Row
from .symbols import Symbols

if TYPE_CHECKING:
    from . import Sudoku

_SECTION = re.compile(r"\[\s*([^\W\d_](?:[\w .-]*[\w.-])?)\s*\]")  # its name ends in one way only
_PUZZLE = ("puzzle", "question", "sudoku")


class SudokuReader(Reader):
    """``shown``: of a board that was drawn with an answer, all that it shows, instead of the question alone.

    ``strict`` as in :class:`Symbols`.
    """

    task: Sudoku

    def __init__(self, task: Sudoku, shown: bool = False, strict: bool = True) -> None:
        super().__init__(task)
        self._symbols = Symbols(task, strict)
        self._shown = shown
        self._rows: list[Row] = []
        self._gaps: list[int] = []  # after how many rows an empty line came
        self._section: str | None = None
        self._doubtful: Row | None = None  # of a board that a caption must explain

    def found(self, puzzles: list[tuple[int, Cells, Cells | None]]) -> Found:
        return self._symbols.found(puzzles)

    # -- puzzles from tables and trees -----------------------------------------------------------------

    def cells(self, line: int, board: Any, what: str) -> Cells:
        task = self.task
        if isinstance(board, str):
            if len(board) == task.seq_len and not rows.SEPARATORS.search(board):
                return board
            inner = SudokuReader(task, self._shown)
            texts = board.replace("\\n", "\n").splitlines() or [""]
        else:
            listed = rows_of(board)
            if isinstance(listed[0], list):
                listed = [
                    cell for row in listed for cell in (row if len(row) == task.n else [None] * (task.seq_len + 1))
                ]
            if all(isinstance(row, str) and len(row) > 2 for row in listed):
                inner, texts = SudokuReader(task, self._shown), listed
            else:
                cells = [_cell(cell) for cell in listed]
                if len(cells) != task.seq_len:
                    shown = len(cells) if len(cells) <= task.seq_len else "rows of other"
                    raise InputError(
                        f"line {line}: {what}puzzle has {shown} cells, expected {task.n} rows of {task.n}"
                    )
                return cells
        try:
            for number, text in enumerate(texts, 1):
                inner.add(number, text)
            inner.end()
        except InputError as error:
            raise InputError(f"line {line}: {what}{_unplaced(error)}") from None
        if len(inner._whole) != 1:
            raise InputError(f"line {line}: {what}{wrong_length(task, ''.join(texts))}")
        return inner._whole[0][1]

    # -- lines -----------------------------------------------------------------------------------------

    def add(self, line: int, text: str) -> None:
        raw, text = text.rstrip("\r\n"), text.strip()
        task = self.task
        if len(text) == task.seq_len and not self._rows and self._section is None and self._doubtful is None:
            other = rows.SEPARATORS.search(text) or rows.is_ruler(text) or is_comment(text)
            if not other:
                self._whole.append((line, text, None))
                return
        try:
            self._add(line, raw.replace("\ufeff", ""), text.replace("\ufeff", ""))
        except InputError as error:
            if re.match(r"line \d+: ", str(error)):
                raise
            raise InputError(f"line {line}: {error}") from None

    def _add(self, line: int, raw: str, text: str) -> None:
        task = self.task
        if is_comment(text):
            return
        if section := _SECTION.fullmatch(text):
            self._close()
            self._section = section[1].lower()
            return
        if self._section is not None and self._section not in _PUZZLE:
            return  # the state of a game, or pencil marks
        if CAPTION.fullmatch(text):
            self._explain(text)
            return
        if not text:
            self._gap(line, raw)
            return
        if is_words(text) and not (len(text) == task.n and text.isalnum()):
            self._close()
            return
        if rows.is_ruler(text):
            if rows.may_be_row(task, text):
                self._rows.append(Row(line, ["-"] * task.n, ["-"] * task.n, maybe=True))
                self._finish_if_whole()
            return
        if (whole := rows.puzzle(task, raw)) is not None:
            self._close()
            self._whole.append((line, *whole))
            return
        row = rows.row(task, line, raw)
        if row is None or (self._rows and any(known.by_place for known in self._rows)):
            row = rows.row_by_place(task, line, raw) or row
        if row is None:
            bare = rows.SEPARATORS.sub("", text)
            if any(not known.maybe for known in self._rows):
                raise InputError(f"this row has {len(bare)} cells, expected {task.n}")
            raise InputError(wrong_length(task, bare))
        self._require_explained()
        if set(row.cells) == {" "}:
            row = replace(row, maybe=True)  # where blanks are marks it is only for the eye
        self._rows.append(row)
        self._finish_if_whole()

    def end(self) -> None:
        self._close()
        self._require_explained()

    # -- boards of several lines -----------------------------------------------------------------------

    def _gap(self, line: int, raw: str) -> None:
        """An empty line ends a board, unless it stands between two bands of boxes."""
        task = self.task
        sure = [row for row in self._rows if not row.maybe]
        if len(raw) == task.n and (not sure or any(row.by_place for row in sure)):
            # Where spaces are blanks this is a row of them; before the first row only the others can tell.
            blank = [" "] * task.n
            self._rows.append(Row(line, blank, blank, by_place=bool(sure), maybe=not sure))
            self._finish_if_whole()
            return
        if not sure:
            self._close()
            return
        if (
            len(sure) % task.box_rows == 0
            and len(sure) < task.n
            and not (self._gaps and self._gaps[-1] == len(sure))
        ):
            self._gaps.append(len(sure))
            return
        if any(row.by_place for row in sure):
            raise InputError(
                f"line {line}: where spaces are blanks, an empty line may be a row of them or the end of a board; "
                "write blanks as dots"
            )
        self._close()

    def _resolved(self) -> list[Row] | None:
        """The rows of the board, rulers told from rows of dashes; None where that is not known yet."""
        sure = [row for row in self._rows if not row.maybe]
        if len(sure) == len(self._rows):
            return sure
        if any(" " in row.cells for row in sure):
            return [row for row in self._rows if not row.maybe or row.cells[0] == " "]
        rest = [row for row in self._rows if not row.maybe or row.cells[0] == "-"]
        if any(rows.has_mark(row.cells) for row in sure):
            return sure
        if any(rows.has_dash(row.cells) for row in sure):
            return rest
        return sure if len(sure) == self.task.n else None

    def _finish_if_whole(self) -> None:
        board = self._resolved()
        if board is not None and len(board) == self.task.n:
            self._finish(board)

    def _close(self) -> None:
        """The board must be whole: what comes next is no part of it."""
        if self._rows and any(not row.maybe for row in self._rows):
            board = self._resolved()
            if board is None:
                board = [row for row in self._rows if not row.maybe or row.cells[0] == "-"]
            if len(board) != self.task.n:
                cells = "".join("".join(row.shown).rstrip() for row in board)
                raise InputError(f"line {board[0].line}: {wrong_length(self.task, cells)}")
            self._finish(board)
        self._rows, self._gaps = [], []

    def _finish(self, board: list[Row]) -> None:
        task = self.task
        bands = list(range(task.box_rows, task.n, task.box_rows))
        if self._gaps and self._gaps != bands:
            raise InputError(
                f"line {board[0].line}: the empty lines in this board stand between some bands of boxes and not "
                "between others; write a board's rows without empty lines between them"
            )
        board = rows.placed(task, board)
        cells = [cell for row in board for cell in (row.shown if self._shown else row.cells)]
        self._whole.append((board[0].line, cells, None))
        self._rows, self._gaps = [], []
        self._doubtful = next((row for row in board if row.doubtful), None) if not self._shown else None

    # -- boards that were drawn with an answer ---------------------------------------------------------

    def _explain(self, caption: str) -> None:
        """What `solve` says below a board; a changed given is one that the board no longer shows."""
        if self._doubtful is not None and "changes the given" in caption:
            raise InputError(
                f"line {self._doubtful.line}: this answer changed a given, so its board does not show the puzzle; "
                "take the puzzle itself"
            )
        self._doubtful = None

    def _require_explained(self) -> None:
        if self._doubtful is not None:
            raise InputError(
                f"line {self._doubtful.line}: a cell that is marked as wrong or changed may have been a given or a "
                "blank; keep the line below the board, or take the puzzle itself"
            )


def wrong_length(task: Sudoku, cells: str) -> str:
    return (
        f"puzzle has {len(cells)} characters, expected {task.seq_len} "
        f"({task.n} rows of {task.n}; '.' or 0 for a blank)"
    )


def _cell(value: Any) -> str:
    """A cell of a list: a number, a symbol, or nothing."""
    if value is None:
        return "."
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"a cell is a number or a symbol, not {value!r}")
    return str(value).strip() or "."


def _unplaced(error: InputError) -> str:
    return re.sub(r"^line \d+: ", "", str(error))
