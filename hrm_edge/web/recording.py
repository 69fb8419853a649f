"""Thinking as it was, in one self-contained page: the site's viewer with a trace in it and no engine."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..files import check_file, write_atomically
from ..portable import task_facts
from ..solve.watch import Moment
from ..text import printable
from .pages import recorded_page

CANDIDATES = 3  # of each cell, with their odds; `app/candidates.js` says the same
_MOST = 200  # puzzles of a page, which holds all of them


class Recording:
    """Told every :class:`Moment` of some puzzles; :meth:`page` is what it saw."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.puzzles: dict[int, list[Moment]] = {}

    def __call__(self, moment: Moment) -> None:
        if moment.puzzle > _MOST:
            raise InputError(f"a page holds up to {_MOST} puzzles; give fewer with --trace-html")
        self.puzzles.setdefault(moment.puzzle, []).append(moment)

    def page(self) -> str:
        """The page as HTML. It loads nothing, and its policy lets no script run but its own."""
        runs = list(self.puzzles.values())
        first = runs[0][0]
        content = {
            "facts": task_facts(first.task),
            "subtitle": printable(f"How {self.label} thought it over"),
            "about": f"Recorded by hrm-edge {__version__}.",
            "runs": [_run(moments) for moments in runs],
        }
        return recorded_page(content, escape(printable(first.task.name)))

    def write(self, path: Path) -> None:
        """The page as a file, whole or not at all; nothing where no puzzle was asked."""
        if self.puzzles:
            write_atomically(path, self.page())


def opened_recording(path: Path, label: str) -> Recording:
    """A recording to be written to ``path``; InputError where it cannot, before any thinking."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: a page is a .html; end the name so")
    check_file(path)
    return Recording(label)


def _run(moments: list[Moment]) -> dict[str, Any]:
    """One puzzle's segments as `app/viewer.js` takes them."""
    last = moments[-1]
    # What shows no logits was asked anew for each segment, so that its times tell nothing.
    timed = last.output.logits is not None
    return {
        "question": last.question.tolist(),
        "limit": last.limit,
        "segments": [
            {
                "guess": moment.guess.tolist(),
                "q": [float(value) for value in moment.output.q],
                "margin": moment.margin,
                "stopped": moment.stops,
                "attempt": moment.variant,
                "ms": 1000 * moment.seconds if timed else None,
                "likely": _likely(moment.logits, moment.guess),
            }
            for moment in moments
        ],
    }


def _likely(logits: np.ndarray | None, guess: np.ndarray) -> dict[str, list[Any]] | None:
    """The likeliest tokens of each cell with the softmax of their logits, best first and of equals the guess."""
    if logits is None:
        return None
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds = powers / powers.sum(axis=1, keepdims=True)
    is_guess = np.arange(logits.shape[1]) == guess[:, None]
    best = np.lexsort((~is_guess, -logits), axis=1)[:, :CANDIDATES]  # a vocabulary may be smaller than that
    short = CANDIDATES - best.shape[1]
    best = np.pad(best, ((0, 0), (0, short)))
    chosen = np.take_along_axis(odds, best, axis=1)
    chosen[:, CANDIDATES - short :] = 0
    return {"tokens": best.reshape(-1).tolist(), "odds": np.round(chosen, 4).reshape(-1).tolist()}
