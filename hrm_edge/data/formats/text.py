"""Text: puzzles on a line each, or drawn as grids, as the task reads them."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import InputError
from ...tasks import Task
from .base import Batches, File, Format, Rows


def _read(file: File, task: Task) -> Iterator[Rows]:
    batches = Batches(file, task, "puzzle")
    lines = file.lines
    try:
        for line in lines:
            batches.add(lines.number, line)
            yield from batches.due()
        batches.reader.end()
        yield from batches.take()
    except InputError as error:
        raise file.wrong(error) from None


TEXT = Format(fits=lambda file: True, read=_read)
