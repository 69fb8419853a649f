"""CSV files with `question[,answer][,source]`, under any of the names in circulation; written with a rating."""

from __future__ import annotations

import csv
import gzip
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...files import write_atomically
from ...progress import Progress
from ...tasks import Task
from .base import File, Format, Rows

if TYPE_CHECKING:
    from ..puzzles import PuzzleSet

# Column names that files in circulation use.
_QUESTION, _ANSWER = ("question", "puzzle", "quizzes"), ("answer", "solution", "solutions")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_CHUNK = 4096  # rows parsed at a time, which bounds the memory of large files


def _fits(file: File) -> bool:
    """By its name, or by a header that names questions."""
    if file.path.name.lower().removesuffix(".gz").endswith(".csv"):
        return True
    header = file.text.lstrip().split("\n", 1)[0].lower()
    return any(column in header.split(",") for column in _QUESTION)


def _read(file: File, task: Task) -> Rows:
    path = file.path
    # Line by line, with their ends, which may stand inside quotes; io.StringIO takes four bytes a character.
    reader = csv.reader(line.group() for line in _LINE.finditer(file.text))
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        question = _column(header, _QUESTION)
        if question is None:
            raise InputError(f"{path} line 1: no column 'question' among {', '.join(header)[:80]!r}; name it there")
        answer, source = _column(header, _ANSWER), _column(header, ("source",))
        questions: list[np.ndarray] = []
        answers: list[np.ndarray] = []
        sources: list[str] = []
        lines = array("q")
        # Texts become tokens chunk by chunk: millions of them at once would take many times the file's size.
        for rows, numbers in _chunks(reader, len(header), path):
            questions.append(_parse_column(task, [row[question] for row in rows], path, numbers, ""))
            answers.append(_parse_answers(task, rows, answer, path, numbers))
            sources += [file.name] * len(rows) if source is None else [row[source] or file.name for row in rows]
            lines.extend(numbers)
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: not a CSV file ({error})") from None
    if not questions:
        raise InputError(f"{path} holds no puzzles, only a header")
    tokens = np.concatenate(questions), np.concatenate(answers)
    return Rows(*tokens, lambda row: f"{path} line {lines[row]}", sources)


def _chunks(reader: Any, width: int, path: Path) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Rows of a CSV that are not empty, with their line numbers."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    for row in reader:
        if not row:
            continue
        number = reader.line_num
        if len(row) != width:
            raise InputError(f"{path} line {number}: {len(row)} columns, the header has {width}")
        rows.append(row)
        numbers.append(number)
        if len(rows) == _CHUNK:
            yield rows, numbers
            rows, numbers = [], []
    if rows:
        yield rows, numbers


def _parse_answers(
    task: Task, rows: list[list[str]], column: int | None, path: Path, lines: list[int]
) -> np.ndarray:
    """int32[k, S], all padding where a row has no answer."""
    answers = np.zeros((len(rows), task.seq_len), np.int32)
    given = [i for i, row in enumerate(rows) if column is not None and row[column].strip()]
    if column is not None and given:
        texts = [rows[i][column] for i in given]
        answers[given] = _parse_column(task, texts, path, [lines[i] for i in given], "answer: ")
    return answers


def _column(header: list[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _parse_column(task: Task, texts: list[str], path: Path, lines: list[int], what: str) -> np.ndarray:
    tokens = task.parse_lines(texts)
    if tokens is not None:
        return tokens
    rows = []
    for text, line in zip(texts, lines, strict=True):
        try:
            rows.append(task.parse(text))
        except InputError as error:
            raise InputError(f"{path} line {line}: {what}{error}") from None
    return np.stack(rows)


def _write(puzzles: PuzzleSet, path: Path, progress: Progress | None) -> None:
    task, answers = puzzles.task, puzzles.solved
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["source", "question", "answer", "rating"])
    texts = zip(puzzles.sources, task.format_many(puzzles.questions), task.format_many(answers), strict=True)
    for row, columns in enumerate(texts):
        writer.writerow([*columns, task.rating(puzzles.questions[row], answers[row])])
        if progress:
            progress("puzzles", row + 1, len(puzzles))
    content = out.getvalue().encode()
    # mtime 0: equal puzzles give equal bytes
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


CSV = Format(fits=_fits, read=_read, endings=(".csv", ".csv.gz"), write=_write)
