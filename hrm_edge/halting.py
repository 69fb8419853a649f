"""When a puzzle is finished: one record a rule, and how the halting head's two values say stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from .tasks import Task

# (task, questions int32[b, S], guesses int32[b, S], what the halting head says bool[b]) → bool[b]
Decision = Callable[["Task", np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class HaltRule:
    """One rule. ``number``: its place in ``HALT_MODES``, and what it is in a graph loop's ``halt`` input."""

    name: str
    number: int
    when: str  # a row stops, in words
    stops: Decision  # after a segment; the number of segments is bounded besides
    judged: bool = False  # by the task's rules, which must know a right answer


LEARNED = HaltRule("learned", 0, "when the model says so", lambda task, questions, guesses, says: says)
FIXED = HaltRule("fixed", 1, "never", lambda task, questions, guesses, says: np.zeros(len(guesses), bool))
VERIFIED = HaltRule(
    "verified",
    2,
    "when the answer is right",
    lambda task, questions, guesses, says: np.asarray(task.verify(questions, guesses), bool),
    judged=True,
)
RULES = {rule.name: rule for rule in (LEARNED, FIXED, VERIFIED)}
HALT_MODES = tuple(RULES)


# -- the halting head ------------------------------------------------------------------------------------

# A row's ``q`` in this order.
Q = ("halt", "continue")
Array = TypeVar("Array", bound=Any)  # numpy's or torch's: the expressions are the same


@dataclass(frozen=True)
class Comparison:
    """Stop where ``q[:, left]`` is greater than ``q[:, right]``, or than zero where ``right`` is None."""

    left: int
    right: int | None

    def says_stop(self, q: Array) -> Array:
        """bool[B] of ``q[B, 2]``."""
        return q[:, self.left] > (0 if self.right is None else q[:, self.right])

    def margin(self, q: Array) -> Array:
        """float[B] of ``q[B, 2]``: by how much it says stop."""
        return q[:, self.left] - (0 if self.right is None else q[:, self.right])

    def text(self, halt: str, go_on: str) -> str:
        """As an expression of two values with these names."""
        names = (halt, go_on)
        return f"{names[self.left]} > {0 if self.right is None else names[self.right]}"


def halting_head(no_ACT_continue: bool) -> Comparison:
    """How a network's ``q`` is read: without a target for ``continue``, ``halt`` stands alone."""
    return Comparison(Q.index("halt"), None if no_ACT_continue else Q.index("continue"))
