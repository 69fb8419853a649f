"""Puzzles from arguments, files or standard input, each checked, solved, and judged by its task's rules."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.puzzles import load_puzzles
from ..errors import InputError
from ..progress import announce
from ..runtimes import Engine
from ..tasks import Task
from ..text import decoded
from .retries import solve_with_retries


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

    @property
    def why(self) -> str:
        """What is wrong with an answer that does not verify."""
        given = self.question != self.task.blank
        changed = np.flatnonzero(given & (self.answer != self.question))
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
            "verified": self.verified,
            "steps": self.steps,
            "halted": self.halted,
            "ms": round(self.ms, 3),
            "variant": self.variant,
            "segments": self.segments,
        }
        if self.trace is not None:
            content["trace"] = [self.task.format(guess) for guess in self.trace]
        return content


def read_puzzles(sources: Sequence[str], task: Task) -> np.ndarray:
    """int32[N, S] from puzzles as text, paths of files, and ``-`` for standard input, in that order.

    Raises :class:`InputError` naming the puzzle that can not be read, contradicts itself or has no solution.
    """
    if not task.has_rules:
        raise task.no_rules(
            f"what is asked for depends on a puzzle's identifier; use `{task.answered_with}` with --data"
        )
    several = len(sources) > 1
    parts = [
        _read(source, task, f"puzzle {number}: " if several else "") for number, source in enumerate(sources, 1)
    ]
    return np.concatenate(parts)


def _read(source: str, task: Task, where: str) -> np.ndarray:
    if source == "-":
        return _from_stdin(task)
    if not source.strip():
        raise InputError(f"{where}an empty text is no puzzle; give its cells, a file of puzzles, or - for stdin")
    if _is_path(source):
        return load_puzzles(source, task).questions
    try:
        puzzle = task.parse(source)
    except InputError as error:
        raise InputError(f"{where}{error}") from None
    check_solvable(puzzle, task, where)
    return puzzle[None]


def _is_path(source: str) -> bool:
    """Whether an argument names a file, be it one that does not exist."""
    try:
        if Path(source).exists():
            return True
    except (OSError, ValueError):  # too long for a path, or with a NUL in it
        return False
    return source.endswith((".csv", ".txt", ".gz", ".npy", "/"))


def _from_stdin(task: Task) -> np.ndarray:
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
    for number, row in enumerate(rows, 1):
        check_solvable(row, task, f"puzzle {number}: " if len(rows) > 1 else "")
    return np.stack(rows)


def check_solvable(puzzle: np.ndarray, task: Task, where: str = "") -> None:
    """Raise :class:`InputError` unless int32[S] ``puzzle`` has a solution."""
    try:
        task.check_question(puzzle)
    except InputError as error:
        raise InputError(f"{where}not a {task.name} puzzle: {error}") from None
    if task.solve(puzzle) is None:
        raise InputError(f"{where}the puzzle has no solution; check its givens: {task.format(puzzle)}")


def solve_each(engine: Engine, questions: np.ndarray, **options: Any) -> Iterator[Solved]:
    """Answer int32[N, S] one after the other; ``options`` are those of :func:`solve_with_retries`.

    One at a time, because that is quickest to the first answer and, on a CPU, to the last one as well; only a
    bundle of fixed batch gets that many at once. Backends finish compiling on their first call, so one segment
    is thrown away first, to time every puzzle alike.
    """
    size = engine.batch or 1
    engine.solve(questions[:size], max_think_steps=1)
    for first in range(0, len(questions), size):
        some = questions[first : first + size]
        begin = time.perf_counter()
        result = solve_with_retries(engine, some, **options)
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
            )
