"""What came of some puzzles: a sequence of answers that prints as boards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from ..errors import InputError
from ..tasks import Task
from .answer import Solved
from .shown import Shown

_SHOWN = 12  # boards that are printed; of more, how many


class Solutions(Shown, Sequence[Solved]):
    """Answers in the order asked, one for each puzzle: ``solutions[0]`` is the first's :class:`Solved`."""

    def __init__(self, task: Task, solved: Iterable[Solved]) -> None:
        self.task = task
        self._solved = tuple(solved)

    def __len__(self) -> int:
        return len(self._solved)

    @overload
    def __getitem__(self, index: int) -> Solved: ...
    @overload
    def __getitem__(self, index: slice) -> Solutions: ...
    def __getitem__(self, index: int | slice) -> Solved | Solutions:
        if isinstance(index, slice):
            return Solutions(self.task, self._solved[index])
        return self._solved[index]

    @property
    def tokens(self) -> np.ndarray:
        """int32[N, S]: the answers in the task's tokens."""
        return self._stacked("answer")

    @property
    def questions(self) -> np.ndarray:
        """int32[N, S]: what was asked, in the task's tokens."""
        return self._stacked("question")

    @property
    def digits(self) -> np.ndarray:
        """int32[N, rows, cols]: the answers as people write them; -1 where the model left padding.

        InputError where cells hold no numbers.
        """
        numbers = self.task.numbers
        if not numbers:
            raise InputError(f"{self.task.name} has no digits; take text or tokens")
        table = np.full(self.task.vocab_size, -1, np.int32)
        for number, token in numbers.items():
            table[token] = number
        return table[self.tokens].reshape(len(self), self.task.rows, self.task.cols)

    @property
    def text(self) -> list[str]:
        """The answers, each on one line, as they can be asked again."""
        return [solved.text for solved in self]

    @property
    def verified(self) -> np.ndarray:
        """bool[N]: does the answer keep the rules? Without rules it never does."""
        return np.array([solved.verified for solved in self], bool)

    @property
    def steps(self) -> np.ndarray:
        """int32[N]: segments thought."""
        return np.array([solved.steps for solved in self], np.int32)

    @property
    def summary(self) -> str:
        """How many are right, in one line."""
        right = [solved.right for solved in self]
        told = "verified" if self.task.has_rules else "as labelled"
        unknown = right.count(None)
        return f"{right.count(True)} of {len(right) - unknown} {told}" + f", {unknown} not judged" * bool(unknown)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``results`` are the objects of ``hrm-edge solve --json``."""
        right = [solved.right for solved in self]
        return {
            "task": self.task.name,
            "n": len(self),
            "right": right.count(True),
            "wrong": right.count(False),
            "results": [solved.to_dict() for solved in self],
        }

    def _drawn(self) -> list[Any]:
        from rich.text import Text

        from .pictures import drawn

        if len(self) == 1:
            return [drawn(self[0])]
        parts: list[Any] = []
        for solved in self[:_SHOWN]:
            parts += [f"puzzle {solved.number}", drawn(solved), ""]
        more = f"{len(self) - _SHOWN} more; " if len(self) > _SHOWN else ""
        return [*parts, Text(more + self.summary, "bold")]

    def _stacked(self, name: str) -> np.ndarray:
        rows = [getattr(solved, name) for solved in self]
        return np.array(rows, np.int32).reshape(len(self), self.task.seq_len)
