"""What one worker says of some rows, and the columns that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..data.formats import Block, Column
from ..errors import InputError
from ..solve.answer import require_solution
from ..solve.scheduler import Outcome, Scheduler
from ..tasks import Task
from ..tasks.base import PAD

ERROR = Column("error", "text")
NOT_TOLD = -1  # the identifier of a row of what has none, as text files
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
    ``halted``, ``verified`` bool[n] as in :class:`~hrm_edge.solve.requests.Outcome`; ``errors`` str[n], empty
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
    """How puzzles are asked: options of :meth:`~hrm_edge.solve.scheduler.Scheduler.submit`, and whether an exact
    solver looks first (``check_solvable``)."""

    halt: str = "learned"
    max_think_steps: int | None = None
    retries: int = 0
    seed: int = 0
    check_solvable: bool = False

    def options(self) -> dict[str, Any]:
        """Those of the scheduler."""
        return {name: value for name, value in asdict(self).items() if name != "check_solvable"}


def token_type(task: Task) -> np.dtype[Any]:
    """The smallest type that holds a task's tokens."""
    return np.min_scalar_type(task.vocab_size - 1)


def answer(scheduler: Scheduler, questions: np.ndarray, identifiers: np.ndarray, asking: Asking) -> Answered:
    """Answer ``questions`` [n, S], int[n] ``identifiers`` beside them; a row that is refused has an error."""
    task = scheduler.engine.task
    made = Answered.blank(len(questions), task)
    asked: dict[int, Future[Outcome]] = {}
    for row, question in enumerate(questions):
        own = None if identifiers[row] == NOT_TOLD else int(identifiers[row])
        try:
            if asking.check_solvable:
                require_solution(question, task)
            asked[row] = scheduler.submit(question, puzzle_identifier=own, **asking.options())
        except InputError as error:
            made.errors[row] = str(error)
    for row, future in asked.items():
        try:
            outcome = future.result()
        except InputError as error:
            made.errors[row] = str(error)
            continue
        for name, values in made.arrays().items():
            if name != "errors":
                values[row] = getattr(outcome, name)
    return made


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
