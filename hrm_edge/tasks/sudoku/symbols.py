"""What the symbols of a Sudoku stand for: 1-9 A-G, 0-9 A-F, or A-P, told by which of them are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..reading import Cells, Found

if TYPE_CHECKING:
    from . import Sudoku

# Blanks beside 0, which is one only where no symbols begin with it. Each of the others is one only where no other
# blank is in use, as it may be a slip there.
MARKS = frozenset(".*_-")
OTHERS = frozenset("xX?·•∙⋅□–—−")
_EMPTY = frozenset(("", " "))  # in a table, or where places tell what is blank
BLANKS = MARKS | OTHERS | _EMPTY
_DIGITS = "0123456789ABCDEFG"


def _plain(cells: Cells) -> Cells:
    """Numbers without a leading zero."""
    if isinstance(cells, str):
        return cells
    return [cell[1:] if len(cell) == 2 and cell[0] == "0" else cell for cell in cells]


@dataclass(frozen=True)
class Basis:
    """One way to write the values 1..n: ``tokens`` of its symbols, and whether 0 is among them."""

    label: str
    tokens: dict[str, int]
    has_zero: bool = False

    def read(self, cells: Iterable[str], blank: int) -> tuple[int, ...] | None:
        """A token a cell, None where one is no symbol and no blank."""
        try:
            return tuple(blank if cell in BLANKS else self.tokens[cell] for cell in cells)
        except KeyError:
            return None


def _bases(n: int, blank: int) -> list[Basis]:
    """The ways in which boards of n × n are written; the first is ours."""

    def basis(symbols: str, label: str, first: int | None = None) -> Basis:
        tokens = {symbol: value + 2 for value, symbol in enumerate(symbols)}
        tokens |= {symbol.lower(): token for symbol, token in tokens.items()}
        if first is not None:  # numbers of two digits, where cells stand apart
            tokens |= {str(number): number - first + 2 for number in range(10, n + first)}
        if "0" not in tokens:
            tokens["0"] = blank
        return Basis(label, tokens, "0" in symbols)

    letters = "".join(chr(ord("A") + value) for value in range(n))
    ours = basis(_DIGITS[1 : n + 1], f"1-9 A-{_DIGITS[n]}" if n > 9 else f"1-{n}", 1)
    zero = basis(_DIGITS[:n], f"0-9 A-{_DIGITS[n - 1]}" if n > 10 else f"0-{n - 1}", 0)
    return [ours, zero, basis(letters, f"A-{letters[-1]}")] if n > 9 else [ours, zero]


class Symbols:
    """Reads the boards of one source, all of which must be written in one way.

    ``strict``: a board that can be read in two ways is refused unless another one settles it; else it is read in
    ours.
    """

    def __init__(self, task: Sudoku, strict: bool = True) -> None:
        self._task = task
        self._strict = strict
        self._bases = _bases(task.n, task.blank)
        self._settled: set[int] | None = None
        self._by = 0  # line of the board that settled it

    def found(self, puzzles: list[tuple[int, Cells, Cells | None]]) -> Found:
        """The tokens of ``puzzles``: line, question and answer of each."""
        lines = [line for line, _, _ in puzzles]
        quick = self._quickly(puzzles)
        if quick is not None:
            return Found(lines, *quick)
        possible = [
            self._possible(line, _plain(question), None if answer is None else _plain(answer))
            for line, question, answer in puzzles
        ]
        for line, readings in zip(lines, possible, strict=True):
            if len(set(readings.values())) == 1:
                self._settle(line, set(readings))
        rows = [self._chosen(line, readings) for line, readings in zip(lines, possible, strict=True)]
        questions = np.array([question for question, _ in rows], np.int32)
        answers = np.array([answer or (0,) * self._task.seq_len for _, answer in rows], np.int32)
        return Found(lines, questions, answers)

    def _quickly(self, puzzles: list[tuple[int, Cells, Cells | None]]) -> tuple[np.ndarray, np.ndarray] | None:
        """All at once, where boards of one character a cell can be read in no other way than ours."""
        if self._task.n > 9 or not all(isinstance(question, str) for _, question, _ in puzzles):
            return None
        texts = ["".join(question) for _, question, _ in puzzles]
        given = [row for row, (_, _, answer) in enumerate(puzzles) if answer is not None]
        known = ["".join(puzzles[row][2] or ()) for row in given]
        if any("0" in text for text in known):
            return None
        if any("0" in text and not MARKS.isdisjoint(text) for text in texts):
            return None
        questions, answers = self._task.parse_lines(texts), self._task.parse_lines(known)
        if questions is None or answers is None:
            return None
        spread = np.zeros_like(questions)
        spread[given] = answers
        return questions, spread

    def _possible(
        self, line: int, question: Cells, answer: Cells | None
    ) -> dict[int, tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Tokens of question and answer by the number of each basis in which they can be read; at least one."""
        blank = self._task.blank
        self._check_blanks(line, question, "")
        marked = any(cell in BLANKS for cell in question)
        zero = "0" in question
        found = {}
        for number, basis in enumerate(self._bases):
            asked = basis.read(question, blank)
            told = None if answer is None else basis.read(answer, blank)
            if asked is None or (answer is not None and told is None):
                continue
            if basis.has_zero and not self._may_have_zero(question, answer, marked):
                continue
            found[number] = asked, told
        if not found:
            raise self._unreadable(line, question, answer)
        # Whoever marks blanks otherwise means a symbol by 0. Of small boards nobody is known to.
        if zero and marked and self._task.n > 9 and any(self._bases[number].has_zero for number in found):
            found = {number: both for number, both in found.items() if self._bases[number].has_zero}
        full = {
            number: both
            for number, both in found.items()
            if both[1] and len(set(both[1]) - {blank}) == self._task.n
        }
        full = {number: both for number, both in full.items() if blank not in (both[1] or ())}
        return full or found

    def _may_have_zero(self, question: Cells, answer: Cells | None, marked: bool) -> bool:
        """Whether 0 may be a symbol: some other mark is a blank then, or there are no blanks at all."""
        if self._task.n < 10 and "0" not in question and "0" not in (answer or ()):
            return False
        if marked or "0" not in question:
            return True
        symbols = set(question)
        return len(symbols) == self._task.n and all(list(question).count(s) == self._task.n for s in symbols)

    def _settle(self, line: int, numbers: set[int]) -> None:
        if len(numbers) == len(self._bases):
            return  # an empty board tells nothing
        both = numbers if self._settled is None else self._settled & numbers
        if not both:
            here, before = (
                " or ".join(self._bases[k].label for k in sorted(some)) for some in (numbers, self._settled or ())
            )
            raise InputError(
                f"line {line}: the symbols of this puzzle are {here}, those of line {self._by} {before}; "
                "write all puzzles of a file in one way"
            )
        if both != self._settled:
            self._settled, self._by = both, line

    def _chosen(
        self, line: int, readings: dict[int, tuple[tuple[int, ...], tuple[int, ...] | None]]
    ) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        if self._settled is not None:
            readings = {k: both for k, both in readings.items() if k in self._settled} or readings
        if len(set(readings.values())) > 1 and self._strict:
            ways = " or ".join(self._bases[number].label for number in sorted(readings))
            mark = "0 is" if self._task.n > 9 else "one mark is"
            raise InputError(
                f"line {line}: this puzzle can be read in two ways, its symbols being {ways}; where they are "
                f"{self._bases[0].label}, write it so that {mark} the only blank"
            )
        return readings[min(readings)]

    def _check_blanks(self, line: int, cells: Cells, what: str) -> None:
        """InputError where an unusual blank stands beside another one."""
        used = set(cells)
        odd = used & OTHERS
        if odd and len({"x" if mark == "X" else mark for mark in used & (BLANKS | {"0"}) - _EMPTY}) > 1:
            if "0" in used and len(used & (BLANKS - _EMPTY)) == 1 and self._task.n > 9:
                return  # the only blank, and 0 a symbol
            cell = next(cell for cell, symbol in enumerate(cells) if symbol in odd)
            raise InputError(f"line {line}: {what}{self._wrong(cells, cell)}")

    def _unreadable(self, line: int, question: Cells, answer: Cells | None) -> InputError:
        """Names the first cell that is nothing in the basis that reads most of them."""
        for what, cells in (("", question), ("answer: ", answer or "")):
            for cell, symbol in enumerate(cells):
                if symbol not in BLANKS and symbol not in self._bases[0].tokens:
                    return InputError(f"line {line}: {what}{self._wrong(cells, cell)}")
        return InputError(f"line {line}: question and answer are written with different symbols")

    def _wrong(self, cells: Cells, cell: int) -> str:
        n = self._task.n
        what = f"a digit 1-{n}" if n < 10 else f"one of {self._bases[0].label}"
        return f"{cells[cell]!r} at {self._task.where(cell)} is not {what} or a blank ('.' or 0)"
