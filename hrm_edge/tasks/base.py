"""What every puzzle task offers: text in and out, its rules, an exact solver, a generator, symmetries."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .drawing import Drawing
from .fingerprints import row_hashes
from .reading import Reader

if TYPE_CHECKING:
    from .dataset import TaskDefinition

Tokens = np.ndarray  # int32, last axis of length S

PAD = 0  # the token of every task that a label has where nothing is to be learned or judged
PADDING = "?"  # as which it is shown


@dataclass(frozen=True)
class Symmetry:
    """One rule-preserving change of a board: cells are reordered, then symbols renamed.

    ``cells`` int64[S] names the old cell that each new cell shows; ``values`` int32[V] the new token of each
    old one. ``invert(apply(x)) == x`` exactly, whatever the tokens.
    """

    cells: np.ndarray
    values: np.ndarray

    def apply(self, tokens: Tokens) -> Tokens:
        """Transform boards ``tokens[..., S]``."""
        return self.values[tokens[..., self.cells]]

    def invert(self, tokens: Tokens) -> Tokens:
        """Map boards ``tokens[..., S]`` that were transformed (or solved after it) back."""
        return np.argsort(self.values).astype(np.int32)[tokens[..., np.argsort(self.cells)]]


class Task(ABC):
    """A puzzle family on a ``rows`` × ``cols`` grid, flattened row by row into S tokens (int32).

    ``vocabulary[t]`` is the symbol of token ``t``, one character in the tasks that ship; token 0 is padding.
    ``aliases``: other symbols that text may have for a token. ``position_ids[K, S]`` indexes one table of
    ``n_positions`` learned embeddings, K of which are summed per cell. ``groups[G, n]`` lists sets of cells that
    must each hold all of ``value_tokens[n]`` once (``None`` for tasks without such). ``spellings``: the names of
    all tasks of this family, for people. ``made_with``, ``answered_with``: the commands that make and answer its
    puzzles.

    Without ``has_rules`` answers are judged by their labels alone (``labelled.LabelledTask``). ``has_solver``:
    whether :meth:`solve` finds exact answers; ``has_symmetries``: whether there are variants; ``generates``:
    whether there is a generator, without which puzzles come from folders. ``by_example``: what is asked for only a
    puzzle's identifier tells, and the tokens hold grids, between which and tokens ``encode`` and ``decode``
    translate: such puzzles can be asked under many views. ``definition``: all of a task that no code here or in a
    package tells; None where code does.
    """

    spellings: str
    name: str
    rows: int
    cols: int
    vocabulary: tuple[str, ...]
    aliases: Mapping[str, int] = {}
    blank: int
    position_ids: np.ndarray
    n_positions: int
    groups: np.ndarray | None = None
    value_tokens: np.ndarray | None = None
    difficulties: tuple[str, ...] = ("ordinary",)
    drawing: Drawing = Drawing()
    has_rules: bool = True
    has_solver: bool = True
    has_symmetries: bool = True
    by_example: bool = False
    definition: TaskDefinition | None = None
    made_with: str = "hrm-edge data generate"
    answered_with: str = "hrm-edge solve"

    @classmethod
    @abstractmethod
    def from_name(cls, name: str) -> Task | None:
        """The task of this family called ``name``, None where it is a name of another family.

        InputError when it is one of this family that there cannot be.
        """

    @property
    def seq_len(self) -> int:
        """Cells per board, S."""
        return self.rows * self.cols

    @property
    def vocab_size(self) -> int:
        """Number of token ids, padding included."""
        return len(self.vocabulary)

    @property
    def generates(self) -> bool:
        """Whether puzzles can be generated, of some difficulty."""
        return bool(self.difficulties)

    @property
    def drawn_cols(self) -> int:
        """Cells on a line of a drawn board."""
        return self.cols

    @property
    def drawn_rows(self) -> int:
        """Lines of a drawn board, the last of which may be shorter."""
        return -(-self.seq_len // self.drawn_cols)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __reduce__(self) -> tuple:
        return _reopened, (type(self), self.name)

    # -- text ------------------------------------------------------------------------------------------

    @abstractmethod
    def parse(self, text: str) -> Tokens:
        """One puzzle from text to int32[S]. InputError says which character is wrong, and where."""

    @abstractmethod
    def parse_many(self, text: str) -> list[Tokens]:
        """Every puzzle in a text of one-line puzzles or multi-line boards. InputError names the line."""

    def reader(self) -> Reader:
        """What reads the puzzles of one file, stream or argument, as they come."""
        return Reader(self)

    @functools.cached_property
    def symbol_tokens(self) -> dict[str, int]:
        """Token of each symbol that text may hold."""
        symbols = {symbol: token for token, symbol in enumerate(self.vocabulary) if token}
        return {**symbols, **self.aliases}

    @functools.cached_property
    def character_tokens(self) -> np.ndarray:
        """int32[256]: token of each latin-1 character a one-line puzzle may hold, −1 for any other."""
        table = np.full(256, -1, np.int32)
        for symbol, token in self.symbol_tokens.items():
            if len(symbol) == 1 and ord(symbol) < 256:
                table[ord(symbol)] = token
        return table

    @functools.cached_property
    def numbers(self) -> Mapping[int, int]:
        """Token of each number that people write in a cell of an array; empty where cells hold no numbers."""
        if self.by_example:
            return {}  # of what an array shows, the frame is no number
        return {
            int(symbol): token for symbol, token in self.symbol_tokens.items() if re.fullmatch("[0-9]+", symbol)
        }

    def parse_cells(self, cells: Sequence[str], otherwise: str) -> Tokens:
        """int32, one token a symbol. InputError names the first that is none, which "is ``otherwise``"."""
        tokens = np.array([self.symbol_tokens.get(cell, -1) for cell in cells], np.int32)
        wrong = np.flatnonzero(tokens < 0)
        if wrong.size:
            raise InputError(f"{cells[wrong[0]]!r} at {self.where(wrong[0])} is {otherwise}")
        return tokens

    def render(self, question: Tokens, answer: Tokens | None = None) -> str:
        """A plain multi-line board of ``question``, its empty cells filled from ``answer`` if given."""
        shown = question if answer is None else np.where(np.asarray(question) == self.blank, answer, question)
        line = self.format(shown)
        return "\n".join(line[start : start + self.cols] for start in range(0, self.seq_len, self.cols))

    def format(self, tokens: Tokens) -> str:
        """The canonical one-line form, which :meth:`parse` reads back."""
        return "".join(self.vocabulary[t] if t else PADDING for t in np.asarray(tokens).tolist())

    def read_back(self, text: str) -> Tokens:
        """int32[S] of a text that :meth:`format` wrote, padding included. ValueError where it did not."""
        known = {symbol: token for token, symbol in enumerate(self.vocabulary) if token} | {PADDING: PAD}
        cells = self.cells_of(text)
        if len(cells) != self.seq_len or not known.keys() >= set(cells):
            raise ValueError(f"no board of {self.name}")
        return np.array([known[cell] for cell in cells], np.int32)

    def cells_of(self, text: str) -> Sequence[str]:
        """The symbols of a text that :meth:`format` wrote."""
        return text

    def parse_lines(self, lines: Sequence[str]) -> np.ndarray | None:
        """Many one-line puzzles to int32[N, S] at once; None when any of them needs :meth:`parse`."""
        if any(len(line) != self.seq_len for line in lines):
            return None
        codes = np.frombuffer("".join(lines).encode("latin-1", "replace"), np.uint8)
        tokens = self.character_tokens[codes].reshape(len(lines), self.seq_len)
        return None if (tokens < 0).any() else tokens

    def format_many(self, tokens: np.ndarray) -> list[str]:
        """Canonical one-line forms of ``tokens[N, S]``."""
        symbols = np.array([ord(PADDING), *(ord(s) for s in self.vocabulary[1:])], np.uint8)
        return [row.tobytes().decode("ascii") for row in symbols[tokens]]

    # -- rules -----------------------------------------------------------------------------------------

    def no_rules(self, what: str) -> InputError:
        """What to raise where a task without rules is asked for what only rules give."""
        return InputError(f"{self.name} has no rules: {what}")

    @property
    def answer_tokens(self) -> np.ndarray:
        """Tokens that an answer may have in a cell that was blank."""
        if self.value_tokens is not None:
            return self.value_tokens
        return np.setdiff1d(np.arange(1, self.vocab_size), self.blank)

    @property
    def question_tokens(self) -> np.ndarray:
        """Tokens that a question may have: all but padding, unless a task says otherwise."""
        return np.arange(1, self.vocab_size)

    @functools.cached_property
    def in_questions(self) -> np.ndarray:
        """bool[V]: which tokens those are."""
        return np.isin(np.arange(self.vocab_size), self.question_tokens)

    def givens(self, questions: np.ndarray) -> np.ndarray:
        """bool[..., S]: the cells that a right answer leaves as they are."""
        return np.asarray(questions) != self.blank

    @abstractmethod
    def check_question(self, tokens: Tokens) -> None:
        """Raise InputError when ``tokens[S]`` cannot be a puzzle: wrong shape, range or an open contradiction."""

    def first_wrong(self, questions: np.ndarray) -> int | None:
        """The first of ``questions[B, S]`` that :meth:`check_question` refuses; of many quicker than that."""
        for row, tokens in enumerate(questions):
            try:
                self.check_question(tokens)
            except InputError:
                return row
        return None

    @abstractmethod
    def verify(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """bool[B]: does ``answers[b]`` obey the rules and keep the givens of ``questions[b]``?"""

    @property
    def portable_rules(self) -> dict[str, Any] | None:
        """What :meth:`verify` asks of an answer, as plain JSON that any language can check; None: only code tells.

        ``{"kind": "groups", "groups": [[cell, …], …], "values": [token, …]}``: the givens are kept, and each group
        holds every value once. A task whose rules are of another kind names it and what belongs to it.
        """
        if self.groups is None or self.value_tokens is None:
            return None
        return {"kind": "groups", "groups": self.groups.tolist(), "values": self.value_tokens.tolist()}

    @abstractmethod
    def why_wrong(self, question: Tokens, answer: Tokens) -> str:
        """The first thing wrong with an ``answer[S]`` that keeps the givens but does not verify."""

    @abstractmethod
    def solve(self, question: Tokens) -> Tokens | None:
        """The exact answer int32[S] (the first found, when there are several), or None if there is none."""

    def count_solutions(self, question: Tokens, limit: int = 2) -> int | None:
        """How many solutions there are, counting no further than ``limit``; None where the task cannot count."""
        return None

    @abstractmethod
    def rating(self, question: Tokens, answer: Tokens) -> int:
        """How hard a puzzle is, for the ``rating`` column of CSV files; each task says what it counts."""

    @abstractmethod
    def generate_one(self, rng: np.random.Generator, difficulty: str) -> tuple[Tokens, Tokens]:
        """One (question, answer) of a difficulty in ``difficulties``."""

    def generate(
        self, n: int, rng: np.random.Generator, difficulty: str = "ordinary"
    ) -> tuple[np.ndarray, np.ndarray]:
        """``n`` puzzles in this process: (questions, answers), both int32[n, S]. May repeat on tiny boards."""
        self.check_difficulty(difficulty)
        pairs = [self.generate_one(rng, difficulty) for _ in range(n)]
        shape = (n, self.seq_len)
        questions = np.array([q for q, _ in pairs], np.int32).reshape(shape)
        return questions, np.array([a for _, a in pairs], np.int32).reshape(shape)

    def check_difficulty(self, difficulty: str) -> None:
        """InputError unless ``difficulty`` is one of this task's."""
        if difficulty not in self.difficulties:
            allowed = ", ".join(self.difficulties)
            raise InputError(f"{self.name} has no difficulty {difficulty!r}; choose one of {allowed}")

    def _check_tokens(self, tokens: np.ndarray) -> None:
        """Shape and range of one board."""
        if tokens.shape != (self.seq_len,):
            raise InputError(f"a {self.name} puzzle has {self.seq_len} cells, got an array of shape {tokens.shape}")
        wrong = np.flatnonzero((tokens < 1) | (tokens >= self.vocab_size))
        if wrong.size:
            raise InputError(
                f"token {tokens[wrong[0]]} at {self.where(wrong[0])} is outside {self.name}'s "
                f"1..{self.vocab_size - 1}"
            )

    def where(self, cell: int) -> str:
        """``position 12 (row 2, column 3)``, counted from 1."""
        row, col = divmod(int(cell), self.cols)
        return f"position {int(cell) + 1} (row {row + 1}, column {col + 1})"

    # -- symmetries ------------------------------------------------------------------------------------

    @abstractmethod
    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """``count`` random symmetries as arrays: cells int64[count, S], values int32[count, V]."""

    def symmetries(self, rng: np.random.Generator, count: int) -> list[Symmetry]:
        """``count`` random symmetries, for solving variants of one board."""
        return [Symmetry(cells, values) for cells, values in zip(*self.sample_symmetries(rng, count), strict=True)]

    def variants(self, seed: int, count: int) -> list[Symmetry]:
        """``count`` symmetries that retries ask: the k-th depends on ``seed`` and k alone, not on ``count``."""
        rng = np.random.default_rng(seed)
        return [self.symmetries(rng, 1)[0] for _ in range(count)]

    def fingerprints(self, questions: np.ndarray) -> np.ndarray:
        """uint64[N] of boards int32[N, S]: equal for boards that a symmetry turns into each other, and different
        for nearly all others. Where a task knows no better, only equal boards count as such."""
        return row_hashes(questions)

    def find_symmetry(self, question: Tokens, other: Tokens) -> Symmetry | None:
        """A symmetry that turns ``question[S]`` into ``other[S]``, or None if there is none. Exact."""
        if not np.array_equal(question, other):
            return None
        return Symmetry(np.arange(self.seq_len), np.arange(self.vocab_size, dtype=np.int32))

    def augment(
        self, rng: np.random.Generator, questions: np.ndarray, answers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One random symmetry per row, the same for ``questions[b]`` and ``answers[b]``; int32[B, S] each."""
        cells, values = self.sample_symmetries(rng, len(questions))
        # One flat lookup table for the batch: row b's tokens are offset by b·V.
        offsets = (np.arange(len(questions)) * self.vocab_size)[:, None]
        table = values.reshape(-1)

        def move(tokens: np.ndarray) -> np.ndarray:
            return table[np.take_along_axis(tokens, cells, axis=1) + offsets]

        return move(questions), move(answers)

    # -- grids, where puzzles are asked by example -------------------------------------------------------

    def encode(self, grid: np.ndarray) -> Tokens:
        """A grid int[h, w] as int32[S]."""
        raise NotImplementedError(f"{self.name} is not asked by example")

    def decode(self, tokens: Tokens) -> np.ndarray:
        """The grid int32[h, w] that ``tokens[S]`` hold, (0, 0) if there is none."""
        raise NotImplementedError(f"{self.name} is not asked by example")


def _reopened(family: type[Task], name: str) -> Task:
    """The task in the process that unpickles it: by name, so that all of it share one object."""
    from . import get_task, register

    register(family)  # a process that was just started knows no more than those that ship
    return get_task(name)
