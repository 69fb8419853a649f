"""A task from its definition alone: judged by labels or, where there are groups, by these."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ..base import PAD, PADDING, Tokens
from ..drawing import Drawing
from ..labelled import LabelledTask
from .definition import PAD_SYMBOL, TaskDefinition
from .symmetry import Symmetries

_LINE = 20  # cells on a line of a drawn sequence that is no grid


class DatasetTask(LabelledTask):
    """What a folder of puzzles and its `task.toml` say; no exact solver, no generator.

    With groups answers are verified by them: each holds every value once, and the givens are kept. All other rules
    are unknown. Without, only labels tell, and a blank is just a symbol.
    """

    spellings = "a folder of puzzles in the public layout"
    definition: TaskDefinition

    def __init__(self, definition: TaskDefinition) -> None:
        self.definition = definition
        self.name, self.rows, self.cols = definition.name, definition.rows, definition.cols
        self.vocabulary = (PAD_SYMBOL, *definition.symbols)
        self.spaced = any(len(symbol) > 1 for symbol in definition.symbols)  # text has a space between symbols
        self.blank = PAD if definition.blank is None else definition.blank
        self.has_rules, self.has_symmetries = bool(definition.groups), bool(definition.symmetries)
        if self.has_rules:
            self.groups = np.array(definition.groups, np.int32)
            self.value_tokens = np.array(definition.values, np.int32)
        self.aliases = {} if self.has_rules else {PADDING: PAD}
        if definition.blank is not None:
            self.aliases |= {alias: self.blank for alias in "._" if alias not in definition.symbols}
        self.drawing = Drawing(example=definition.symbols[definition.values[0] - 1 if definition.values else 0])
        cell = np.arange(self.seq_len)
        self.position_ids = np.stack([cell // self.cols, self.rows + cell % self.cols]).astype(np.int32)
        self.n_positions = self.rows + self.cols

    @classmethod
    def from_name(cls, name: str) -> None:
        """None: such a task is named by its folder."""
        return None

    @property
    def drawn_cols(self) -> int:
        return min(self.cols, _LINE) if self.rows == 1 else self.cols

    def __reduce__(self) -> tuple:
        from .. import defined_task

        return defined_task, (self.definition,)

    # -- text ------------------------------------------------------------------------------------------

    def parse(self, text: str) -> Tokens:
        cells = self._split(text)
        if len(cells) != self.seq_len:
            grid = "" if self.rows == 1 else f" ({self.rows} rows of {self.cols})"
            spaces = ", with spaces between them" if self.spaced else ""
            raise InputError(f"a {self.name} puzzle has {self.seq_len} symbols{grid}{spaces}, not {len(cells)}")
        return self.parse_cells(cells, f"no symbol of {self.name}")

    def parse_many(self, text: str) -> list[Tokens]:
        """Puzzles of S symbols on a line or on several; empty lines between them, and comments after ``#``."""
        found: list[Tokens] = []
        cells: list[str] = []
        first = 0
        has_comments = not any(symbol.startswith("#") for symbol in self.vocabulary)
        for number, line in enumerate([*text.splitlines(), ""], 1):
            if has_comments and line.lstrip().startswith("#"):
                continue
            more = self._split(line)
            first = first if cells else number
            cells += more
            if len(cells) >= self.seq_len or (cells and not more):
                try:
                    found.append(self.parse(" ".join(cells)))
                except InputError as error:
                    raise InputError(f"line {first}: {error}") from None
                cells = []
        return found

    def _split(self, text: str) -> list[str]:
        return text.split() if self.spaced else list("".join(text.split()))

    def parse_lines(self, lines: Sequence[str]) -> np.ndarray | None:
        return None if self.spaced else super().parse_lines(lines)

    def format(self, tokens: Tokens) -> str:
        shown = (PADDING, *self.vocabulary[1:])
        return (" " if self.spaced else "").join(shown[token] for token in np.asarray(tokens).tolist())

    def format_many(self, tokens: np.ndarray) -> list[str]:
        return [self.format(row) for row in tokens]

    def cells_of(self, text: str) -> Sequence[str]:
        return text.split(" ") if self.spaced else text

    def render(self, question: Tokens, answer: Tokens | None = None) -> str:
        question = np.asarray(question)
        shown = question if answer is None else np.where(self.givens(question), question, answer)
        return "\n".join(self.format(row) for row in shown.reshape(self.rows, self.cols))

    def where(self, cell: int) -> str:
        return f"position {int(cell) + 1}" if self.rows == 1 else super().where(cell)

    # -- rules -----------------------------------------------------------------------------------------

    @property
    def question_tokens(self) -> np.ndarray:
        return np.arange(1 if self.has_rules else 0, self.vocab_size)

    def givens(self, questions: np.ndarray) -> np.ndarray:
        if self.definition.blank is None:
            return np.zeros(np.shape(questions), bool)  # nothing says what an answer leaves as it is
        return super().givens(questions)

    def check_question(self, tokens: Tokens) -> None:
        tokens = np.asarray(tokens)
        if not self.has_rules:
            if tokens.shape != (self.seq_len,) or not ((tokens >= 0) & (tokens < self.vocab_size)).all():
                raise InputError(f"a {self.name} puzzle has {self.seq_len} tokens of 0 to {self.vocab_size - 1}")
            return
        self._check_tokens(tokens)
        assert self.groups is not None
        free = np.setdiff1d(np.flatnonzero(tokens == self.blank), self.groups)
        if free.size:
            raise InputError(
                f"the blank at {self.where(free[0])} is in no group, so nothing tells what belongs there"
            )
        if clash := self._clash(tokens):
            raise InputError(clash)

    def _clash(self, tokens: Tokens) -> str | None:
        """The first group with a value in it twice, or with a symbol that is no value."""
        assert self.groups is not None
        assert self.value_tokens is not None
        for number, cells in enumerate(self.groups):
            held = tokens[cells]
            wrong = cells[~np.isin(held, self.value_tokens) & (held != self.blank)]
            if wrong.size:
                symbol = self.vocabulary[tokens[wrong[0]]]
                return f"{symbol!r} at {self.where(wrong[0])} is no value of group {number + 1}"
            values, counts = np.unique(held[held != self.blank], return_counts=True)
            if (counts > 1).any():
                value = values[counts > 1][0]
                first, second = cells[held == value][:2]
                places = f"{self.where(first)} and at {self.where(second)}"
                return f"{self.vocabulary[value]!r} stands at {places}, in one group"
        return None

    def verify(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        if not self.has_rules:
            return super().verify(questions, answers)
        assert self.groups is not None
        assert self.value_tokens is not None
        questions, answers = np.asarray(questions), np.asarray(answers)
        right = (~self.givens(questions) | (questions == answers)).all(axis=1)
        wanted = np.sort(self.value_tokens)
        for cells in self.groups:
            right &= (np.sort(answers[:, cells], axis=1) == wanted).all(axis=1)
        return right

    def why_wrong(self, question: Tokens, answer: Tokens) -> str:
        if not self.has_rules:
            return super().why_wrong(question, answer)
        answer = np.asarray(answer)
        empty = np.flatnonzero(answer == self.blank)
        return self._clash(answer) or f"no value at {self.where(empty[0] if empty.size else 0)}"

    def rating(self, question: Tokens, answer: Tokens) -> int:
        """Cells that are to be filled; without a blank, those that the answer changes."""
        if self.definition.blank is not None:
            return int((np.asarray(question) == self.blank).sum())
        return int(((np.asarray(question) != answer) & (np.asarray(answer) != PAD)).sum())

    def solve(self, question: Tokens) -> Tokens | None:
        raise InputError(f"{self.name} has no exact solver: give puzzles with their answers")

    def _not_generated(self) -> InputError:
        return InputError(f"{self.name} puzzles cannot be generated; name a folder of them with --data")

    # -- symmetries ------------------------------------------------------------------------------------

    @functools.cached_property
    def _symmetries(self) -> Symmetries:
        return Symmetries(self.definition)

    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        if not self.has_symmetries:
            raise InputError(f"{self.name} names no symmetries, so no variant is known to be the same puzzle; name "
                             "them in task.toml")  # fmt: skip
        return self._symmetries.sample(rng, count)

    def augment(
        self, rng: np.random.Generator, questions: np.ndarray, answers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.has_symmetries:
            return questions, answers
        return super().augment(rng, questions, answers)
