"""Text: puzzles on a line each, or drawn as grids, as the task reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import InputError
from ...tasks import Task
from .base import Batches, File, Format, Rows

# How a file of no form that is read begins, and what it is: told where its text is no puzzle.
_OTHERS = (
    (re.compile(r"ARROW1"), "an Arrow file"),
    (re.compile(r"SQLite format 3"), "an SQLite database"),
    (re.compile(r"(%YAML|---$|(- +)?[A-Za-z_][\w-]*: *$|- +[A-Za-z_][\w-]*: )", re.MULTILINE), "YAML"),
)


def _read(file: File, task: Task) -> Iterator[Rows]:
    batches = Batches(file, task, "puzzle")
    lines = file.lines
    start = "\n".join(line for line in file.start if line.strip())
    try:
        for line in lines:
            batches.add(lines.number, line)
            yield from batches.due()
        batches.reader.end()
        yield from batches.take()
    except InputError as error:
        if other := next((what for begins, what in _OTHERS if begins.match(start)), None):
            error = InputError(f"{error}; it looks like {other}, which is not read: save it as CSV or JSON")
        raise file.wrong(error) from None


TEXT = Format(fits=lambda file: True, read=_read)
