"""Takuzu for hrm-edge: as many 0 as 1 in every row and column, and nowhere three alike side by side."""

from __future__ import annotations

import functools
import re

import numpy as np

from hrm_edge.errors import InputError
from hrm_edge.tasks import Task

BLANK, ZERO, ONE = 1, 2, 3  # tokens; 0 is padding


class Takuzu(Task):
    """``takuzu-4x4`` and ``takuzu-6x6``; in larger ones the search below has too many boards to look at."""

    spellings = "takuzu-4x4, takuzu-6x6"
    vocabulary = ("<pad>", ".", "0", "1")
    blank = BLANK

    def __init__(self, side: int) -> None:
        self.name, self.rows, self.cols = f"takuzu-{side}x{side}", side, side
        grid = np.arange(side * side).reshape(side, side)
        # Each cell is embedded as its row and its column.
        self.position_ids = np.stack([grid // side, side + grid % side]).reshape(2, -1).astype(np.int32)
        self.n_positions = 2 * side
        turned = [np.rot90(board, turns).reshape(-1) for board in (grid, grid.T) for turns in range(4)]
        self.turns = np.stack(turned)
        self.swaps = np.array([[0, BLANK, ZERO, ONE], [0, BLANK, ONE, ZERO]], np.int32)

    @classmethod
    def from_name(cls, name: str) -> Takuzu | None:
        match = re.fullmatch(r"takuzu-([46])x\1", name)
        return cls(int(match[1])) if match else None

    def parse(self, text: str) -> np.ndarray:
        cells = "".join(text.split())
        if len(cells) != self.seq_len:
            raise InputError(f"{self.name} has {self.seq_len} cells, not {len(cells)}")
        return self.parse_cells(cells, "neither 0, 1 nor '.'")

    def parse_many(self, text: str) -> list[np.ndarray]:
        return [self.parse(line) for line in text.splitlines() if line.strip()]

    # -- rules -----------------------------------------------------------------------------------------

    def _broken(self, boards: np.ndarray) -> np.ndarray:
        """bool[B]: three alike side by side, or more than half of a line alike; blanks may still be anything."""
        grid = boards.reshape(-1, self.rows, self.cols)
        broken = np.zeros(len(grid), bool)
        for lines in (grid, grid.swapaxes(1, 2)):
            for held in (lines == ZERO, lines == ONE):
                broken |= (held.sum(axis=2) > self.cols // 2).any(axis=1)
                broken |= (held[:, :, :-2] & held[:, :, 1:-1] & held[:, :, 2:]).any(axis=(1, 2))
        return broken

    def verify(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        kept = (questions == BLANK) | (questions == answers)
        return (kept & (answers >= ZERO)).all(axis=1) & ~self._broken(answers)

    def why_wrong(self, question: np.ndarray, answer: np.ndarray) -> str:
        return "a line has three alike side by side, or more than half of it is alike"

    def check_question(self, tokens: np.ndarray) -> None:
        self._check_tokens(tokens)
        if self._broken(tokens[None])[0]:
            raise InputError(self.why_wrong(tokens, tokens))

    # -- solving and making ----------------------------------------------------------------------------

    def _solutions(self, question: np.ndarray) -> np.ndarray:
        """int32[K, S]: all there are, filled cell by cell and side by side."""
        boards = question[None]
        for cell in np.flatnonzero(question == BLANK):
            boards = np.concatenate(
                [np.where(np.arange(self.seq_len) == cell, digit, boards) for digit in (ZERO, ONE)]
            )
            boards = boards[~self._broken(boards)]
        return boards.astype(np.int32)

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        return next(iter(self._solutions(question)), None)

    def count_solutions(self, question: np.ndarray, limit: int = 2) -> int:
        return min(limit, len(self._solutions(question)))

    @functools.cached_property
    def _full(self) -> np.ndarray:
        return self._solutions(np.full(self.seq_len, BLANK))

    def generate_one(self, rng: np.random.Generator, difficulty: str) -> tuple[np.ndarray, np.ndarray]:
        """A full board, emptied cell by cell as long as it has one solution."""
        answer = self._full[rng.integers(len(self._full))]
        question = answer.copy()
        for cell in rng.permutation(self.seq_len):
            question[cell] = BLANK
            if len(self._solutions(question)) > 1:
                question[cell] = answer[cell]
        return question, answer

    def rating(self, question: np.ndarray, answer: np.ndarray) -> int:
        """Cells to fill."""
        return int((question == BLANK).sum())

    # -- symmetries, for augmentation and --retries ----------------------------------------------------

    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The board turned or mirrored, 0 and 1 swapped or not."""
        return self.turns[rng.integers(8, size=count)], self.swaps[rng.integers(2, size=count)]
