"""The texts that mazes come in, line by line: a maze a line, or a row a line, framed or not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import InputError
from ..reading import CAPTION, Reader, is_comment, is_words

if TYPE_CHECKING:
    from . import Maze

_EDGE = re.compile(r"\s*[┌└+][─-]+[┐┘+]\s*")
_PATH = "o"


class MazeReader(Reader):
    """``shown``: of a maze that was drawn with its path, the path too, instead of the question alone."""

    task: Maze

    def __init__(self, task: Maze, shown: bool = False) -> None:
        super().__init__(task)
        self._shown = shown
        self._first = 0  # line of the maze that is not whole yet, whose rows are in _lines

    def add(self, line: int, text: str) -> None:
        text = text.rstrip("\r\n").removeprefix("\ufeff")
        row = unframed(text, self.task.cols)
        if row != text and not self._shown:
            row = row.replace(_PATH, " ")  # what was drawn into a frame is an answer
        if not self._lines and len(row) not in (self.task.cols, self.task.seq_len) and self._is_aside(row.strip()):
            return
        try:
            if self._lines and (len(self._lines) == self.task.rows or not row):
                self._finish()
            if not self._lines and len(row) == self.task.seq_len:
                self._whole.append((line, row, None))
            elif row:
                self._first = self._first if self._lines else line
                self._lines.append(row)
                if len(self._lines) == self.task.rows:
                    self._finish()
        except InputError as error:
            raise InputError(f"line {self._first or line}: {error}") from None

    def end(self) -> None:
        try:
            if self._lines:
                self._finish()
        except InputError as error:
            raise InputError(f"line {self._first}: {error}") from None

    def _finish(self) -> None:
        rows, self._lines = self._lines, []
        self._whole.append((self._first, self.task.format(self.task.parse("\n".join(rows))), None))

    def _is_aside(self, text: str) -> bool:
        """Whether a line is no row, but a title or what `solve` says below a maze."""
        if text.startswith("#") and not set(text) - set("#SGo ._"):
            return False  # a wall
        return is_words(text) or is_comment(text) or CAPTION.fullmatch(text) is not None


def unframed(line: str, cols: int) -> str:
    """A line without the frame that :mod:`hrm_edge.tasks.boards` draws; its top and bottom become empty lines."""
    if _EDGE.fullmatch(line):
        return ""
    row = re.fullmatch(rf"\s*[│|](.{{{cols}}})[│|]\s*", line)
    return row[1] if row else line
