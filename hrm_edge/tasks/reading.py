"""Puzzles out of the texts of one source, as they come: the same for a file, a stream and an argument."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from .base import Task

Cells = str | list[str]  # of a board, row by row: a character each, or a text each

# Lines that programs write beside boards: "Grid 01", and what `solve` and `data show` say. What may be marks and
# spaces twice in a row gives none back, as a long line of them that is no such title would take for ever.
_WORDS = re.compile(
    r"(?!solu|answer|solved|l(?:ö|oe)sung)[^\W\d_]{3,}[\s.:#_-]*+(?:no\.?|nr\.?)?\s*+\d{1,6}(?:\s*[(\[][^()\[\]]*[)\]])?\W*"
    r"|sep=.?"
    r"|(?:\S[·'!]? (?:given|answered|breaks a rule)(?: {3})?)+"
    r"|\d+\. .+, rating \d+|\d+ puzzles: .*",
    re.IGNORECASE,
)
CAPTION = re.compile(r"(?:NOT )?verified\b.*, \d+ segments?, [\d.]+ ms.*")


@dataclass(frozen=True, eq=False)
class Found:
    """Puzzles in the order in which they came: ``questions``, ``answers`` int32[K, S], and each one's line.

    An answer that is not given is all padding.
    """

    lines: list[int]
    questions: np.ndarray
    answers: np.ndarray


class Reader:
    """What one source holds: ``put`` a puzzle or ``add`` lines, ``take`` those that are whole, ``end`` it.

    InputError names the line of anything that cannot be read, or that can be read in two ways. A task whose puzzles
    come in more layouts than its ``parse`` and ``parse_many`` know has a reader of its own.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._whole: list[tuple[int, Cells, Cells | None]] = []
        self._lines: list[str] = []

    def put(self, line: int, question: Any, answer: Any = None) -> None:
        """A puzzle that some table or tree holds: a text, or lists of rows or cells."""
        asked = self.cells(line, question, "")
        self._whole.append((line, asked, None if is_missing(answer) else self.cells(line, answer, "answer: ")))

    def add(self, line: int, text: str) -> None:
        """The next line of a text of puzzles, without its end."""
        self._lines.append(text)

    def end(self) -> None:
        """There are no more lines."""
        self._whole += [
            (row, self.task.format(tokens), None)
            for row, tokens in enumerate(self.task.parse_many("\n".join(self._lines)), 1)
        ]

    def take(self) -> Found | None:
        """What is whole and was not taken before; None where there is nothing."""
        waiting, self._whole = self._whole, []
        return self.found(waiting) if waiting else None

    def forget(self, line: int) -> bool:
        """Drop the puzzle of a line, if one is whole there and was not taken."""
        before = len(self._whole)
        self._whole = [puzzle for puzzle in self._whole if puzzle[0] != line]
        return len(self._whole) < before

    def cells(self, line: int, board: Any, what: str) -> Cells:
        """The cells of a puzzle that was put."""
        if not isinstance(board, str):
            board = "\n".join(row if isinstance(row, str) else "".join(map(str, row)) for row in rows_of(board))
        if len(board) == self.task.seq_len:
            return board
        try:
            return self.task.format(self.task.parse(board))
        except InputError as error:
            raise InputError(f"line {line}: {what}{error}") from None

    def found(self, puzzles: list[tuple[int, Cells, Cells | None]]) -> Found:
        """The tokens of ``puzzles``."""
        lines = [line for line, _, _ in puzzles]
        questions = self._tokens(lines, [question for _, question, _ in puzzles], "")
        answers = np.zeros_like(questions)
        given = [row for row, (_, _, answer) in enumerate(puzzles) if answer is not None]
        if given:
            texts = [puzzles[row][2] or "" for row in given]
            answers[given] = self._tokens([lines[row] for row in given], texts, "answer: ")
        return Found(lines, questions, answers)

    def _tokens(self, lines: list[int], boards: Sequence[Cells], what: str) -> np.ndarray:
        texts = ["".join(cells) for cells in boards]
        tokens = self.task.parse_lines(texts)
        if tokens is not None:
            return tokens
        rows = []
        for line, text in zip(lines, texts, strict=True):
            try:
                rows.append(self.task.parse(text))
            except InputError as error:
                raise InputError(f"line {line}: {what}{error}") from None
        return np.stack(rows)


def is_missing(answer: Any) -> bool:
    """Whether a table or tree has nothing where an answer could stand."""
    return answer is None or (isinstance(answer, str) and not answer.strip()) or answer == []


def rows_of(board: Any) -> list[Any]:
    """A board's rows, or its cells, out of a list. InputError where it is none."""
    if not isinstance(board, list) or not board:
        raise InputError(f"a board is a text or a list of rows, not {type(board).__name__}")
    kinds = {type(row) for row in board}
    if list in kinds and kinds != {list}:
        raise InputError("a board's rows are lists, or all of them texts")
    return board


def is_comment(text: str) -> bool:
    """``#``, ``//``, ``%``, and ``;`` before words."""
    return text.startswith(("#", "//", "%")) or (text[:1] == ";" and bool(re.search(r"[^\W\d_]{2}", text)))


def is_words(text: str) -> bool:
    """Whether a line is a title or a legend, and no part of any board."""
    return _WORDS.fullmatch(text) is not None
