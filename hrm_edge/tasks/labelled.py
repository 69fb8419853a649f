"""Tasks without rules: their answers are judged by labels alone."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .base import Task, Tokens


class LabelledTask(Task):
    """A task without rules: answers are judged by their labels, where label 0 counts for nothing.

    Nothing can be verified, solved or generated, and no variant of a puzzle is known to be the same puzzle.
    """

    difficulties = ()
    has_rules = False
    has_solver = False
    has_symmetries = False

    @property
    def question_tokens(self) -> np.ndarray:
        """All there are: a grid that is smaller than its canvas stands in padding."""
        return np.arange(self.vocab_size)

    def verify(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        raise self.no_rules("no answer can be verified without its label")

    def why_wrong(self, question: Tokens, answer: Tokens) -> str:
        return "nothing but its label tells whether an answer is right"

    def solve(self, question: Tokens) -> Tokens | None:
        raise self.no_rules("it has no exact solver")

    def generate_one(self, rng: np.random.Generator, difficulty: str) -> tuple[Tokens, Tokens]:
        raise self._not_generated()

    def check_difficulty(self, difficulty: str) -> None:
        raise self._not_generated()

    def _not_generated(self) -> InputError:
        return self.no_rules(f"puzzles cannot be generated; build a set with `{self.made_with}`")

    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        raise self.no_rules("no variant of a puzzle is known to be the same puzzle")
