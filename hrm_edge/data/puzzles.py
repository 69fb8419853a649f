"""Sets of puzzles: generated, or read from the files people have and checked; written whole or not at all."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import write_atomically
from ..tasks import Task
from ..tasks.parallel import generate_distinct
from .public_layout import Folder, Grouping, read_folder, write_folder

Progress = Callable[[int], None]  # told how many puzzles are done

# Column names that files in circulation use.
_QUESTION, _ANSWER = ("question", "puzzle", "quizzes"), ("answer", "solution", "solutions")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_CHUNK = 4096  # rows parsed or verified at a time, which bounds the memory of large files


@dataclass(frozen=True, eq=False)
class PuzzleSet:
    """``questions`` int32[N, S], ``answers`` int32[N, S] or None, and where each row came from.

    ``identifiers`` int32[N] are rows of a table of ``num_identifiers`` puzzle embeddings; None where all are 0,
    the row that stands for no puzzle in particular. ``grouping`` is the public layout's; None where each row is
    a puzzle and a group of its own, or rows of one identifier are.
    """

    task: Task
    questions: np.ndarray
    answers: np.ndarray | None
    sources: list[str]
    name: str
    identifiers: np.ndarray | None = None
    num_identifiers: int = 1
    grouping: Grouping | None = None

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
        if n >= len(self):
            return self
        rows = np.random.default_rng(seed).choice(len(self), n, replace=False)
        return self.select(np.sort(rows))

    def content_hash(self) -> str:
        """SHA-256 over the task, every token and identifier; where the puzzles came from does not matter."""
        digest = hashlib.sha256(self.task.name.encode())
        for tokens in (self.questions, self.answers):
            digest.update(b"\0" if tokens is None else tokens.astype("<i4").tobytes())
        if self.identifiers is not None:
            digest.update(self.identifiers.astype("<i4").tobytes())
        return digest.hexdigest()


def generate_puzzles(
    task: Task,
    n: int,
    seed: int,
    difficulty: str = "ordinary",
    processes: int | None = None,
    progress: Progress | None = None,
) -> PuzzleSet:
    """``n`` different puzzles with their answers, on ``processes`` cores (default: all this process may use).

    The number of processes does not matter, and the first k of n are what ``n=k`` gives; another seed gives
    other puzzles. A script that generates many needs the usual ``if __name__ == "__main__":``, because the
    worker processes import it.
    """
    questions, answers = generate_distinct(task, n, seed, difficulty, processes, progress)
    name = f"generated-{difficulty}"
    return PuzzleSet(task, questions, answers, [name] * n, f"{name}-seed{seed}-n{n}")


# -- reading -------------------------------------------------------------------------------------------


def load_puzzles(path: Path | str, task: Task) -> PuzzleSet:
    """Read a CSV with ``question[,answer][,source]``, a text of puzzles, or a folder in the public .npy layout.

    CSV and text may be gzipped. Missing answers are computed exactly. Anything wrong raises InputError with
    the row it is in: an unreadable or contradictory puzzle, one without a solution, an answer that breaks
    the rules or changes a given.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, task)
    text = _read_text(path)
    name = path.name.split(".")[0]
    header = text.lstrip("\ufeff \t\r\n").split("\n", 1)[0].lower()
    is_csv = path.name.lower().removesuffix(".gz").endswith(".csv")
    if is_csv or any(column in header.split(",") for column in _QUESTION):
        return _read_csv(text.removeprefix("\ufeff"), task, path, name)
    try:
        rows = task.parse_many(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not rows:
        raise InputError(f"{path} holds no puzzles; write one per line")
    questions = np.stack(rows)
    return _checked(
        task, questions, np.zeros_like(questions), [name] * len(rows), name, lambda row: f"{path} puzzle {row + 1}"
    )


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: byte {error.start} is not UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file ({error}); fetch or write it again") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _read_csv(text: str, task: Task, path: Path, name: str) -> PuzzleSet:
    # Line by line, with their ends, which may stand inside quotes; io.StringIO takes four bytes a character.
    reader = csv.reader(line.group() for line in _LINE.finditer(text))
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
            sources += [name] * len(rows) if source is None else [row[source] or name for row in rows]
            lines.extend(numbers)
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: not a CSV file ({error})") from None
    if not questions:
        raise InputError(f"{path} holds no puzzles, only a header")
    tokens = np.concatenate(questions), np.concatenate(answers)
    return _checked(task, *tokens, sources, name, lambda row: f"{path} line {lines[row]}")


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


def _read_folder(folder: Path, task: Task) -> PuzzleSet:
    content = read_folder(folder, task)
    name, rows = folder.name, len(content.questions)
    checked = _checked(
        task, content.questions, content.answers, [name] * rows, name, lambda row: f"{folder} row {row}"
    )
    known = content.identifiers.any()
    return replace(
        checked,
        identifiers=content.identifiers if known else None,
        num_identifiers=content.num_identifiers,
        # Rows of one identifier would be taken for one puzzle, so where there are any the grouping must say.
        grouping=content.grouping if known or not content.grouping.is_plain else None,
    )


# -- checking ------------------------------------------------------------------------------------------


def _checked(
    task: Task,
    questions: np.ndarray,
    answers: np.ndarray,
    sources: list[str],
    name: str,
    where: Callable[[int], str],
) -> PuzzleSet:
    """A PuzzleSet whose answers all obey the rules; rows of ``answers`` that are all padding are solved here.

    Of a task without rules only the questions are checked: an answer may be any, or unknown (all padding).
    """
    if not task.has_rules:
        for row, question in enumerate(questions):
            _check_question(task, question, where(row))
        return PuzzleSet(task, questions, answers, sources, name)
    for row in map(int, np.flatnonzero((answers == 0).all(axis=1))):
        _check_question(task, questions[row], where(row))
        solved = task.solve(questions[row])
        if solved is None:
            raise InputError(f"{where(int(row))}: this puzzle has no solution")
        answers[row] = solved
    for start in range(0, len(questions), _CHUNK):
        rows = slice(start, start + _CHUNK)
        wrong = np.flatnonzero(~task.verify(questions[rows], answers[rows]))
        if wrong.size:
            first = start + int(wrong[0])
            raise InputError(f"{where(first)}: {_why_wrong(task, questions[first], answers[first])}")
    return PuzzleSet(task, questions, answers, sources, name)


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
    changed = np.flatnonzero((question != task.blank) & (question != answer))
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
    try:
        if path.suffix == "":
            _write_folder(puzzles, path)
        else:
            text = _csv_text(puzzles, progress).encode()
            # mtime 0: equal puzzles give equal bytes
            write_atomically(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def check_writable(path: Path, overwrite: bool = True) -> None:
    """InputError when :func:`save_puzzles` could not write ``path``; cheap, so asked before long work."""
    if path.suffix and not path.name.endswith((".csv", ".csv.gz")):
        raise InputError(f"cannot write {path}: end it in .csv or .csv.gz, or name a folder for .npy files")
    if path.suffix and path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    is_empty = path.is_dir() and not any(path.iterdir())
    if not path.suffix and path.exists() and not is_empty and not (path / "dataset.json").is_file():
        raise InputError(f"{path} exists and is no puzzle set; choose another name")
    if path.exists() and not is_empty and not overwrite:
        raise InputError(f"{path} exists; choose another name, or replace it with --force")


def _solved(puzzles: PuzzleSet) -> np.ndarray:
    if puzzles.answers is None:
        raise InputError(f"{puzzles.name} has no answers to write")
    return puzzles.answers


def _csv_text(puzzles: PuzzleSet, progress: Progress | None) -> str:
    task, answers = puzzles.task, _solved(puzzles)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["source", "question", "answer", "rating"])
    texts = zip(puzzles.sources, task.format_many(puzzles.questions), task.format_many(answers), strict=True)
    for row, columns in enumerate(texts):
        writer.writerow([*columns, task.rating(puzzles.questions[row], answers[row])])
        if progress:
            progress(row + 1)
    return out.getvalue()


def _write_folder(puzzles: PuzzleSet, folder: Path) -> None:
    identifiers, grouping = puzzles.identifiers, puzzles.grouping
    own = np.arange(len(puzzles), dtype=np.int32)
    if identifiers is None:
        identifiers = np.zeros_like(own)
    elif grouping is None:
        grouping = Grouping(identifiers, identifiers)  # what has one identifier is one puzzle
    number = max(puzzles.num_identifiers, int(identifiers.max(initial=0)) + 1)
    content = Folder(puzzles.questions, _solved(puzzles), identifiers, number, grouping or Grouping(own, own))
    write_folder(content, puzzles.task, folder)
