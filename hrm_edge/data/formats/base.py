"""What a form of puzzle file is: how it is told, read and written."""

from __future__ import annotations

import bisect
import copy
import functools
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ...errors import InputError
from ...files import readable_name
from ...identifiers import Numbering
from ...progress import Progress, announce
from ...tasks import Task
from ...tasks.reading import Found, Reader
from ..public_layout import Grouping
from .streams import Lines, Stream, unpacked
from .tables import Tabulate

if TYPE_CHECKING:
    from ..puzzles import PuzzleSet

    Write = Callable[[PuzzleSet, Path, Progress | None], None]

STDIN = "-"
# Names that files in circulation have for what is asked and what is answered.
QUESTION = ("question", "puzzle", "quizzes", "questions", "puzzles", "quiz", "sudoku", "sudokus", "unsolved",
            "problem", "clues", "givens", "grid", "board", "maze")  # fmt: skip
ANSWER = ("answer", "solution", "solutions", "answers", "solved")
_MANY = 4096  # puzzles handed on together, which bounds the memory of large files


@dataclass(frozen=True)
class File:
    """A file, folder or stream that somebody named, opened when it is first asked for.

    ``content`` opens what is no file of its own: an argument's text, a part of an archive.
    """

    path: Path
    content: Callable[[], BinaryIO] | None = field(default=None, compare=False)
    called: str | None = None  # in messages; by default the path
    records: bool = False  # a puzzle of a table or tree that cannot be read is one of `Rows.errors`, and no error

    @property
    def name(self) -> str:
        """What its puzzles are called: the file's name without its endings."""
        if str(self.path) == STDIN:
            return "stdin"
        name = readable_name(self.path.name)
        return name if self.content is None and self.path.is_dir() else name.split(".")[0]

    @property
    def shown(self) -> str:
        """What it is called in messages."""
        if self.called is not None:
            return self.called
        return "standard input" if str(self.path) == STDIN else str(self.path)

    @functools.cached_property
    def source(self) -> Stream:
        """Its bytes as they are."""
        if self.content is not None:
            return Stream(self.content())
        if str(self.path) == STDIN:
            if sys.stdin.isatty():
                announce("reading puzzles from the terminal, end with Ctrl-D")
            return Stream(sys.stdin.buffer)
        try:
            return Stream(self.path.open("rb"))
        except FileNotFoundError:
            raise InputError(f"there is no file {self.path}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {self.path}: {error}") from None

    @functools.cached_property
    def stream(self) -> Stream:
        """Its bytes, unpacked where they are compressed."""
        return unpacked(self.source, self.shown or "the text")

    @functools.cached_property
    def lines(self) -> Lines:
        """UTF-8 or what its byte-order mark says. InputError when it cannot be read as such."""
        return Lines(self.stream, self.shown or "the text")

    @property
    def text(self) -> str:
        """All of it that was not read as lines."""
        return "\n".join(self.lines.rest())

    @property
    def start(self) -> list[str]:
        """Its first lines that are at hand, with one among them that is not empty. They will be read again."""
        return self.lines.start()

    def wrong(self, error: InputError | str) -> InputError:
        """``error`` with the name of the file; of what has one line, no line is named."""
        if self.stream is not self.source:
            self.stream.require_whole()  # a damaged file's text is of no account
        text = str(error)
        if self.content is not None and self.lines.number == 1:
            text = text.removeprefix("line 1: ")
        return InputError(f"{self.shown}{' ' if text.startswith('line ') else ': '}{text}" if self.shown else text)

    def progress(self) -> tuple[int, int]:
        """Bytes that were read, and that there are; of what is no file or does not say so, (0, 0)."""
        opened = "source" in self.__dict__
        if self.content is None and str(self.path) != STDIN:
            return self.source.count if opened else 0, self.path.stat().st_size if self.path.is_file() else 0
        size = self.source.size
        return (self.source.count, size) if size else (0, 0)


@dataclass(frozen=True, eq=False)
class Rows:
    """Some of what stands in a file, its puzzles' rules not yet checked.

    ``questions``, ``answers`` int32[N, S]; an answer that is not given is all padding. ``where`` names a row for
    people. ``sources``: where each row came from; None: the file. ``errors``: why a row that is all padding could
    not be read, where the file `records` that. The rest is as in :class:`PuzzleSet`.
    """

    questions: np.ndarray
    answers: np.ndarray
    where: Callable[[int], str]
    sources: list[str] | None = None
    identifiers: np.ndarray | None = None
    num_identifiers: int = 1
    grouping: Grouping | None = None
    identifier_names: str | None = None
    errors: Mapping[int, str] = field(default_factory=dict)

    @property
    def numbering(self) -> Numbering | None:
        """Whose the identifiers are; None where there are none, or they came from no set."""
        if self.identifiers is None or self.num_identifiers == 1:
            return None
        return Numbering(self.num_identifiers, self.identifier_names)

    def some(self, first: int, last: int) -> Rows:
        """Rows ``first`` to ``last`` of them; where these are told is told of all."""
        identifiers = None if self.identifiers is None else self.identifiers[first:last]
        return replace(
            self, questions=self.questions[first:last], answers=self.answers[first:last], identifiers=identifiers
        )


def joined(parts: list[Rows], name: str) -> Rows:
    """What came in parts; only folders in the public layout, which come whole, have identifiers."""
    if len(parts) == 1:
        return parts[0]
    ends = list(itertools.accumulate(len(part.questions) for part in parts))

    def where(row: int) -> str:
        part = bisect.bisect_right(ends, row)
        return parts[part].where(row - (ends[part - 1] if part else 0))

    sources = [source for part in parts for source in part.sources or [name] * len(part.questions)]
    questions = np.concatenate([part.questions for part in parts])
    return Rows(questions, np.concatenate([part.answers for part in parts]), where, sources)


@dataclass(frozen=True)
class Format:
    """One form of puzzle file.

    ``fits``: whether a file has it. ``read``: what is in it, as it comes; InputError names the place of anything
    wrong. ``endings``: of the names that are written in this form (a folder's has none). ``write`` puts a set at a
    path, whole or not at all; None: the form is only read. ``tabulate`` writes a table of any length. ``need``:
    InputError about what is named where a package that reads and writes it is missing.
    """

    fits: Callable[[File], bool]
    read: Callable[[File, Task], Iterable[Rows]]
    endings: tuple[str, ...] = ()
    write: Write | None = None
    tabulate: Tabulate | None = None
    need: Callable[[str], None] = lambda what: None


class Batches:
    """Puzzles on their way from a task's reader to :class:`Rows`, handed on when no more are at hand."""

    def __init__(self, file: File, task: Task, place: str = "line") -> None:
        self.reader: Reader = task.reader()
        self._task = task
        self._file, self._place = file, place
        self._count, self._added = 0, 0
        self._sources: list[str] = []
        self._lines: list[int] = []  # of puzzles that were put, and why some cannot be read
        self._errors: dict[int, str] = {}

    def put(self, line: int, question: Any, answer: Any = None, source: str = "") -> None:
        """A puzzle of a table or tree."""
        try:
            self.reader.put(line, question, answer)
        except InputError as error:
            if not self._file.records:
                raise
            self._errors[len(self._lines)] = _unplaced(error)
        self._lines.append(line)
        self._sources.append(source or self._file.name)
        self._added += 1

    def add(self, line: int, text: str) -> None:
        """A line of text."""
        self.reader.add(line, text)
        self._added += 1

    def due(self) -> Iterator[Rows]:
        """What is to be handed on now, if anything."""
        if self._added >= _MANY or not self._file.lines.ready:
            yield from self.take()

    def take(self) -> Iterator[Rows]:
        """What was not handed on yet."""
        found = self._readable() if self._file.records and self._lines else self.reader.take()
        self._added, self._lines = 0, []
        if found is not None:
            sources, self._sources = self._sources or None, []
            errors, self._errors = self._errors, {}
            where = _Places(self._file.shown, self._place, self._count, found)
            self._count += len(found.lines)
            yield Rows(found.questions, found.answers, where, sources, errors=errors)

    def _readable(self) -> Found:
        """All that was put; what cannot be read is padding, and told in the errors."""
        found = None
        while True:
            # A reader learns from what it reads which symbols a file has; of what is no puzzle it shall not.
            trial = copy.deepcopy(self.reader, {id(self._task): self._task})
            try:
                found = trial.take()
            except InputError as error:
                self._errors[self._dropped(error)] = _unplaced(error)
                continue
            self.reader = trial
            break
        shape = (len(self._lines), self._task.seq_len)
        whole = Found(self._lines, np.zeros(shape, np.int32), np.zeros(shape, np.int32))
        if found is not None:
            rows = [row for row in range(len(self._lines)) if row not in self._errors]
            whole.questions[rows], whole.answers[rows] = found.questions, found.answers
        return whole

    def _dropped(self, error: InputError) -> int:
        """The row that an error names, which its reader forgets; the error itself where it names no single one."""
        named = re.match(r"line (\d+): ", str(error))
        rows = [row for row, line in enumerate(self._lines) if named and line == int(named[1])]
        if len(rows) != 1 or not self.reader.forget(self._lines[rows[0]]):
            raise error
        return rows[0]


def _unplaced(error: InputError) -> str:
    return re.sub(r"^line \d+: ", "", str(error))


@dataclass(frozen=True)
class _Places:
    """Where each of some puzzles stands: by its line, or its number."""

    shown: str
    kind: str
    before: int
    found: Found

    def __call__(self, row: int) -> str:
        number = self.found.lines[row] if self.kind == "line" else self.before + row + 1
        return f"{self.shown} {self.kind} {number}".strip()


def column_of(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Which of ``names`` are among ``known``, however they are spelled; the most usual first."""
    plain = [re.sub(r"[\s_-]", "", name.lower()) for name in names]
    return [plain.index(name) for name in known if name in plain]
