"""Puzzles from arguments, files or standard input, each checked, solved, and judged by its task's rules."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.puzzles import open_puzzles
from ..errors import InputError
from ..progress import announce
from ..runtimes import Engine
from ..tasks import Task
from ..tasks.base import PAD
from ..text import decoded
from .retries import solve_with_retries

# Puzzles looked at before the first of them is answered: few files have more, and so many take no time.
_CHECKED = 64


@dataclass(frozen=True)
class Solved:
    """One puzzle's answer: ``question`` and ``answer`` int32[S], ``trace`` int32[steps, S] if asked for."""

    task: Task
    number: int  # counted from 1
    question: np.ndarray
    answer: np.ndarray
    verified: bool
    steps: int
    halted: bool
    ms: float  # wall time from question to answer; a fixed batch shares its time equally
    variant: int  # 0 as asked, k the k-th symmetric variant
    segments: int  # over all variants
    trace: np.ndarray | None
    label: np.ndarray | None = None  # int32[S], padding where nothing is asked; of a task without rules

    @property
    def wrong_cells(self) -> int | None:
        """How many cells are not as the label says; None where there is none."""
        if self.label is None or not (self.label != PAD).any():
            return None
        return int(((self.answer != self.label) & (self.label != PAD)).sum())

    @property
    def right(self) -> bool | None:
        """Whether the answer obeys the rules or, without rules, is as its label says; None: nothing tells."""
        if self.task.has_rules:
            return self.verified
        return None if self.wrong_cells is None else self.wrong_cells == 0

    @property
    def why(self) -> str:
        """What is wrong with an answer that does not verify."""
        changed = np.flatnonzero(self.task.givens(self.question) & (self.answer != self.question))
        if changed.size:
            symbol = self.task.vocabulary[self.question[changed[0]]]
            return f"it changes the given {symbol!r} at {self.task.where(changed[0])}"
        return self.task.why_wrong(self.question, self.answer)

    @property
    def several(self) -> bool:
        """Whether the puzzle is known to have more than one solution."""
        return (self.task.count_solutions(self.question) or 0) > 1

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``hrm-edge solve --json``; boards are one-line texts."""
        content: dict[str, Any] = {
            "question": self.task.format(self.question),
            "answer": self.task.format(self.answer),
            "verified": self.verified if self.task.has_rules else None,
            "steps": self.steps,
            "halted": self.halted,
            "ms": round(self.ms, 3),
            "variant": self.variant,
            "segments": self.segments,
        }
        if self.wrong_cells is not None:
            content |= {"as_labelled": self.right, "wrong_cells": self.wrong_cells}
        if self.trace is not None:
            content["trace"] = [self.task.format(guess) for guess in self.trace]
        return content


@dataclass(frozen=True)
class Questions:
    """Puzzles as they were read: ``tokens`` int32[N, S], and for each source its first row and its check.

    ``identifiers`` int32[N] and ``labels`` int32[N, S] (padding: unknown), where files hold any.
    """

    tokens: np.ndarray
    checks: list[tuple[int, Callable[[np.ndarray], object]]]
    identifiers: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def check(self, first: int, last: int) -> None:
        """InputError naming the first of these rows that contradicts itself or has no solution."""
        ends = [start for start, _ in self.checks[1:]] + [len(self)]
        for (start, check), end in zip(self.checks, ends, strict=False):
            rows = np.arange(max(first, start), min(last, end)) - start
            if len(rows):
                check(rows)


def read_puzzles(sources: Sequence[str], task: Task, data: Path | None = None) -> Questions:
    """Puzzles as text, from paths of files, and for ``-`` from standard input, in that order; then ``data``'s.

    Raises :class:`InputError` naming what can not be read. Whether puzzles have solutions is asked when their turn
    comes, as of many that takes long.
    """
    if task.by_example:
        raise task.no_rules(
            f"what is asked for depends on a puzzle's identifier; use `{task.answered_with}` with --data"
        )
    several = len(sources) > 1
    parts = [
        _read(source, task, f"puzzle {number}: " if several else "") for number, source in enumerate(sources, 1)
    ]
    if data is not None:
        parts.append(_from_file(data, task))
    starts = np.cumsum([0, *(len(part.tokens) for part in parts)]).tolist()
    checks = [(start, check) for start, part in zip(starts, parts, strict=False) for _, check in part.checks]
    return Questions(
        np.concatenate([part.tokens for part in parts]),
        checks,
        _joined([(part.identifiers, part.tokens[:, 0]) for part in parts]),
        _joined([(part.labels, part.tokens) for part in parts]),
    )


def _joined(parts: list[tuple[np.ndarray | None, np.ndarray]]) -> np.ndarray | None:
    """One array of what the sources have, zeros of the shape beside it where one has nothing; None: none has."""
    if all(values is None for values, _ in parts):
        return None
    return np.concatenate([np.zeros_like(like) if values is None else values for values, like in parts])


def _read(source: str, task: Task, where: str) -> Questions:
    """The puzzles of one source."""
    if source == "-":
        return _from_stdin(task)
    if not source.strip():
        raise InputError(f"{where}an empty text is no puzzle; give its cells, a file of puzzles, or - for stdin")
    if _is_path(source):
        return _from_file(Path(source), task)
    try:
        puzzle = task.parse(source)
    except InputError as error:
        raise InputError(f"{where}{error}") from None
    return Questions(puzzle[None], [(0, lambda rows: check_solvable(puzzle, task, where))])


def _from_file(path: Path, task: Task) -> Questions:
    file = open_puzzles(path, task)
    read = file.unchecked
    labels = None if task.has_rules else read.answers
    return Questions(read.questions, [(0, file.checked)], read.identifiers, labels)


def _is_path(source: str) -> bool:
    """Whether an argument names a file, be it one that does not exist."""
    try:
        if Path(source).exists():
            return True
    except (OSError, ValueError):  # too long for a path, or with a NUL in it
        return False
    return source.endswith((".csv", ".txt", ".gz", ".npy", "/"))


def _from_stdin(task: Task) -> Questions:
    if sys.stdin.isatty():
        announce("reading puzzles from the terminal, end with Ctrl-D")
    try:
        text = decoded(sys.stdin.buffer.read())
    except UnicodeDecodeError:
        raise InputError("standard input is not UTF-8 text; give one puzzle per line") from None
    rows = task.parse_many(text)
    if not rows:
        raise InputError(
            "no puzzle given: pass one as an argument, a file of them, or one per line on standard input"
        )

    def check(some: np.ndarray) -> None:
        for row in some.tolist():
            check_solvable(rows[row], task, f"puzzle {row + 1}: " if len(rows) > 1 else "")

    return Questions(np.stack(rows), [(0, check)])


def check_solvable(puzzle: np.ndarray, task: Task, where: str = "") -> None:
    """Raise :class:`InputError` unless int32[S] ``puzzle`` has a solution, as far as can be told."""
    try:
        task.check_question(puzzle)
    except InputError as error:
        raise InputError(f"{where}not a {task.name} puzzle: {error}") from None
    if task.has_solver and task.solve(puzzle) is None:
        raise InputError(f"{where}the puzzle has no solution; check its givens: {task.format(puzzle)}")


def solve_each(engine: Engine, questions: Questions, **options: Any) -> Iterator[Solved]:
    """Check and answer one after the other; ``options`` are those of :func:`solve_with_retries`.

    One at a time, because that is quickest to the first answer and, on a CPU, to the last one as well; only a
    bundle of fixed batch gets that many at once. Backends finish compiling on their first call, so one segment
    is thrown away first, to time every puzzle alike.
    """
    size = engine.batch or 1
    together = -(-_CHECKED // size) * size
    for first in range(0, len(questions), size):
        if first % together == 0:
            questions.check(first, first + together)
        some = questions.tokens[first : first + size]
        identifiers = None if questions.identifiers is None else questions.identifiers[first : first + size]
        if first == 0:
            engine.solve(some, max_think_steps=1, puzzle_identifiers=identifiers)
        begin = time.perf_counter()
        result = solve_with_retries(engine, some, **options, puzzle_identifiers=identifiers)
        ms = (time.perf_counter() - begin) * 1000 / len(some)
        answers = result.answers
        for row in range(len(some)):
            steps = int(answers.steps[row])
            yield Solved(
                task=engine.task,
                number=first + row + 1,
                question=some[row],
                answer=answers.tokens[row],
                verified=bool(result.verified[row]),
                steps=steps,
                halted=bool(answers.halted[row]),
                ms=ms,
                variant=int(result.variant[row]),
                segments=int(result.segments[row]),
                trace=None if answers.trace is None else answers.trace[:steps, row],
                label=None if questions.labels is None else questions.labels[first + row],
            )
