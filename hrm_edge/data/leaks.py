"""Leaks and copies: accuracy is measured on puzzles that differ, and that no model or scale was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from ..errors import InputError
from ..progress import Say
from .overlap import classes
from .puzzles import PuzzleSet


def distinct_puzzles(puzzles: PuzzleSet, say: Say = lambda line: None) -> PuzzleSet:
    """The first of each puzzle, in order, whatever symmetries turn it into later: what n may count.

    Exact, and not a guess. Where a puzzle's identifier says what is asked, puzzles of other identifiers differ;
    so do, without rules, those of other labels. ``say`` is told how many are left out, if any.
    """
    first, _ = classes(puzzles.task, puzzles.questions)
    columns = [first[:, None]]
    if puzzles.identifiers is not None:
        columns.append(puzzles.identifiers[:, None])
    if not puzzles.task.has_rules and puzzles.answers is not None:
        columns.append(puzzles.answers)
    _, rows = np.unique(np.concatenate(columns, axis=1), axis=0, return_index=True)
    if len(rows) == len(puzzles):
        return puzzles
    say(
        f"{puzzles.name}: {len(puzzles) - len(rows)} of {len(puzzles)} puzzles are others again, as they are or "
        "turned and renamed; each counts once"
    )
    return puzzles.select(np.sort(rows))


def fingerprints(puzzles: PuzzleSet) -> tuple[str, ...]:
    """Two short hashes a puzzle: of its question up to symmetry, and of its answer as it is.

    So the same solution with other givens counts too, but not a solution that was turned or renamed as well: small
    boards have a handful of those in all. Without rules a grid says nothing by itself: there it is one, of
    question, answer and puzzle identifier.
    """
    *_, today = _marks(puzzles)
    return tuple(sorted({mark for marks in today for mark in marks}))


def seen_before(marks: Iterable[str], puzzles: PuzzleSet) -> np.ndarray:
    """bool[N]: whose :func:`fingerprints` are among ``marks``, which may be of an older hrm-edge."""
    seen = set(marks)
    told = zip(*(kind for kinds in _marks(puzzles) for kind in kinds), strict=True)
    return np.array([any(mark in seen for mark in marks) for marks in told], bool)


def shared_marks(marks: Iterable[str], puzzles: PuzzleSet) -> int:
    """How many of ``marks`` are of these puzzles."""
    return len(set(marks) & {mark for kinds in _marks(puzzles) for kind in kinds for mark in kind})


def refuse_leak(calibration: tuple[str, ...], puzzles: PuzzleSet, where: str) -> None:
    """InputError when `puzzles`, meant for measuring, were seen in calibration; `where` names both for the user."""
    shared = int(seen_before(calibration, puzzles).sum())
    if shared:
        raise InputError(
            f"{where}: {shared} of the {len(puzzles)} puzzles to measure on, or their solutions, were used for "
            "calibration, as they are or turned and renamed; an accuracy measured on them would flatter. "
            "Give other puzzles"
        )


def _marks(puzzles: PuzzleSet) -> tuple[list[list[str]], list[list[str]]]:
    """Lists of one mark a puzzle: (those that were once told besides, those that are told today)."""
    if not puzzles.task.has_rules:
        return [], [_of_labelled(puzzles)]
    turned = [f"{mark:016x}" for mark in puzzles.task.fingerprints(puzzles.questions.astype(np.int32)).tolist()]
    answers = [] if puzzles.answers is None else [list(map(_fingerprint, puzzles.answers))]
    return [list(map(_fingerprint, puzzles.questions))], [turned, *answers]


def _of_labelled(puzzles: PuzzleSet) -> list[str]:
    own = np.zeros(len(puzzles), np.int32) if puzzles.identifiers is None else puzzles.identifiers
    answers = puzzles.questions if puzzles.answers is None else puzzles.answers
    return [_fingerprint(row) for row in np.concatenate([puzzles.questions, answers, own[:, None]], axis=1)]


def _fingerprint(tokens: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tokens, dtype=np.int32).tobytes()).hexdigest()[:16]
