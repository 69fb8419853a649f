"""What one worker says of some rows, and the columns that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..data.formats import Block, Column
from ..errors import InputError
from ..runtimes import Engine
from ..solve.retries import solve_with_retries
from ..tasks import Task
from ..tasks.base import PAD

ERROR = Column("error", "text")
_COLUMNS = (
    Column("question", "text"),
    Column("answer", "text"),
    Column("verified", "flag"),
    Column("steps", "number"),
    Column("halted", "flag"),
    Column("variant", "number"),
    Column("segments", "number"),
)
_LABELLED = (Column("as_labelled", "flag"), Column("wrong_cells", "number"))


@dataclass(frozen=True, eq=False)
class Answered:
    """What came of n rows: ``tokens`` [n, S] of any whole type; ``steps``, ``variant``, ``segments`` int32[n] and
    ``halted``, ``verified`` bool[n] as in :class:`~hrm_edge.solve.retries.RetriedAnswers`; ``errors`` str[n], empty
    where there is none. A row with an error holds zeros."""

    tokens: np.ndarray
    steps: np.ndarray
    halted: np.ndarray
    verified: np.ndarray
    variant: np.ndarray
    segments: np.ndarray
    errors: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, as :meth:`of` takes them back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def blank(cls, rows: int, task: Task) -> Answered:
        """Nothing about as many rows yet."""
        numbers = {name: np.zeros(rows, np.int32) for name in ("steps", "variant", "segments")}
        flags = {name: np.zeros(rows, bool) for name in ("halted", "verified")}
        errors = np.full(rows, "", object)
        return cls(np.zeros((rows, task.seq_len), token_type(task)), **numbers, **flags, errors=errors)

    def put(self, rows: np.ndarray, others: Answered) -> None:
        """Fill in ``rows`` (int[k]) from the k rows of ``others``."""
        for name, values in self.arrays().items():
            values[rows] = getattr(others, name)


@dataclass(frozen=True)
class Asking:
    """How puzzles are asked: the options of :func:`~hrm_edge.solve.retries.solve_with_retries`."""

    halt: str = "learned"
    max_think_steps: int | None = None
    retries: int = 0
    seed: int = 0

    def options(self) -> dict[str, Any]:
        return asdict(self)


def token_type(task: Task) -> np.dtype[Any]:
    """The smallest type that holds a task's tokens."""
    return np.min_scalar_type(task.vocab_size - 1)


def answer(engine: Engine, questions: np.ndarray, identifiers: np.ndarray | None, asking: Asking) -> Answered:
    """Answer ``questions`` [n, S], int[n] ``identifiers`` beside them; a row that the engine refuses has an error.

    One at a time, which on a CPU is quickest; only a bundle of fixed batch gets that many at once.
    """
    task = engine.task
    made = Answered.blank(len(questions), task)
    size = engine.batch or 1
    for first in range(0, len(questions), size):
        rows = np.arange(first, min(first + size, len(questions)))
        try:
            made.put(rows, _asked(engine, questions[rows], identifiers, rows, asking))
        except InputError:
            for row in rows[:, None]:
                try:
                    made.put(row, _asked(engine, questions[row], identifiers, row, asking))
                except InputError as error:
                    made.errors[row] = str(error)
    return made


def _asked(
    engine: Engine, questions: np.ndarray, identifiers: np.ndarray | None, rows: np.ndarray, asking: Asking
) -> Answered:
    own = None if identifiers is None else identifiers[rows]
    found = solve_with_retries(engine, questions.astype(np.int32), puzzle_identifiers=own, **asking.options())
    return Answered(
        tokens=found.answers.tokens,
        steps=found.answers.steps,
        halted=found.answers.halted,
        verified=found.verified,
        variant=found.variant,
        segments=found.segments,
        errors=np.full(len(rows), "", object),
    )


# -- what is written -------------------------------------------------------------------------------------


def columns(task: Task, recorded: bool) -> tuple[Column, ...]:
    """The columns of a job's output, the same whatever is in its input; ``recorded``: errors are among them."""
    return (*_COLUMNS, *(() if task.has_rules else _LABELLED), *((ERROR,) if recorded else ()))


def block(
    task: Task,
    questions: np.ndarray,
    labels: np.ndarray | None,
    made: Answered,
    unreadable: np.ndarray,
    recorded: bool,
) -> Block:
    """The values of :func:`columns` of some rows. ``unreadable`` bool[n]: their question is not known either."""
    wrong = (made.errors != "").tolist()
    asked = [
        None if unknown else text
        for text, unknown in zip(task.format_many(questions.astype(np.int32)), unreadable.tolist(), strict=True)
    ]
    values: list[list[Any]] = [asked, list(_known(task.format_many(made.tokens.astype(np.int32)), wrong))]
    for name in ("verified", "steps", "halted", "variant", "segments"):
        values.append(list(_known(getattr(made, name).tolist(), wrong)))
    if not task.has_rules:
        values[2] = [None] * len(made)
        told = np.zeros_like(questions) if labels is None else labels
        missed = ((made.tokens != told) & (told != PAD)).sum(axis=1)
        unlabelled = ((told == PAD).all(axis=1) | np.array(wrong, bool)).tolist()
        values += [list(_known((missed == 0).tolist(), unlabelled)), list(_known(missed.tolist(), unlabelled))]
    if recorded:
        values.append([text or None for text in made.errors.tolist()])
    return values


def _known(values: list[Any], unknown: list[bool]) -> Iterator[Any]:
    return (None if hidden else value for value, hidden in zip(values, unknown, strict=True))
