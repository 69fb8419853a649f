"""Sets of puzzles: generated, or read from the files people have and checked; written whole or not at all."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .files import replacing_folder, write_atomically
from .tasks import Task
from .tasks.parallel import generate_distinct

Progress = Callable[[int], None]  # told how many puzzles are done

# Column names that files in circulation use.
_QUESTION, _ANSWER = ("question", "puzzle", "quizzes"), ("answer", "solution", "solutions")
_CHUNK = 4096  # rows verified at a time, which bounds the memory of large files


@dataclass(frozen=True, eq=False)
class PuzzleSet:
    """``questions`` int32[N, S], ``answers`` int32[N, S] or None, and where each row came from."""

    task: Task
    questions: np.ndarray
    answers: np.ndarray | None
    sources: list[str]
    name: str

    def __len__(self) -> int:
        return len(self.questions)

    def select(self, rows: np.ndarray) -> PuzzleSet:
        """The puzzles at ``rows`` (int[k]), in that order."""
        answers = None if self.answers is None else self.answers[rows]
        sources = [self.sources[int(row)] for row in rows]
        return PuzzleSet(self.task, self.questions[rows], answers, sources, self.name)

    def take(self, n: int, seed: int) -> PuzzleSet:
        """``n`` puzzles drawn without repetition, in file order; all of them when there are no more than n."""
        if n >= len(self):
            return self
        rows = np.random.default_rng(seed).choice(len(self), n, replace=False)
        return self.select(np.sort(rows))

    def content_hash(self) -> str:
        """SHA-256 over the task and every token; where the puzzles came from does not matter."""
        digest = hashlib.sha256(self.task.name.encode())
        for tokens in (self.questions, self.answers):
            digest.update(b"\0" if tokens is None else tokens.astype("<i4").tobytes())
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
        return _read_npy(path, task)
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
    # newline="" keeps the spaces and line ends inside quoted cells
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        rows, lines = [], []
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: not a CSV file ({error})") from None
    question = _column(header, _QUESTION)
    if question is None:
        raise InputError(f"{path} line 1: no column 'question' among {', '.join(header)[:80]!r}; name it there")
    if not rows:
        raise InputError(f"{path} holds no puzzles, only a header")
    short = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if short is not None:
        raise InputError(f"{path} line {lines[short]}: {len(rows[short])} columns, the header has {len(header)}")

    questions = _parse_column(task, [row[question] for row in rows], path, lines, "")
    answers = np.zeros_like(questions)
    answer = _column(header, _ANSWER)
    if answer is not None:
        given = [i for i, row in enumerate(rows) if row[answer].strip()]
        if given:
            texts = [rows[i][answer] for i in given]
            answers[given] = _parse_column(task, texts, path, [lines[i] for i in given], "answer: ")
    source = _column(header, ("source",))
    sources = [name] * len(rows) if source is None else [row[source] or name for row in rows]
    return _checked(task, questions, answers, sources, name, lambda row: f"{path} line {lines[row]}")


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


def _read_npy(folder: Path, task: Task) -> PuzzleSet:
    """The layout of the public trainers: ``dataset.json`` and ``all__*.npy``, tokens as in our tasks."""
    if not (folder / "dataset.json").is_file():
        splits = sorted(inner.parent.name for inner in folder.glob("*/dataset.json"))
        if splits:
            raise InputError(f"{folder} holds several sets; name one: {', '.join(str(folder / s) for s in splits)}")
        raise InputError(f"{folder} is no puzzle set: it has no dataset.json beside all__inputs.npy")
    try:
        described = json.loads((folder / "dataset.json").read_text("utf-8"))
        expected = {"seq_len": task.seq_len, "vocab_size": task.vocab_size}
        for field, value in expected.items():
            if described[field] != value:
                raise InputError(f"{folder}: {field} is {described[field]!r}, but {task.name} has {value}")
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise InputError(f"{folder / 'dataset.json'} cannot be read: {type(error).__name__} {error}") from None
    questions, answers = (_read_tokens(folder / f"all__{part}.npy", task) for part in ("inputs", "labels"))
    if len(questions) != len(answers):
        raise InputError(f"{folder}: {len(questions)} inputs but {len(answers)} labels")
    name = folder.name
    return _checked(task, questions, answers, [name] * len(questions), name, lambda row: f"{folder} row {row}")


def _read_tokens(path: Path, task: Task) -> np.ndarray:
    try:
        with open(path, "rb") as file:  # not np.load, which also opens archives
            tokens = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # numpy's header parser raises nearly every kind on a damaged file
        why = " ".join(str(error).split())
        raise InputError(f"{path} is no whole .npy file of numbers ({why})") from None
    if tokens.dtype.kind not in "iu" or tokens.shape[1:] != (task.seq_len,):
        raise InputError(f"{path} holds {tokens.dtype}{list(tokens.shape)}, not whole numbers [N, {task.seq_len}]")
    if not len(tokens):
        raise InputError(f"{path} holds no puzzles")
    outside = np.argwhere((tokens < 0) | (tokens >= task.vocab_size))
    if outside.size:
        row, cell = outside[0]
        raise InputError(f"{path} row {row}: token {tokens[row, cell]} is outside 0..{task.vocab_size - 1}")
    return tokens.astype(np.int32)


# -- checking ------------------------------------------------------------------------------------------


def _checked(
    task: Task,
    questions: np.ndarray,
    answers: np.ndarray,
    sources: list[str],
    name: str,
    where: Callable[[int], str],
) -> PuzzleSet:
    """A PuzzleSet whose answers all obey the rules; rows of ``answers`` that are all padding are solved here."""
    for row in np.flatnonzero((answers == 0).all(axis=1)):
        try:
            task.check_question(questions[row])
        except InputError as error:
            raise InputError(f"{where(int(row))}: {error}") from None
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
            _write_npy(puzzles, path)
        else:
            text = _csv_text(puzzles, progress).encode()
            # mtime 0: equal puzzles give equal bytes
            write_atomically(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def check_writable(path: Path) -> None:
    """InputError when :func:`save_puzzles` could not write ``path``; cheap, so asked before long work."""
    if path.suffix and not path.name.endswith((".csv", ".csv.gz")):
        raise InputError(f"cannot write {path}: end it in .csv or .csv.gz, or name a folder for .npy files")
    if path.suffix and path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    is_set = (path / "dataset.json").is_file()
    if not path.suffix and path.exists() and not is_set and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists and is no puzzle set; choose another name")


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


def _write_npy(puzzles: PuzzleSet, folder: Path) -> None:
    task, answers, n = puzzles.task, _solved(puzzles), len(puzzles)
    arrays: dict[str, np.ndarray] = {
        "inputs": puzzles.questions.astype(np.uint8),
        "labels": answers.astype(np.uint8),
        "puzzle_identifiers": np.zeros(n, np.int32),
        "puzzle_indices": np.arange(n + 1, dtype=np.int32),
        "group_indices": np.arange(n + 1, dtype=np.int32),
    }
    described = {
        "seq_len": task.seq_len,
        "vocab_size": task.vocab_size,
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "num_puzzle_identifiers": 1,
        "total_groups": n,
        "mean_puzzle_examples": 1.0,
        "sets": ["all"],
    }
    with replacing_folder(folder) as scratch:
        for part, array in arrays.items():
            np.save(scratch / f"all__{part}.npy", array)
        (scratch / "dataset.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
