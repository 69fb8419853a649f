"""Puzzles that were thought about and may be thought about further: what was guessed, and where thinking stands."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..halting import halting_head
from ..runtimes.engine import SegmentOutput
from ..solve.answer import why_wrong
from ..tasks import Task
from ..tasks.boards import ASCII, board, wrong_cells
from ..text import printable
from .bundles import Served

_KEPT = 64  # thoughts; the one longest unused makes way
_TOLD = 40  # changes of one segment


class Thought:
    """One puzzle of a bundle. ``guesses`` int32[S] after each segment of the puzzle as asked; ``answer`` int32[S]
    is the last of them, or what verified of a symmetric variant.
    """

    def __init__(self, served: Served, question: np.ndarray) -> None:
        self.name, self.served, self.question = secrets.token_hex(4), served, question
        self.guesses: list[np.ndarray] = []
        self.margins: list[float] = []  # by how much the halting head says stop
        self.answer = question
        self.variant = 0
        self.halted = False
        self.lock = threading.Lock()
        self._further: Iterator[SegmentOutput] | None = None

    @property
    def task(self) -> Task:
        return self.served.task

    @property
    def verified(self) -> bool | None:
        """Whether the answer keeps the rules; None: the task has none."""
        if not self.task.has_rules:
            return None
        return bool(self.task.verify(self.question[None], self.answer[None])[0])

    def seen(self, output: SegmentOutput) -> None:
        """One more segment."""
        head = halting_head(self.served.engine.no_ACT_continue)
        self.guesses.append(np.array(output.guess, np.int32))
        self.margins.append(float(head.margin(output.q[None])[0]))

    def further(self, segments: int, halt: str, stop: threading.Event) -> None:
        """Think on from where it stands, in a thread; ``stop`` ends it after the segment that it is in.

        The state is kept from one call to the next. The first call makes it, by thinking the same segments again.
        """
        engine = self.served.engine
        with self.lock:
            request = engine.request(self.question[None], None, halt)
            if self._further is None:
                self._further = engine.segments(request)
                for _ in self.guesses:
                    next(self._further)
            self.halted = False
            for _ in range(segments):
                if stop.is_set():
                    break
                output = next(self._further)
                self.seen(output)
                if bool(engine.stops(request, slice(None), output.guess[None], output.q[None])[0]):
                    self.halted = True
                    break
            self.answer, self.variant = self.guesses[-1], 0

    def board(self, segment: int | None = None) -> str:
        """The answer as a drawn board, or the guess after a segment, counted from 1."""
        if segment is None:
            return drawn(self.task, self.question, self.answer)
        before = self.guesses[segment - 2] if segment > 1 else self.question
        return drawn(self.task, self.question, self.guesses[segment - 1], before)

    def changes(self) -> list[list[str]]:
        """What each segment changed, cell by cell, and which of it had broken a rule."""
        boards = itertools.pairwise([self.question, *self.guesses])
        return [changed(self.task, self.question, before, after) for before, after in boards]

    def close(self) -> None:
        """Give back what thinking further holds."""
        if self._further is not None and hasattr(self._further, "close"):
            self._further.close()


class Thoughts:
    """The last thoughts, by name. Names cannot be guessed: several callers may have theirs here."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Thought] = OrderedDict()

    def keep(self, thought: Thought) -> None:
        self._kept[thought.name] = thought
        while len(self._kept) > _KEPT:
            _, old = self._kept.popitem(last=False)
            old.close()

    def find(self, name: str) -> Thought | None:
        """The thought of that name, where it is still kept."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)


def drawn(task: Task, question: np.ndarray, answer: np.ndarray, before: np.ndarray | None = None) -> str:
    """A board of int32[S] as lines of ASCII marks; ``before``: a guess, of which changes are marked."""
    lines = board(task, question, answer, before, ASCII).plain.split("\n")
    return "\n".join(printable(line) for line in lines)


def changed(task: Task, question: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[str]:
    """ "row 1, column 2: 3 -> 4 (3 broke a rule)" for each cell in which two boards int32[S] differ."""
    broken, blank = wrong_cells(task, question, before), before == task.blank
    cells = np.flatnonzero(before != after)
    found = [
        f"{place(task, cell)}: {symbol(task, before[cell])} -> {symbol(task, after[cell])}"
        + (f" ({symbol(task, before[cell])} broke a rule)" if broken[cell] and not blank[cell] else "")
        for cell in cells[:_TOLD]
    ]
    more = len(cells) - len(found)
    return [*found, f"and {more} more"] if more else found


def how_many(thought: Thought) -> list[int]:
    """How many cells each segment changed."""
    boards = [thought.question, *thought.guesses]
    return [int((after != before).sum()) for before, after in itertools.pairwise(boards)]


def broken(task: Task, question: np.ndarray, answer: np.ndarray) -> list[str]:
    """Each cell of int32[S] that by itself shows the answer to be wrong."""
    cells = np.flatnonzero(wrong_cells(task, question, answer))
    return [f"{place(task, cell)}: {symbol(task, answer[cell])}" for cell in cells]


def place(task: Task, cell: Any) -> str:
    row, column = divmod(int(cell), task.cols)
    return f"row {row + 1}, column {column + 1}"


def symbol(task: Task, token: Any) -> str:
    return printable(task.format(np.array([token])))


def why(task: Task, question: np.ndarray, answer: np.ndarray) -> str | None:
    """What is wrong with an answer int32[S], in a line; None: nothing, or no rule tells."""
    if not task.has_rules or bool(task.verify(question[None], answer[None])[0]):
        return None
    return printable(why_wrong(task, question, answer))
