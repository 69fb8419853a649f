"""JSON: boards as texts or lists, alone or under the usual names, in a list or one a line; `solve --json` too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from ...errors import InputError
from ...tasks import Task
from .base import ANSWER, QUESTION, Batches, File, Format, Rows, column_of
from .tables import Block, Column

_NAMES = (*QUESTION, "value", "cells", "start", "data", "rows")  # of what an object holds


def _fits(file: File) -> bool:
    start = next((line for line in file.start if line.strip()), "").strip()
    # "[Puzzle]" is no list.
    return start.startswith("{") or (start.startswith("[") and not start[1:].strip()[:1].isalpha())


def _read(file: File, task: Task) -> Iterator[Rows]:
    batches = Batches(file, task)
    try:
        for line, value in _values(file):
            for question, answer in _puzzles(value, task):
                batches.put(line, question, answer)
            yield from batches.due()
        yield from batches.take()
    except InputError as error:
        raise file.wrong(error) from None
    except RecursionError:
        raise file.wrong("lists within lists without an end are no puzzles") from None


def _values(file: File) -> Iterator[tuple[int, Any]]:
    """Each value with its line: one a line where the first line is one, else wherever they end."""
    lines = file.lines
    first = next(line for line in lines if line.strip())
    number = lines.number
    try:
        yield number, json.loads(first)
    except ValueError:
        yield from _document("\n".join([first, *lines.rest()]), number)
        return
    for line in lines:
        if line.strip():
            try:
                yield lines.number, json.loads(line)
            except ValueError as error:
                raise InputError(f"line {lines.number}: not JSON ({_why(error)})") from None


def _document(text: str, first: int) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        line = first + text.count("\n", 0, at)
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise InputError(f"line {first + getattr(error, 'lineno', 1) - 1}: not JSON ({_why(error)})") from None
        yield line, value


def _why(error: ValueError) -> str:
    return getattr(error, "msg", None) or str(error).splitlines()[0]


def _puzzles(value: Any, task: Task) -> Iterator[tuple[Any, Any]]:
    """Question and answer (None where there is none) of each puzzle in a value."""
    if isinstance(value, str) or is_board(value, task):
        yield value, None
    elif isinstance(value, dict):
        yield from _of_object(value, task)
    elif isinstance(value, list) and value and all(isinstance(item, str | list | dict) for item in value):
        for item in value:
            yield from _puzzles(item, task)
    elif value != []:
        shown = f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:40]
        raise InputError(f"no puzzle of {task.rows} rows of {task.cols}, but {shown}")


def _of_object(value: dict[str, Any], task: Task) -> Iterator[tuple[Any, Any]]:
    names = list(value)
    asked = [names[column] for column in column_of(names, _NAMES) if value[names[column]] is not None]
    told = [names[column] for column in column_of(names, ANSWER) if value[names[column]] is not None]
    boards = [name for name in asked if isinstance(value[name], str) or is_board(value[name], task)]
    if boards:
        if any(value[name] != value[boards[0]] for name in boards):
            raise InputError(f"{boards[0]!r} and {boards[1]!r} may both be the puzzle; keep one of them")
        # An answer that was found wrong is none, and neither is a list of several.
        right = told and value.get("verified") is not False
        yield value[boards[0]], value[told[0]] if right else None
        return
    within = [name for name, item in value.items() if isinstance(item, list | dict) and name not in told]
    if len(within) != 1:
        what = f"{within[0]!r} and {within[1]!r} may both hold puzzles" if within else "none holds a puzzle"
        listed = ", ".join(map(repr, names[:8]))
        raise InputError(f"of the names {listed} {what}; name it 'puzzle'")
    inner = value[within[0]]
    answers = value[told[0]] if told else None
    if isinstance(inner, list) and isinstance(answers, list):
        if len(inner) != len(answers):
            raise InputError(f"{len(inner)} in {within[0]!r}, but {len(answers)} in {told[0]!r}")
        yield from zip(inner, answers, strict=True)
        return
    yield from _puzzles(inner, task)


def is_board(value: Any, task: Task) -> bool:
    """Whether a list is one board: its rows, as texts or lists, or its cells."""
    if not isinstance(value, list):
        return False
    if len(value) == task.seq_len and not any(isinstance(cell, list | dict) for cell in value):
        return all(not isinstance(cell, str) or len(cell) <= 2 for cell in value)
    if len(value) != task.rows:
        return False
    if all(isinstance(row, str) for row in value):
        return all(task.cols <= len(row) < task.seq_len or len(row) == task.cols for row in value)
    return all(
        isinstance(row, list) and len(row) == task.cols and not any(isinstance(cell, list | dict) for cell in row)
        for row in value
    )


def _tabulate(columns: Sequence[Column], blocks: Iterable[Block], out: BinaryIO) -> None:
    """An object a line, as `solve --json` prints them: in ASCII, and no log's command in it."""
    names = [column.name for column in columns]
    for block in blocks:
        rows = (dict(zip(names, row, strict=True)) for row in zip(*block, strict=True))
        out.writelines(f"{json.dumps(row)}\n".replace("##", "#\\u0023").encode() for row in rows)


JSON = Format(fits=_fits, read=_read, endings=(".jsonl", ".jsonl.gz", ".ndjson"), tabulate=_tabulate)
