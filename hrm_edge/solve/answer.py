"""Puzzles from arguments, files or standard input, each checked, solved, and judged by its task's rules."""

from __future__ import annotations

import functools
import io
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import ENDINGS, STDIN, File, Rows, format_of, joined
from ..errors import InputError
from ..identifiers import require_same
from ..runtimes import Engine
from ..tasks import Task
from ..tasks.base import PAD
from .many import Asked, outcomes
from .requests import Outcome
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
    ms: float  # wall time from when it was begun to its answer
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
        if self.task.has_solver and self.task.solve(self.question) is None:
            return "the puzzle has no solution; check its givens"
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
    """Puzzles as they come, in parts of what was at hand together. ``count``: how many have come so far.

    ``at_hand``: all were, and none is in a file. ``live``: somebody may wait for answers before he asks on.
    """

    def __init__(self, parts: Iterable[Rows], files: Sequence[File] = (), at_hand: bool | None = None) -> None:
        self._parts, self._files = parts, files
        self.count = 0
        self.at_hand = all(file.content is not None for file in files) if at_hand is None else at_hand
        self.live = any(str(file.path) == STDIN for file in files)

    def __iter__(self) -> Iterator[Rows]:
        for rows in self._parts:
            self.count += len(rows.questions)
            yield rows

    def first(self) -> Rows | None:
        """What will come first, None where nothing does."""
        parts = iter(self._parts)
        rows = next(parts, None)
        self._parts = parts if rows is None else itertools.chain([rows], parts)
        return rows

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
    prefix = f"{where}: " if where else ""
    if not source.strip() and source != STDIN:
        raise InputError(f"{prefix}an empty text is no puzzle; give its cells, a file of puzzles, or - for stdin")
    if source == STDIN or is_path(source):
        return File(Path(source))
    try:
        content = source.encode()
    except UnicodeEncodeError:
        raise InputError(f"{prefix}{source} is not text: it has bytes that are not UTF-8") from None
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


def require_questions(rows: Rows, engine: Engine) -> None:
    """InputError naming the first of ``rows`` that its task's rules refuse at sight, or where the engine may know
    other puzzles by their identifiers."""
    task = engine.task
    require_same(rows.numbering, engine.numbering, "the puzzle set")
    wrong = task.first_wrong(rows.questions)
    if wrong is None:
        return
    try:
        task.check_question(rows.questions[wrong])
    except InputError as error:
        raise InputError(f"{_prefix(rows, wrong)}not a {task.name} puzzle: {error}") from None


def require_solvable(rows: Rows, task: Task) -> None:
    """InputError naming the first of ``rows`` that the task's exact solver finds no solution of."""
    for row, puzzle in enumerate(rows.questions):
        try:
            require_solution(puzzle, task)
        except InputError as error:
            raise InputError(f"{_prefix(rows, row)}{error}: {task.format(puzzle)}") from None


def require_solution(question: np.ndarray, task: Task) -> None:
    """InputError where the task's exact solver finds none of ``question`` int[S]."""
    if task.has_solver and task.solve(question) is None:
        raise InputError("the puzzle has no solution; check its givens")


def _prefix(rows: Rows, row: int) -> str:
    where = rows.where(row)
    return f"{where}: " if where else ""


def solve_each(
    engine: Engine,
    questions: Questions,
    *,
    warm_up: bool = True,
    watch: Watch | None = None,
    trace: bool = False,
    check_solvable: bool = False,
    **options: Any,
) -> Iterator[Solved]:
    """Check and answer all, in order; ``options`` are those of :func:`solve_with_retries`.

    As many side by side as the engine has streams and its fixed batch rows, while others are read and what came
    out is written; but one after the other where ``trace`` is kept or ``watch`` is told every segment. With
    ``check_solvable`` the exact solver looks at each first: InputError where one has no solution. Else only one
    that is asked by itself is refused so, and after its answer has turned out wrong. Backends finish compiling on
    their first call, so one segment is thrown away first, to time every puzzle alike; not with ``warm_up`` False.
    """
    checked = _checked(questions, engine, check_solvable)
    solved: Iterator[Solved]
    if watch is None and not trace:
        came = outcomes(engine, checked, live=questions.live, warm_up=warm_up, **options)
        solved = (_of(engine, *each, number) for number, each in enumerate(came, 1))
    else:
        solved = _one_by_one(engine, checked, warm_up, watch, {**options, "trace": trace})
    for each in solved:
        if not each.verified and questions.at_hand and questions.count == 1:
            require_solvable(Rows(each.question[None], each.question[None], lambda row: ""), engine.task)
        yield each


def _checked(questions: Questions, engine: Engine, solvable: bool) -> Iterator[Rows]:
    """What is asked, a few at a time: what is wrong is told when its turn comes, as of many looking takes long."""
    for rows in questions:
        for first in range(0, len(rows.questions), _CHECKED):
            some = rows.some(first, first + _CHECKED)
            some = replace(some, where=functools.partial(_behind, rows.where, first))
            require_questions(some, engine)
            if solvable:
                require_solvable(some, engine.task)
            yield some


def _behind(where: Callable[[int], str], first: int, row: int) -> str:
    return where(first + row)


def _one_by_one(
    engine: Engine, parts: Iterator[Rows], warm_up: bool, watch: Watch | None, options: dict[str, Any]
) -> Iterator[Solved]:
    size, number = 1 if watch else engine.batch or 1, 0
    for rows in parts:
        for first in range(0, len(rows.questions), size):
            some = rows.some(first, first + size)
            if number == 0 and warm_up:
                engine.solve(some.questions, max_think_steps=1, puzzle_identifiers=some.identifiers)
            yield from _solved(engine, some, number, watch, options)
            number += len(some.questions)


def _of(engine: Engine, asked: Asked, outcome: Outcome, number: int) -> Solved:
    rows, row = asked
    return Solved(
        task=engine.task,
        number=number,
        question=rows.questions[row],
        answer=outcome.tokens,
        verified=outcome.verified,
        steps=outcome.steps,
        halted=outcome.halted,
        ms=outcome.thinking_ms,
        variant=outcome.variant,
        segments=outcome.segments,
        trace=None,
        label=None if engine.task.has_rules else rows.answers[row],
    )


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
