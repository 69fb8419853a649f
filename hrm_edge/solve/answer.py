"""Puzzles from arguments, files or standard input, each checked, solved, and judged by its task's rules."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import ENDINGS, STDIN, File, Rows, format_of, joined
from ..errors import InputError
from ..runtimes import Engine
from ..tasks import Task
from ..tasks.base import PAD
from .retries import solve_with_retries
from .shown import Shown
from .watch import Watch, watched

# Puzzles looked at before the first of them is answered: few files have more, and so many take no time.
_CHECKED = 64


@dataclass(frozen=True, repr=False)
class Solved(Shown):
    """One puzzle's answer: ``question`` and ``answer`` int32[S], ``trace`` int32[steps, S] if asked for.

    It prints as a board with a caption.
    """

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
        return why_wrong(self.task, self.question, self.answer)

    @property
    def several(self) -> bool:
        """Whether the puzzle is known to have more than one solution."""
        return (self.task.count_solutions(self.question) or 0) > 1

    @property
    def text(self) -> str:
        """The answer on one line, as the task writes it."""
        return self.task.format(self.answer)

    def _drawn(self) -> list[Any]:
        from .pictures import drawn

        return [drawn(self)]

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


def why_wrong(task: Task, question: np.ndarray, answer: np.ndarray) -> str:
    """What is wrong with an ``answer`` int32[S] that does not verify; a given that it changes comes first."""
    changed = np.flatnonzero(task.givens(question) & (answer != question))
    if changed.size and not task.by_example:
        return f"it changes the given {task.vocabulary[question[changed[0]]]!r} at {task.where(changed[0])}"
    return task.why_wrong(question, answer)


class Questions:
    """Puzzles as they come, in parts of what was at hand together. ``count``: how many have come so far."""

    def __init__(self, parts: Iterable[Rows], files: Sequence[File] = ()) -> None:
        self._parts, self._files = parts, files
        self.count = 0

    def __iter__(self) -> Iterator[Rows]:
        for rows in self._parts:
            self.count += len(rows.questions)
            yield rows

    @property
    def total(self) -> int:
        """How many there are, guessed by how much of the files was read; 0 where nobody can know."""
        read, size = (sum(part) for part in zip((0, 0), *(file.progress() for file in self._files), strict=True))
        endless = any(str(file.path) == STDIN and not file.progress()[1] for file in self._files)
        if endless or not read:
            return 0
        return self.count if read == size else max(self.count + 1, round(self.count * size / read))


def read_puzzles(
    sources: Sequence[str | Path], task: Task, data: Path | None = None, *, to_watch: bool = False
) -> Questions:
    """Puzzles as text, from paths of files, and for ``-`` from standard input, in that order; then ``data``'s.

    A text is a file's name where there is such a file, or its ending is one of puzzle files. ``to_watch``: how a
    puzzle is thought over is looked at, for which those of ``data`` need no other rule than their identifier.

    Raises :class:`InputError` naming what can not be read, when its turn comes, as is asked then whether puzzles
    have solutions: of many both take long.
    """
    if task.by_example and (sources or not to_watch):
        raise task.no_rules(
            f"what is asked for depends on a puzzle's identifier; use `{task.answered_with}` with --data"
        )
    several = len(sources) > 1
    files = [_file(source, f"puzzle {number}" if several else "") for number, source in enumerate(sources, 1)]
    if data is not None:
        files.append(File(data))
    return Questions(_rows(files, task), files)


def _file(source: str | Path, where: str) -> File:
    if isinstance(source, Path):
        return File(source)
    if not source.strip() and source != STDIN:
        prefix = f"{where}: " if where else ""
        raise InputError(f"{prefix}an empty text is no puzzle; give its cells, a file of puzzles, or - for stdin")
    if source == STDIN or is_path(source):
        return File(Path(source))
    content = source.encode("utf-8", "surrogatepass")
    return File(Path("puzzle"), lambda: io.BytesIO(content), where)


def is_path(source: str) -> bool:
    """Whether an argument names a file, be it one that does not exist."""
    try:
        if Path(source).exists():
            return True
    except (OSError, ValueError):  # too long for a path, or with a NUL in it
        return False
    return source.endswith(ENDINGS)


def _rows(files: list[File], task: Task) -> Iterator[Rows]:
    given: list[Rows] = []  # as arguments, which are all at hand
    for file in files:
        parts = _parts(file, task)
        if file.content is not None:
            given += parts
            continue
        if given:
            yield joined(given, "")
            given = []
        yield from parts
    if given:
        yield joined(given, "")


def _parts(file: File, task: Task) -> Iterator[Rows]:
    count = 0
    for rows in format_of(file).read(file, task):
        yield replace(rows, where=_where(file, rows, count))
        count += len(rows.questions)
    if not count:
        if str(file.path) == STDIN:
            raise InputError(
                "no puzzle given: pass one as an argument, a file of them, or one per line on standard input"
            )
        raise file.wrong("holds no puzzles; write one per line")


def _where(file: File, rows: Rows, before: int) -> Callable[[int], str]:
    """What messages call each row: of what is no file, by its number; a single one needs no name."""
    if file.content is None and str(file.path) != STDIN:
        return rows.where
    called = file.called or ""
    if before == 0 and len(rows.questions) == 1:
        return lambda row: called
    return lambda row: f"{called} puzzle {before + row + 1}".strip()


def check_solvable(puzzle: np.ndarray, task: Task, where: str = "") -> None:
    """Raise :class:`InputError` unless int32[S] ``puzzle`` has a solution, as far as can be told."""
    prefix = f"{where}: " if where else ""
    try:
        task.check_question(puzzle)
    except InputError as error:
        raise InputError(f"{prefix}not a {task.name} puzzle: {error}") from None
    if task.has_solver and task.solve(puzzle) is None:
        raise InputError(f"{prefix}the puzzle has no solution; check its givens: {task.format(puzzle)}")


def solve_each(
    engine: Engine, questions: Questions, *, warm_up: bool = True, watch: Watch | None = None, **options: Any
) -> Iterator[Solved]:
    """Check and answer one after the other; ``options`` are those of :func:`solve_with_retries`.

    One at a time, because that is quickest to the first answer and, on a CPU, to the last one as well; only a
    bundle of fixed batch gets that many at once, unless ``watch`` is told every segment. Backends finish
    compiling on their first call, so one segment is thrown away first, to time every puzzle alike; not with
    ``warm_up`` False.
    """
    size = 1 if watch else engine.batch or 1
    together = -(-_CHECKED // size) * size
    number = 0
    for rows in questions:
        for first in range(0, len(rows.questions), size):
            if first % together == 0:
                for row in range(first, min(first + together, len(rows.questions))):
                    check_solvable(rows.questions[row], engine.task, rows.where(row))
            some = rows.some(first, first + size)
            if number == 0 and warm_up:
                engine.solve(some.questions, max_think_steps=1, puzzle_identifiers=some.identifiers)
            yield from _solved(engine, some, number, watch, options)
            number += len(some.questions)


def _solved(
    engine: Engine, rows: Rows, before: int, watch: Watch | None, options: dict[str, Any]
) -> Iterator[Solved]:
    """Answers of ``rows``, ``before`` of which others came."""
    some = rows.questions
    labels = None if engine.task.has_rules else rows.answers
    begin = time.perf_counter()
    asking = {**options, "puzzle_identifiers": rows.identifiers}
    if watch is None:
        result = solve_with_retries(engine, some, **asking)
    else:
        result = watched(engine, some, watch, puzzle=before + 1, **asking)
    seconds = time.perf_counter() - begin if result.seconds is None else result.seconds
    ms = seconds * 1000 / len(some)
    answers = result.answers
    for row in range(len(some)):
        steps = int(answers.steps[row])
        yield Solved(
            task=engine.task,
            number=before + row + 1,
            question=some[row],
            answer=answers.tokens[row],
            verified=bool(result.verified[row]),
            steps=steps,
            halted=bool(answers.halted[row]),
            ms=ms,
            variant=int(result.variant[row]),
            segments=int(result.segments[row]),
            trace=None if answers.trace is None else answers.trace[:steps, row],
            label=None if labels is None else labels[row],
        )
