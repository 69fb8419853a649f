"""Sudoku of any box shape: tokens 0 padding, 1 blank, 2..n+1 the digits 1..n."""

from __future__ import annotations

import functools
import re

import numpy as np

from ...errors import InputError
from ..base import Symmetry, Task, Tokens
from ..drawing import Drawing
from . import symmetry as sudoku_symmetry
from . import text as sudoku_text
from .generator import DIFFICULTIES, generate_puzzle
from .reader import SudokuReader
from .search import SudokuSearch

SYMBOLS = "123456789ABCDEFG"  # larger boards take minutes each to generate
BLANKS = ".0*_-"


class Sudoku(Task):
    """An n × n board, n = ``box_rows`` · ``box_cols``; every row, column and box holds each digit once."""

    spellings = "sudoku (9x9), sudoku-4x4, sudoku-6x6, sudoku-NxN, sudoku-NxN-RxC (boxes of R rows and C columns)"
    blank = 1
    groups: np.ndarray
    value_tokens: np.ndarray
    difficulties = tuple(DIFFICULTIES)

    def __init__(self, box_rows: int, box_cols: int) -> None:
        n = box_rows * box_cols
        self.box_rows, self.box_cols, self.n = box_rows, box_cols, n
        self.rows = self.cols = n
        self.name = f"sudoku-{n}x{n}"
        if (box_rows, box_cols) != _squarest_box(n):
            self.name += f"-{box_rows}x{box_cols}"
        self.vocabulary = ("<pad>", ".", *SYMBOLS[:n])
        small = {symbol.lower(): value + 2 for value, symbol in enumerate(SYMBOLS[:n])}
        self.aliases = dict.fromkeys(BLANKS, self.blank) | small
        self.drawing = Drawing(box=(box_rows, box_cols))

        cell = np.arange(n * n)
        row, col = cell // n, cell % n
        box = row // box_rows * (n // box_cols) + col // box_cols
        self.position_ids = np.stack([row, n + col, 2 * n + box]).astype(np.int32)
        self.n_positions = 3 * n
        units = [np.flatnonzero(unit == k) for unit in (row, col, box) for k in range(n)]
        self.groups = np.stack(units).astype(np.int32)
        self.value_tokens = np.arange(2, n + 2, dtype=np.int32)

    @classmethod
    def from_name(cls, name: str) -> Sudoku | None:
        if name == "sudoku":
            return cls(3, 3)
        match = re.fullmatch(r"sudoku-(\d{1,3})x(\d{1,3})(?:-(\d{1,2})x(\d{1,2}))?", name)
        return cls.of_side(*(int(group) if group else 0 for group in match.groups())) if match else None

    @classmethod
    def of_side(cls, side: int, other: int, box_rows: int = 0, box_cols: int = 0) -> Sudoku:
        """The ``side`` × ``other`` Sudoku, with the squarest boxes unless their shape is given."""
        if side != other:
            raise InputError(f"a Sudoku is square, not {side}x{other}; write sudoku-{side}x{side}")
        if not box_rows:
            box_rows, box_cols = _squarest_box(side)
        if box_rows * box_cols != side or min(box_rows, box_cols) < 2:
            shape = f"boxes of {box_rows}x{box_cols}" if box_rows else "boxes"
            raise InputError(f"sudoku-{side}x{side} cannot have {shape}: rows × columns of a box must be {side}, "
                             "both at least 2 (as in sudoku-6x6-2x3)")  # fmt: skip
        if side > len(SYMBOLS):
            raise InputError(f"sudoku-{side}x{side} is too large: boards go up to 16x16")
        return cls(box_rows, box_cols)

    @functools.cached_property
    def numbers(self) -> dict[int, int]:
        """Digits as themselves, letters as the numbers that they stand for, 0 for a blank."""
        return {0: self.blank, **{digit: digit + 1 for digit in range(1, self.n + 1)}}

    @functools.cached_property
    def searcher(self) -> SudokuSearch:
        """The exact solver, built on first use (a model alone does not need it)."""
        return SudokuSearch(self.box_rows, self.box_cols)

    # -- text ------------------------------------------------------------------------------------------

    def parse(self, text: str) -> Tokens:
        return sudoku_text.parse(self, text)

    def parse_many(self, text: str) -> list[Tokens]:
        return sudoku_text.parse_many(self, text)

    def reader(self) -> SudokuReader:
        return SudokuReader(self)

    def render(self, question: Tokens, answer: Tokens | None = None) -> str:
        return sudoku_text.render(self, question, answer)

    # -- rules -----------------------------------------------------------------------------------------

    def check_question(self, tokens: Tokens) -> None:
        tokens = np.asarray(tokens)
        self._check_tokens(tokens)
        values = np.sort(tokens[self.groups], axis=1)
        twice = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] > self.blank)
        for index in np.flatnonzero(twice.any(axis=1)):
            value = values[index, 1:][twice[index]][0]
            cells = self.groups[index]
            raise InputError(self._clash(int(index), int(value), cells[tokens[cells] == value]))

    def first_wrong(self, questions: np.ndarray) -> int | None:
        if questions.ndim != 2 or questions.shape[1] != self.seq_len:
            return super().first_wrong(questions)
        inside = ((questions >= 1) & (questions < self.vocab_size)).all(axis=1)
        # Values are bits: where none is there twice, their sum is what they are together.
        bits = np.where(questions > self.blank, np.int64(1) << np.clip(questions - 2, 0, self.n - 1), 0)[
            :, self.groups
        ]
        good = inside & (np.bitwise_or.reduce(bits, axis=2) == bits.sum(axis=2)).all(axis=1)
        return None if good.all() else int(np.argmin(good))

    def _clash(self, group: int, value: int, cells: np.ndarray) -> str:
        kind, number = ("row", "column", "box")[group // self.n], group % self.n + 1
        rows, cols = cells // self.n + 1, cells % self.n + 1
        if kind == "box":
            place = " and ".join(f"row {r}, column {c}" for r, c in zip(rows, cols, strict=True))
        else:
            lines = [str(x) for x in (cols if kind == "row" else rows)]
            place = f"{'columns' if kind == 'row' else 'rows'} {', '.join(lines[:-1])} and {lines[-1]}"
        how_many = {2: "two", 3: "three"}.get(len(cells), str(len(cells)))
        return f"{how_many} {self.vocabulary[value]}s in {kind} {number} ({place})"

    def verify(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        questions, answers = np.asarray(questions), np.asarray(answers)
        filled = ((answers >= 2) & (answers < self.vocab_size)).all(axis=1)
        bits = np.int32(1) << np.clip(answers - 2, 0, self.n - 1).astype(np.int32)
        complete = np.bitwise_or.reduce(bits[:, self.groups], axis=2) == (1 << self.n) - 1
        kept = ((questions == self.blank) | (questions == answers)).all(axis=1)
        return filled & complete.all(axis=1) & kept

    def why_wrong(self, question: Tokens, answer: Tokens) -> str:
        try:
            self.check_question(answer)
        except InputError as error:
            return str(error)
        return f"no digit at {self.where(np.flatnonzero(np.asarray(answer) == self.blank)[0])}"

    def solve(self, question: Tokens) -> Tokens | None:
        found = self.searcher.search(self._state(question)).solutions
        return np.array(self.searcher.digits(found[0]), np.int32) + 2 if found else None

    def count_solutions(self, question: Tokens, limit: int = 2) -> int:
        """How many solutions there are, counting no further than ``limit``."""
        return len(self.searcher.search(self._state(question), limit).solutions)

    def rating(self, question: Tokens, answer: Tokens | None = None) -> int:
        """How many cells :meth:`solve` had to guess in (0: naked and hidden singles are enough)."""
        return self.searcher.search(self._state(question)).guesses

    def _state(self, question: Tokens) -> int:
        return self.searcher.state([t - 2 for t in np.asarray(question).tolist()])

    def generate_one(self, rng: np.random.Generator, difficulty: str) -> tuple[Tokens, Tokens]:
        self.check_difficulty(difficulty)
        givens, digits = generate_puzzle(self.searcher, rng, DIFFICULTIES[difficulty])
        return np.array(givens, np.int32) + 2, np.array(digits, np.int32) + 2

    # -- symmetries ------------------------------------------------------------------------------------

    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Digit permutation; bands and rows in them; stacks and columns in them; transpose if boxes are square."""
        n = self.n
        rows = _shuffled_lines(rng, count, n, self.box_rows)
        cols = _shuffled_lines(rng, count, n, self.box_cols)
        cells = rows[:, :, None] * n + cols[:, None, :]
        if self.box_rows == self.box_cols:
            flip = rng.random(count) < 0.5
            cells[flip] = cells[flip].transpose(0, 2, 1)
        values = np.empty((count, self.vocab_size), np.int32)
        values[:, :2] = 0, self.blank
        values[:, 2:] = rng.random((count, n)).argsort(axis=1) + 2
        return cells.reshape(count, n * n), values

    def fingerprints(self, questions: np.ndarray) -> np.ndarray:
        return sudoku_symmetry.fingerprints(self, questions)

    def find_symmetry(self, question: Tokens, other: Tokens) -> Symmetry | None:
        return sudoku_symmetry.find_symmetry(self, question, other)


def _shuffled_lines(rng: np.random.Generator, count: int, n: int, thickness: int) -> np.ndarray:
    """int64[count, n]: bands of ``thickness`` lines in random order, lines in random order within each."""
    bands = rng.random((count, n // thickness)).argsort(axis=1)
    within = rng.random((count, n // thickness, thickness)).argsort(axis=2)
    return (bands[:, :, None] * thickness + within).reshape(count, n)


def _squarest_box(n: int) -> tuple[int, int]:
    """(rows, columns) of the box nearest to a square, wider than tall: 2×3 for 6, 3×3 for 9."""
    rows = next((r for r in range(int(n**0.5), 0, -1) if n % r == 0), 1)
    return rows, n // rows
