"""Sets of puzzles: generated, or read from the files people have and checked; written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import check_replaceable, entries
from ..identifiers import Numbering
from ..progress import Progress, announce
from ..tasks import Task
from ..tasks.base import PAD
from ..tasks.parallel import generate_distinct
from .formats import File, format_of, joined, writer_of
from .public_layout import Grouping, require_set

_CHUNK = 4096  # rows verified at a time, which bounds the memory of large files


@dataclass(frozen=True, eq=False)
class PuzzleSet:
    """``questions`` int32[N, S], ``answers`` int32[N, S] or None, and where each row came from.

    ``identifiers`` int32[N] are rows of a table of ``num_identifiers`` puzzle embeddings; None where all are 0,
    the row that stands for no puzzle in particular. ``grouping`` is the public layout's; None where each row is
    a puzzle and a group of its own, or rows of one identifier are. ``identifier_names``: a hash of
    whose they are, None where that is unknown.
    """

    task: Task
    questions: np.ndarray
    answers: np.ndarray | None
    sources: list[str]
    name: str
    identifiers: np.ndarray | None = None
    num_identifiers: int = 1
    grouping: Grouping | None = None
    identifier_names: str | None = None

    def __len__(self) -> int:
        return len(self.questions)

    def select(self, rows: np.ndarray) -> PuzzleSet:
        """The puzzles at ``rows`` (int[k]), in that order."""
        return replace(
            self,
            questions=self.questions[rows],
            answers=None if self.answers is None else self.answers[rows],
            sources=[self.sources[int(row)] for row in rows],
            identifiers=None if self.identifiers is None else self.identifiers[rows],
            grouping=None if self.grouping is None else self.grouping.select(rows),
        )

    def take(self, n: int, seed: int) -> PuzzleSet:
        """``n`` puzzles drawn without repetition, in file order; all of them when there are no more than n."""
        return self if n >= len(self) else self.select(_drawn(len(self), n, seed))

    @property
    def numbering(self) -> Numbering | None:
        """Whose its identifiers are; None where all are 0."""
        return None if self.identifiers is None else Numbering(self.num_identifiers, self.identifier_names)

    @property
    def solved(self) -> np.ndarray:
        """The answers; InputError where there are none."""
        if self.answers is None:
            raise InputError(f"{self.name} has no answers to write")
        return self.answers

    def content_hash(self) -> str:
        """SHA-256 over the task, every token and identifier; where the puzzles came from does not matter."""
        digest = hashlib.sha256(self.task.name.encode())
        if self.task.definition is not None:
            digest.update(self.task.definition.sha256.encode())
        for tokens in (self.questions, self.answers):
            digest.update(b"\0" if tokens is None else tokens.astype("<i4").tobytes())
        if self.identifiers is not None:
            digest.update(self.identifiers.astype("<i4").tobytes())
        return digest.hexdigest()


def _drawn(total: int, n: int, seed: int) -> np.ndarray:
    """int[n]: rows of ``total``, in order, without repetition."""
    return np.sort(np.random.default_rng(seed).choice(total, min(n, total), replace=False))


def generate_puzzles(
    task: Task,
    n: int,
    seed: int,
    difficulty: str = "ordinary",
    processes: int | None = None,
    progress: Progress | None = None,
) -> PuzzleSet:
    """What :func:`generate_distinct` draws, as a set.

    A script that defines the task itself needs the usual ``if __name__ == "__main__":``: workers import it.
    """
    questions, answers = generate_distinct(task, n, seed, difficulty, processes, progress)
    name = f"generated-{difficulty}"
    return PuzzleSet(task, questions, answers, [name] * n, f"{name}-seed{seed}-n{n}")


def judged(puzzles: PuzzleSet) -> np.ndarray:
    """bool[N]: can each answer be told right from wrong? All can with rules; without, those that have a label."""
    if puzzles.task.has_rules:
        return np.ones(len(puzzles), bool)
    return np.zeros(len(puzzles), bool) if puzzles.answers is None else (puzzles.answers != PAD).any(axis=1)


def judged_only(puzzles: PuzzleSet) -> PuzzleSet:
    """The puzzles whose answers can be told right from wrong; InputError where there are none."""
    if puzzles.task.has_rules:
        return puzzles
    rows = judged(puzzles)
    if not rows.any():
        raise puzzles.task.no_rules(f"no puzzle of {puzzles.name} has a label, so nothing tells what is right")
    return puzzles.select(np.flatnonzero(rows))


# -- reading -------------------------------------------------------------------------------------------


def load_puzzles(path: Path | str, task: Task, progress: Progress | None = None) -> PuzzleSet:
    """Read any form of file in :data:`hrm_edge.data.formats.FORMATS`, "-" being standard input.

    Missing answers are computed exactly. Anything wrong raises InputError with
    the row it is in: an unreadable or contradictory puzzle, one without a solution, an answer that breaks
    the rules or changes a given.
    """
    return open_puzzles(path, task).checked(progress=progress)


def open_puzzles(path: Path | str, task: Task) -> PuzzleFile:
    """The same for where a few puzzles are wanted, or the first ones soon: rules are left to ``checked``."""
    file = File(Path(path))
    parts = list(format_of(file).read(file, task))
    if not parts or not sum(len(part.questions) for part in parts):
        raise file.wrong("holds no puzzles; write one per line")
    rows = joined(parts, file.name)
    sources = [file.name] * len(rows.questions) if rows.sources is None else rows.sources
    known = rows.identifiers, rows.num_identifiers, rows.grouping, rows.identifier_names
    return PuzzleFile(PuzzleSet(task, rows.questions, rows.answers, sources, file.name, *known), rows.where)


@dataclass(frozen=True, eq=False)
class PuzzleFile:
    """What stands in a file, as :class:`Rows` have it; ``where`` names a row for people."""

    unchecked: PuzzleSet
    where: Callable[[int], str]

    def checked(self, rows: np.ndarray | None = None, progress: Progress | None = None) -> PuzzleSet:
        """All puzzles, or those at ``rows`` (int[k]), whose answers obey the rules; missing ones are solved here.

        Without an exact solver they stay missing, all padding. Of a task without rules only the questions are
        checked: an answer may be any.
        """
        if rows is None:
            return _checked(self.unchecked, self.where, progress)
        return _checked(self.unchecked.select(rows), lambda row: self.where(int(rows[row])), progress)

    def drawn(self, n: int, seed: int) -> PuzzleSet:
        """What :meth:`PuzzleSet.take` draws, and no more, checked."""
        return self.checked(_drawn(len(self.unchecked), n, seed))


# -- checking ------------------------------------------------------------------------------------------


def _checked(puzzles: PuzzleSet, where: Callable[[int], str], progress: Progress | None) -> PuzzleSet:
    task, questions, answers = puzzles.task, puzzles.questions, puzzles.solved
    if not task.has_rules:
        for row, question in enumerate(questions):
            _check_question(task, question, where(row))
        return puzzles
    _solve_missing(task, questions, answers, where, progress)
    for start in range(0, len(questions), _CHUNK):
        some = slice(start, start + _CHUNK)
        known = (answers[some] != PAD).any(axis=1)
        wrong = np.flatnonzero(known & ~task.verify(questions[some], answers[some]))
        if wrong.size:
            first = start + int(wrong[0])
            raise InputError(f"{where(first)}: {_why_wrong(task, questions[first], answers[first])}")
    return puzzles


def _solve_missing(
    task: Task,
    questions: np.ndarray,
    answers: np.ndarray,
    where: Callable[[int], str],
    progress: Progress | None,
) -> None:
    missing = np.flatnonzero((answers == PAD).all(axis=1)).tolist()
    several = []
    for done, row in enumerate(missing, 1):
        _check_question(task, questions[row], where(row))
        if task.has_solver:
            solved = task.solve(questions[row])
            if solved is None:
                raise InputError(f"{where(row)}: this puzzle has no solution")
            answers[row] = solved
            if (task.count_solutions(questions[row]) or 1) > 1:
                several.append(row)
        if progress:
            progress("answers worked out", done, len(missing))
    if several:
        announce(
            f"warning: {len(several)} of {len(missing)} puzzles without an answer have several solutions, one of "
            f"which became their answer; the first is {where(several[0])}"
        )


def _check_question(task: Task, question: np.ndarray, where: str) -> None:
    try:
        task.check_question(question)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _why_wrong(task: Task, question: np.ndarray, answer: np.ndarray) -> str:
    """Name the first thing that is wrong with a labelled puzzle."""
    try:
        task.check_question(question)
    except InputError as error:
        return str(error)
    changed = np.flatnonzero(task.givens(question) & (question != answer))
    if changed.size:
        given = task.vocabulary[question[changed[0]]]
        return f"the answer changes the given {given!r} at {task.where(changed[0])}"
    return f"the answer is not a solution: {task.why_wrong(question, answer)}"


# -- writing -------------------------------------------------------------------------------------------


def save_puzzles(puzzles: PuzzleSet, path: Path | str, progress: Progress | None = None) -> None:
    """Write ``.csv`` or ``.csv.gz``, or a folder in the public .npy layout when ``path`` has no suffix.

    The columns are ``source,question,answer,rating``, as in the public files; see :meth:`Task.rating`.
    """
    path = Path(path)
    check_writable(path)
    write = writer_of(path)
    try:
        write(puzzles, path, progress)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def check_writable(path: Path, overwrite: bool = True) -> None:
    """InputError when :func:`save_puzzles` could not write ``path``; cheap, so asked before long work."""
    writer_of(path)  # refuses a name that nothing is written under
    if path.suffix and path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    if not path.suffix:
        check_replaceable(path, require_set)
    is_empty = path.is_dir() and not entries(path)
    if path.exists() and not is_empty and not overwrite:
        raise InputError(f"{path} exists; choose another name, or replace it with --force")
