"""A job from beginning to end: read and check, answer in shards, publish in the order of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..data.formats import STDIN, Block, File, Rows, format_of, table_writer_of
from ..errors import InputError
from ..files import replacing_file, require_apart
from ..identifiers import require_same
from ..progress import Progress, Say
from ..runtimes.engine import checked_halt
from ..runtimes.loader import task_of, trained_numbering
from ..signals import undisturbed
from ..solve.answer import Questions
from ..tasks.base import PAD
from ..workspace import written
from .answers import NOT_TOLD, Answered, Asking, block, columns
from .crew import Piece, work
from .folder import Job, Work, job_of, row_type
from .workers import Workers

ON_ERROR = ("fail", "record")  # what becomes of a row that cannot be read or answered
_BLOCK = 2**16  # rows written together
_POISON = "it ended every worker that it was given to"


@dataclass(frozen=True)
class Done:
    """What was written: how many rows, and what came of them. ``verified`` None: the task has no rules."""

    output: Path
    rows: int
    verified: int | None
    errors: int
    kept: int  # rows whose answers an earlier run had left

    def __str__(self) -> str:
        right = "" if self.verified is None else f", {self.verified} verified"
        before = f" ({self.kept} of them before)" if self.kept else ""
        return f"wrote {self.rows} rows{right}, {self.errors} errors{before} to {self.output}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``hrm-edge solve -o FILE --json``."""
        known = {name: getattr(self, name) for name in ("rows", "verified", "errors", "kept")}
        return {"output": str(self.output), **known}


@dataclass
class FileJob:
    """``files`` answered into ``output`` by a bundle; ``workers`` makes who answers, told where a piece's rows are.

    ``on_error``: whether a row that cannot be read or answered fails the job, or is recorded in a column.
    """

    bundle: Bundle
    files: Sequence[Path]
    output: Path
    workers: Workers
    asking: Asking
    on_error: str = "fail"
    replace: bool = False
    say: Say = lambda line: None
    progress: Progress = lambda what, done, total: None

    def run(self) -> Done:
        """InputError: what is asked for, a row, or what stands at the output. Then the work so far is kept."""
        self.task = task_of(self.bundle)
        self._check()
        before = len(written())
        self.work = Work(self.output)
        self.shards: dict[int, str] = {}  # files of what is answered, by number
        try:
            with replacing_file(self.output, result=True) as scratch:
                self._require_free()
                self._read()
                try:
                    kept = self._answer()
                    done = self._write(scratch, kept)
                except KeyboardInterrupt:
                    self._tell_what_is_kept()
                    raise
        except BlockingIOError as error:
            raise InputError(f"{self.output}: {error.strerror}; wait until it has ended") from None
        except OSError as error:
            where = error.filename or self.output
            raise InputError(f"{where}: {error.strerror or error}; the same command goes on from there") from None
        finally:
            if self.output in written()[before:]:  # also where a signal came just then
                with undisturbed():
                    self.work.clear()
        return done

    def _tell_what_is_kept(self) -> None:
        size, rows = self.job.shard_rows, self.job.rows
        kept = sum(min(size, rows - number * size) for number in self.shards)
        if kept:
            self.say(f"{kept} of {rows} puzzles are answered and kept; the same command goes on from there")
        else:
            self.say(f"no answer is kept before the first {min(size, rows or size)} are there")

    @property
    def _recorded(self) -> bool:
        return self.on_error == "record"

    # -- before anything ---------------------------------------------------------------------------------

    def _check(self) -> None:
        checked_halt(self.asking.halt, self.task)
        if self.asking.retries and not self.task.has_rules:
            raise self.task.no_rules("nothing tells which of several attempts is right")
        if self.on_error not in ON_ERROR:
            raise InputError(f"--on-error {self.on_error}: choose {' or '.join(ON_ERROR)}")
        self.tabulate = table_writer_of(self.output)
        require_apart([self.output], self.files)
        if self.output.is_dir():
            raise InputError(f"{self.output}: is a folder; name a file")
        if self.task.by_example:
            raise self.task.no_rules(
                f"what is asked for depends on a puzzle's identifier; use `{self.task.answered_with}` with --data"
            )
        if not self.files:
            raise InputError("no puzzles given: name files of them")
        for path in self.files:
            if str(path) == STDIN:
                raise InputError("-o goes on where it was cut off, and so reads files; save standard input to one")

    def _require_free(self) -> None:
        """Whose work stands there, and whether the output may be replaced."""
        try:
            self.job = job_of(self.bundle.sha256, self.asking, self.files)
        except FileNotFoundError as error:
            raise InputError(f"there is no file {error.filename}") from None
        standing = self.work.standing()
        differs = standing and self.job.differs(standing)
        if standing is None or (differs and self.replace):
            self.work.clear()
            standing = None
        elif differs:
            raise InputError(
                f"{self.output}: the work of a run that has not ended is kept there, with {differs}; end that one "
                "first, give another output, or discard its work with --force"
            )
        self.standing: Job | None = standing
        if self.output.exists() and standing is None and not self.replace:
            raise InputError(f"{self.output} exists; choose another name, or replace it with --force")

    # -- reading -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        """The rows, from where an earlier run left them or from the input."""
        kind = row_type(self.task, not self.task.has_rules)
        found = None
        if self.standing is not None:
            self.job = self.standing
            found = self.work.read_rows(self.job, kind)
        if found is None:
            try:
                self.job = self.work.write_rows(self._parts(kind), self.job)
            except BaseException:
                self.work.clear()  # of a job that is none yet, nothing is to be kept
                raise
            found = self.work.read_rows(self.job, kind)
        if found is None:
            raise InputError(f"{self.work.path}: was changed while it was written; try again")
        self.rows, self.errors = found
        if self.errors and not self._recorded:
            row, text = min(self.errors.items())
            raise self._refused(f"row {row + 1}", text)

    def _parts(self, kind: np.dtype[Any]) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
        files = [File(path, records=self._recorded) for path in self.files]
        questions = Questions((rows for file in files for rows in self._of(file)), files)
        before = 0
        for rows in questions:
            made = np.zeros(len(rows.questions), kind)
            made["question"] = rows.questions
            if not self.task.has_rules:
                made["label"] = rows.answers
            made["identifier"] = NOT_TOLD if rows.identifiers is None else rows.identifiers
            errors = {before + row: text for row, text in self._wrong(rows).items()}
            before += len(made)
            yield made, errors
            self.progress("puzzles read", before, questions.total)

    def _of(self, file: File) -> Iterator[Rows]:
        count, trained = 0, trained_numbering(self.bundle)
        for rows in format_of(file).read(file, self.task):
            require_same(rows.numbering, trained, str(file.path))
            count += len(rows.questions)
            yield rows
        if not count:
            raise file.wrong("holds no puzzles; write one per line")

    def _wrong(self, rows: Rows) -> dict[int, str]:
        """Why some of these rows are no puzzles."""
        wrong = dict(rows.errors)
        left = np.array([row for row in range(len(rows.questions)) if row not in wrong], np.int64)
        while (first := self.task.first_wrong(rows.questions[left])) is not None:
            row = int(left[first])
            left = left[first + 1 :]
            try:
                self.task.check_question(rows.questions[row])
            except InputError as error:
                if not self._recorded:
                    raise self._refused(rows.where(row), str(error)) from None
                wrong[row] = str(error)
        return wrong

    def _refused(self, where: str, why: str) -> InputError:
        return InputError(f"{where}: {why}; --on-error record writes it down and goes on")

    # -- answering ---------------------------------------------------------------------------------------

    def _answer(self) -> int:
        """Have every shard that is missing answered; how many rows were there already."""
        job, size = self.job, self.job.shard_rows
        spans = [(first, min(first + size, job.rows)) for first in range(0, job.rows, size)]
        self.shards = self.work.shards(job)
        self.shards = {
            number: name for number, name in self.shards.items() if self._shard(number, name) is not None
        }
        done = kept = sum(last - first for number, (first, last) in enumerate(spans) if number in self.shards)
        if kept:
            self.say(f"{kept} of {job.rows} puzzles were answered before")
        under_way: dict[int, tuple[Answered, list[int]]] = {}
        failed = len(self.errors)
        missing = [Piece(*span) for number, span in enumerate(spans) if number not in self.shards]
        if not missing:
            return kept
        workers = self.workers(self._asked)[: len(missing)]
        with closing(work(missing, workers, self.say)) as answers:
            for piece, made in answers:
                number = piece.first // size
                first, last = spans[number]
                shard, left = under_way.setdefault(
                    number, (Answered.blank(last - first, self.task), [last - first])
                )
                rows = np.arange(piece.first - first, piece.last - first)
                made = self._judged(piece, made)
                shard.put(rows, made)
                left[0] -= len(rows)
                if not left[0]:
                    self.shards[number] = self.work.write_shard(job, number, shard)
                    del under_way[number]
                done += len(rows)
                failed += sum(row not in self.errors for row in piece.first + np.flatnonzero(made.errors != ""))
                self.progress(f"puzzles ({failed} failed)" if failed else "puzzles", done, job.rows)
        return kept

    def _asked(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """Questions [n, S] and identifiers int32[n] of a piece's rows that can be asked."""
        rows = np.array([row for row in range(piece.first, piece.last) if row not in self.errors], np.int64)
        some = self.rows[rows]
        return some["question"], some["identifier"]

    def _judged(self, piece: Piece, asked: Answered | None) -> Answered:
        """All rows of a piece, those that could not be read among them; InputError where none may fail."""
        made = Answered.blank(piece.last - piece.first, self.task)
        readable = np.array([row not in self.errors for row in range(piece.first, piece.last)])
        if asked is None:
            made.errors[:] = _POISON
        else:
            made.put(np.flatnonzero(readable), asked)
        for row in np.flatnonzero(~readable):
            made.errors[row] = self.errors[piece.first + int(row)]
        self._require_none(piece.first, made)
        return made

    def _require_none(self, first: int, made: Answered) -> None:
        wrong = np.flatnonzero(made.errors != "")
        if wrong.size and not self._recorded:
            raise self._refused(f"row {first + int(wrong[0]) + 1}", str(made.errors[wrong[0]]))

    def _shard(self, number: int, name: str) -> Answered | None:
        return self.work.read_shard(self.job, number, name, self.task)

    # -- writing -----------------------------------------------------------------------------------------

    def _write(self, scratch: Path, kept: int) -> Done:
        counts = {"verified": 0, "errors": 0}
        with open(scratch, "wb") as out:
            self.tabulate(columns(self.task, self._recorded), self._blocks(counts), out)
        verified = counts["verified"] if self.task.has_rules else None
        return Done(self.output, self.job.rows, verified, counts["errors"], kept)

    def _blocks(self, counts: dict[str, int]) -> Iterator[Block]:
        size = self.job.shard_rows
        together = max(1, _BLOCK // size)
        numbers = range(-(-self.job.rows // size))
        for start in range(0, len(numbers), together):
            first, last = start * size, min((start + together) * size, self.job.rows)
            made = Answered.blank(last - first, self.task)
            for number in numbers[start : start + together]:
                shard = self._shard(number, self.shards[number])
                if shard is None:
                    raise InputError(
                        f"{self.work.path}: was changed meanwhile; the same command goes on from there"
                    )
                self._require_none(number * size, shard)
                made.put(np.arange(number * size - first, number * size - first + len(shard)), shard)
            counts["verified"] += int(made.verified.sum())
            counts["errors"] += int((made.errors != "").sum())
            some = self.rows[first:last]
            labels = None if self.task.has_rules else some["label"]
            unreadable = (some["question"] == PAD).all(axis=1)
            yield block(self.task, some["question"], labels, made, unreadable, self._recorded)
