"""When a puzzle is finished: one record a rule, and how the halting head's two values say stop.

A rule written here works at once wherever the host decides (`runtimes/loops`, `runtimes/c/library.py`,
`models/engine.py`, `hrm_edge/solve/watch.py`). One that needs the guess before changes `Engine.stops` in
`runtimes/engine.py` and these, which call it. To be decided inside a graph too it gets a number, and a form in
`exporters/graph/loop.py`, in `hrm.c.j2` of `exporters/targets/c` and in the Swift template of
`exporters/targets/coreml`: exports fail until all have it. Graphs written before do not know the number, so raise
`FORMAT_VERSION` of `hrm_edge/bundle/manifest.py` with it. The JavaScript and Kotlin of `hrm_edge/portable` have the
rules of today by name (`js/loop.js`, `kotlin/Hrm.kt`).
"""

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
    """One rule. ``number``: what a graph loop's ``halt`` input calls it; None where only a host can decide."""

    name: str
    number: int | None
    when: str  # a row stops, in words
    stops: Decision  # after a segment; the number of segments is bounded besides
    judged: bool = False  # by the task's rules, which must know a right answer


LEARNED = HaltRule("learned", 0, "as soon as the model says so", lambda task, questions, guesses, says: says)
FIXED = HaltRule(
    "fixed",
    1,
    "only after max_think_steps segments",
    lambda task, questions, guesses, says: np.zeros(len(guesses), bool),
)
VERIFIED = HaltRule(
    "verified",
    2,
    "as soon as its guess obeys the rules",
    lambda task, questions, guesses, says: np.asarray(task.verify(questions, guesses), bool),
    judged=True,
)
RULES = {rule.name: rule for rule in (LEARNED, FIXED, VERIFIED)}
HALT_MODES = tuple(RULES)


def numbered() -> list[HaltRule]:
    """The rules that a graph loop can be asked for."""
    return [rule for rule in RULES.values() if rule.number is not None]


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
