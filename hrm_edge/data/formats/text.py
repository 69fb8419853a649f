"""Text: puzzles on a line each, or drawn as grids, as the task reads them."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ...tasks import Task
from .base import File, Format, Rows


def _read(file: File, task: Task) -> Rows:
    try:
        rows = task.parse_many(file.text)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None
    if not rows:
        raise InputError(f"{file.path} holds no puzzles; write one per line")
    questions = np.stack(rows)
    return Rows(questions, np.zeros_like(questions), lambda row: f"{file.path} puzzle {row + 1}")


TEXT = Format(fits=lambda file: True, read=_read)
