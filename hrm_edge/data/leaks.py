"""Leaks: puzzles that accuracy is measured on must be none that a model or a scale was made from."""

from __future__ import annotations

import hashlib

import numpy as np

from ..errors import InputError
from .puzzles import PuzzleSet


def fingerprints(puzzles: PuzzleSet) -> tuple[str, ...]:
    """Two short hashes a puzzle, of question and of answer: the same solution with other givens counts too.

    Without rules a grid says nothing by itself: there it is one, of question, answer and puzzle identifier.
    """
    if not puzzles.task.has_rules:
        own = np.zeros(len(puzzles), np.int32) if puzzles.identifiers is None else puzzles.identifiers
        answers = puzzles.questions if puzzles.answers is None else puzzles.answers
        rows = np.concatenate([puzzles.questions, answers, own[:, None]], axis=1)
        return tuple(sorted({_fingerprint(row) for row in rows}))
    sides = [puzzles.questions] + ([] if puzzles.answers is None else [puzzles.answers])
    return tuple(sorted({_fingerprint(row) for side in sides for row in side}))


def _fingerprint(tokens: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tokens, dtype=np.int32).tobytes()).hexdigest()[:16]


def refuse_leak(calibration: tuple[str, ...], puzzles: PuzzleSet, where: str) -> None:
    """InputError when `puzzles`, meant for measuring, were seen in calibration; `where` names both for the user."""
    seen = set(calibration)
    shared = sum(bool(seen & set(fingerprints(puzzles.select(np.array([row]))))) for row in range(len(puzzles)))
    if shared:
        raise InputError(
            f"{where}: {shared} of the {len(puzzles)} puzzles to measure on, or their solutions, were used for "
            "calibration; an accuracy measured on them would flatter. Give other puzzles"
        )
