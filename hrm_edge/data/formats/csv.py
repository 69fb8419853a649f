"""Tables with a header: `question[,answer][,source]`, under any names in circulation; written with a rating."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ...errors import InputError
from ...tasks import Task
from .base import ANSWER, QUESTION, Batches, File, Format, Rows, column_of
from .tables import Block, Column, as_set

_MARKS = ",;\t|"  # between columns
_FLAGS = {True: "true", False: "false"}
_WORD = re.compile(r"[^\W\d][\w .()/:-]*")
_RULE = re.compile(r"(:?-+:?)?")  # below the header of a Markdown table
_COMMENTS = ("#", "//", "%", "sep=")  # the last is what spreadsheets tell each other


def _fits(file: File) -> bool:
    """By a header that names questions, or words alone."""
    header = _header(file.start)
    if not header:
        return file.path.name.lower().endswith((".csv", ".csv.gz"))
    try:
        headers = _headers(header)
    except csv.Error:  # a "name" of more characters than any field has
        return False
    return any(column_of(names, QUESTION) or (mark != "|" and _are_words(names)) for mark, names in headers.items())


def _header(start: list[str]) -> str:
    """The first line that says something."""
    return next((line for line in start if line.strip() and not line.strip().startswith(_COMMENTS)), "")


def _headers(line: str) -> dict[str, list[str]]:
    """The names in a header by the mark that may be between them."""
    found = {}
    for mark in _MARKS:
        names = next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
        if len(names) > 1 or mark == _MARKS[0]:
            found[mark] = [name.strip() for name in names]
    return found


def _are_words(names: list[str]) -> bool:
    """Whether this may be a header with names that nobody knows; cells of a board may be letters."""
    return (
        sum(map(bool, names)) > 1
        and all(_WORD.fullmatch(name) or not name for name in names)
        and (len(names) < 4 or any(len(name) > 1 for name in names))
    )


def _read(file: File, task: Task) -> Iterator[Rows]:
    batches = Batches(file, task)
    headers = _headers(_header(file.start))
    titled = all(len(names) == 1 for names in headers.values()) and "" not in headers[","]
    if file.records and column_of(headers[","], QUESTION):
        titled = False  # of a text nobody knows which line is which puzzle
    read = _titled if titled else _table
    try:
        count = 0
        for rows in read(file, task, batches):
            count += len(rows.questions)
            yield rows
        if not count:
            header = max(headers.values(), key=len)
            raise (
                InputError("holds no puzzles, only a header")
                if column_of(header, QUESTION)
                else _no_question(header)
            )
    except csv.Error as error:
        raise file.wrong(f"line {file.lines.number}: not a CSV file ({error})") from None
    except InputError as error:
        raise file.wrong(error) from None


def _titled(file: File, task: Task, batches: Batches) -> Iterator[Rows]:
    """One column: a text with a title."""
    lines = file.lines
    next(line for line in lines if _header([line]))
    for line in lines:
        batches.add(lines.number, line)
        yield from batches.due()
    batches.reader.end()
    yield from batches.take()


def _table(file: File, task: Task, batches: Batches) -> Iterator[Rows]:
    for line, question, answer, source in _puzzles(file, task):
        batches.put(line, question, answer, source)
        yield from batches.due()
    yield from batches.take()


def _puzzles(file: File, task: Task) -> Iterator[tuple[int, str | list[str | None], str | None, str]]:
    """Line, question, answer and source of each row."""
    lines = file.lines
    first = next((line for line in lines if _header([line])), "")
    headers = _headers(first)
    mark = next((mark for mark, names in headers.items() if column_of(names, QUESTION)), None)
    if mark is None:
        mark = max(headers, key=lambda mark: len(headers[mark]))
    header = headers[mark]
    columns: _Columns | None = None
    # With their ends, which may stand inside quotes. A space in front is a cell of some puzzles.
    for row in csv.reader(lines.with_ends(), delimiter=mark, skipinitialspace=f"{mark} " in first):
        if not any(cell.strip() for cell in row):
            continue
        if mark == "|":  # a table of Markdown
            row = [cell.strip().strip("`") for cell in row]
            if all(_RULE.fullmatch(cell) for cell in row):
                continue
        if row[0].startswith(_COMMENTS) and len(row) != len(header):
            continue
        if len(row) != len(header):
            raise InputError(f"line {lines.number}: {len(row)} columns, the header has {len(header)}")
        if len(header) == task.seq_len:  # a column a cell
            yield lines.number, [cell or None for cell in row], None, ""
            continue
        if columns is None:
            columns = _columns(header, row, task)
        answer = None if columns.answer is None else row[columns.answer]
        source = "" if columns.source is None else row[columns.source]
        yield lines.number, _cell(row[columns.question], task), answer and _cell(answer, task), source


@dataclass(frozen=True)
class _Columns:
    question: int
    answer: int | None
    source: int | None


def _columns(header: list[str], row: list[str], task: Task) -> _Columns:
    """By the names of the columns; where nobody knows them, by what stands in the first row."""
    asked, told = column_of(header, QUESTION), column_of(header, ANSWER)
    source = next(iter(column_of(header, ("source",))), None)
    if len(asked) > 1:  # "puzzle" may be a number or a name
        whole = [column for column in asked if len(row[column].strip()) == task.seq_len]
        if len({row[column] for column in whole}) > 1:
            first, second = (header[column] for column in whole[:2])
            raise InputError(f"line 1: {first!r} and {second!r} may both be the puzzle; keep one of them")
        asked = whole or asked
    if not asked:
        boards = [column for column, cell in enumerate(row) if len(cell.strip()) == task.seq_len]
        open_ = [column for column in boards if not _is_full(row[column], task)]
        full = [column for column in boards if column not in open_]
        if len(open_) != 1 or len(full) > 1:
            raise _no_question(header)
        asked, told = open_, told or full
    return _Columns(asked[0], told[0] if told else None, source)


def _is_full(cell: str, task: Task) -> bool:
    try:
        return bool((task.parse(cell.strip()) != task.blank).all())
    except InputError:
        return False


def _no_question(header: list[str]) -> InputError:
    return InputError(f"line 1: no column 'question' among {', '.join(header).lower()[:80]!r}; name it there")


def _cell(text: str, task: Task) -> str:
    """Spaces at its ends may be blanks of a puzzle."""
    return text if len(text) == task.seq_len else text.strip()


def _tabulate(columns: Sequence[Column], blocks: Iterable[Block], out: BinaryIO) -> None:
    text = io.TextIOWrapper(out, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    for block in blocks:
        shown = [
            [_FLAGS.get(value) for value in values] if column.kind == "flag" else values
            for column, values in zip(columns, block, strict=True)
        ]
        writer.writerows(zip(*shown, strict=True))
    text.flush()
    text.detach()


CSV = Format(fits=_fits, read=_read, endings=(".csv", ".csv.gz"), write=as_set(_tabulate), tabulate=_tabulate)
