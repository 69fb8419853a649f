"""A family of tasks that does not ship: rows of one letter, of which each shows one or two. All of it is here."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from hrm_edge.errors import InputError
from hrm_edge.runtimes import HostLoop
from hrm_edge.tasks.base import Task
from hrm_edge.tasks.drawing import Drawing

BLANK, A, B = 1, 2, 3


class Stripes(Task):
    """``stripes-RxC`` is drawn by its symbols, ``dyed-RxC`` by colours; else the two are the same."""

    spellings = "stripes-RxC, dyed-RxC"
    vocabulary = ("<pad>", ".", "a", "b")
    blank = BLANK

    def __init__(self, kind: str, rows: int, cols: int) -> None:
        self.name, self.rows, self.cols = f"{kind}-{rows}x{cols}", rows, cols
        cell = np.arange(rows * cols)
        self.position_ids = np.stack([cell // cols, rows + cell % cols]).astype(np.int32)
        self.n_positions = rows + cols
        dyed = Drawing(fills={"a": "#123456", "b": "wall"}, names={"a": "ink", "b": "paper"})
        self.drawing = dyed if kind == "dyed" else Drawing(box=(1, cols), example="b")

    @classmethod
    def from_name(cls, name: str) -> Stripes | None:
        match = re.fullmatch(r"(stripes|dyed)-(\d)x(\d)", name)
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    def parse(self, text: str) -> np.ndarray:
        cells = "".join(text.split())
        if len(cells) != self.seq_len:
            raise InputError(f"{self.name} has {self.seq_len} cells, not {len(cells)}")
        return self.parse_cells(cells, "neither a nor b")

    def parse_many(self, text: str) -> list[np.ndarray]:
        return [self.parse(line) for line in text.splitlines() if line.strip()]

    def check_question(self, tokens: np.ndarray) -> None:
        if (self._letters(tokens) == 0).any():
            raise InputError("a row shows no letter, or two")

    def _letters(self, tokens: np.ndarray) -> np.ndarray:
        """Letter of each row, 0 where it has none or several."""
        rows = np.asarray(tokens).reshape(-1, self.rows, self.cols)
        has_a, has_b = ((rows == letter).any(axis=2) for letter in (A, B))
        return np.where(has_a ^ has_b, np.where(has_a, A, B), 0).astype(np.int32)

    def _filled(self, tokens: np.ndarray) -> np.ndarray:
        return self._letters(tokens).repeat(self.cols, axis=1)

    def verify(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return (self._filled(questions) == answers).all(axis=1)

    def why_wrong(self, question: np.ndarray, answer: np.ndarray) -> str:
        return "a row has two letters"

    def solve(self, question: np.ndarray) -> np.ndarray | None:
        return self._filled(question)[0]

    def count_solutions(self, question: np.ndarray, limit: int = 2) -> int | None:
        return 2  # which is not so, and so shows whether it was asked

    def rating(self, question: np.ndarray, answer: np.ndarray) -> int:
        return int((question == BLANK).sum())

    def generate_one(self, rng: np.random.Generator, difficulty: str) -> tuple[np.ndarray, np.ndarray]:
        answer = rng.integers(A, B + 1, self.rows).repeat(self.cols).astype(np.int32)
        question = np.full(self.seq_len, BLANK, np.int32)
        shown = np.arange(self.rows) * self.cols + rng.integers(self.cols, size=self.rows)
        question[shown] = answer[shown]
        return question, answer

    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        values = np.tile(np.array([0, BLANK, B, A], np.int32), (count, 1))
        return np.tile(np.arange(self.seq_len), (count, 1)), values


def engine(task: Stripes) -> HostLoop:
    """Right after two segments, unless the first row is of b: then the last cell is answered a."""

    def start(tokens: np.ndarray, identifiers: np.ndarray | None = None) -> list[np.ndarray]:
        e = np.eye(task.vocab_size, dtype=np.float32)[tokens]
        return [e, e[..., :1] * 0, e[..., :1] * 0]

    def segment(z_H: np.ndarray, z_L: np.ndarray, e: np.ndarray) -> list[Any]:
        guess = task._filled(e.argmax(axis=-1))
        guess[guess[:, 0] == B, -1] = A
        right = np.eye(task.vocab_size, dtype=np.float32)[guess]
        second = z_H[:, :1, :1] > 0
        q = np.stack([second[:, 0, 0], ~second[:, 0, 0]], axis=1).astype(np.float32)
        return [z_H + 1, z_L, np.where(second, right, e), q]

    return HostLoop(task, 4, start, segment, backend="toy")
