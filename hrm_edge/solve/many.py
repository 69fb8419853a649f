"""Many puzzles through a scheduler: others are read and answers written while the engine thinks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ..data.formats import Rows
from ..errors import InputError
from ..runtimes import Engine
from .scheduler import Outcome, Scheduler

# A puzzle that was asked: the rows it came in, and which of them it is.
Asked = tuple[Rows, int]


def outcomes(
    engine: Engine, parts: Iterable[Rows], *, live: bool = False, warm_up: bool = True, **options: Any
) -> Iterator[tuple[Asked, Outcome]]:
    """Every puzzle of ``parts`` with what came of it, in order; ``options`` are those of `Scheduler.submit`.

    ``live``: whoever asks may wait for the answers to a part before he asks the next. An error in reading is raised
    when all that was read before is answered.
    """
    reading = _Reading(engine, iter(parts), warm_up)
    with Scheduler(engine) as scheduler:
        while not reading.over:
            for outcome in scheduler.map(reading.items(1 if live else None), **options):
                yield reading.asked.popleft(), outcome
    if reading.error is not None:
        raise reading.error


class _Reading:
    """What is asked, as a scheduler takes it."""

    def __init__(self, engine: Engine, parts: Iterator[Rows], warm_up: bool) -> None:
        self._engine, self._parts, self._warm_up = engine, parts, warm_up
        self.asked: deque[Asked] = deque()  # and not answered
        self.over = False
        self.error: InputError | None = None

    def items(self, most: int | None) -> Iterator[dict[str, Any]]:
        """The puzzles of so many parts, or of all."""
        count = 0
        while count != most and not self.over:
            try:
                rows = next(self._parts, None)
            except InputError as error:
                self.error, rows = error, None
            if rows is None:
                self.over = True
                return
            count += 1
            if self._warm_up:
                some = rows.some(0, self._engine.together)
                self._engine.solve(some.questions, max_think_steps=1, puzzle_identifiers=some.identifiers)
                self._warm_up = False
            for row, tokens in enumerate(rows.questions):
                self.asked.append((rows, row))
                identifier = None if rows.identifiers is None else rows.identifiers[row]
                yield {"tokens": tokens, "puzzle_identifier": identifier}
