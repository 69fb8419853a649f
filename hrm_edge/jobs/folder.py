"""The work of a job that has not ended, beside its output: what was read, and each shard's answers, all proven.

Beside NAME it is called `.NAME.work.hrm-edge`, and only the process that holds NAME's workspace touches it. `rows`
holds what was read, `errors.json` why some of it could not be, and `job.json`, which is written last, what the job
is: the bundle, the input and the options by their hashes. Every shard's name holds the hash of its content, and the
content the job's own hash: whatever is cut off, damaged, or of another job, is no shard.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic.dataclasses import dataclass

from .. import __version__
from ..errors import InputError
from ..files import files_in, sha256
from ..records import STRICT, FromOne, FromZero, Text, from_json, must_be
from ..tasks import Task
from ..workspace import behind, entries, is_system_file
from .answers import Answered, Asking, token_type

SHARD_ROWS = 256
_JOB, _ROWS, _ERRORS = "job.json", "rows", "errors.json"
_SHARD = re.compile(r"(\d{8})-([0-9a-f]{64})\.npz")
_OURS = re.compile(rf"({_JOB}|{_ROWS}|{re.escape(_ERRORS)}|{_SHARD.pattern})(\.part)?")
Sha256 = Annotated[str, must_be("64 hexadecimal digits", lambda digits: len(digits) == 64)]


@dataclass(frozen=True, config=STRICT)
class Job:
    """What is asked, of which input, by which bundle; what of it is another's makes answers another's too.

    ``input``: of the bytes of what is read; ``rows_sha256``, ``errors_sha256``: of what came of it.
    """

    hrm_edge: Text
    bundle: Sha256
    halt: Text
    max_think_steps: FromOne | None
    retries: FromZero
    seed: FromZero
    input: Sha256
    check_solvable: bool = False
    rows: FromZero = 0
    rows_sha256: Text = "none"
    errors_sha256: Text = "none"
    shard_rows: FromOne = SHARD_ROWS
    format_version: Annotated[int, must_be("1", lambda version: version == 1)] = 1

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def differs(self, other: Job) -> str | None:
        """What of another job is not as here; None: it is the same, but for what only reading tells."""
        named = {"bundle": "another bundle", "input": "another input", "hrm_edge": f"hrm-edge {other.hrm_edge}"}
        for name, what in named.items():
            if getattr(self, name) != getattr(other, name):
                return what
        for name in ("halt", "max_think_steps", "retries", "seed"):
            if getattr(self, name) != getattr(other, name):
                return f"--{name.replace('_', '-')} {getattr(other, name)}"
        if self.check_solvable != other.check_solvable:
            return f"{'no ' * self.check_solvable}--check-solvable"
        return None


def job_of(bundle_sha256: str, asking: Asking, files: Iterable[Path]) -> Job:
    """The job that some input is to be, before it is read. OSError where that cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        inner = sorted(files_in(path)) if path.is_dir() else [""]
        for name in inner:
            digest.update(f"{name}\0{sha256(path / name if name else path)}\n".encode())
    return Job(hrm_edge=__version__, bundle=bundle_sha256, input=digest.hexdigest(), **asdict(asking))


def row_type(task: Task, labelled: bool) -> np.dtype[Any]:
    """One row as it was read: its question, its label where answers are judged by these, its identifier if told."""
    tokens = token_type(task)
    label = [("label", tokens, (task.seq_len,))] if labelled else []
    return np.dtype([("question", tokens, (task.seq_len,)), *label, ("identifier", "<i4")])


class Work:
    """The folder of one output's job, which the caller holds."""

    def __init__(self, output: Path) -> None:
        target = behind(output)
        self.path = target.with_name(f".{target.name}.work.hrm-edge")

    def standing(self) -> Job | None:
        """The job whose work stands there; None: nothing does, or nothing whole. InputError: it is not ours."""
        if not os.path.lexists(self.path):
            return None
        strange = self.path.is_symlink() or not self.path.is_dir()
        if strange or any(not _OURS.fullmatch(name) for name in entries(self.path)):
            raise InputError(f"{self.path}: is in the way and not ours; move it away")
        try:
            return from_json(Job, (self.path / _JOB).read_bytes(), self.path / _JOB)
        except (OSError, InputError, ValueError):
            return None

    def clear(self) -> None:
        """Remove it, what the job is first: without that, the rest is nobody's."""
        if self.standing() is None and not self.path.is_dir():
            return
        for name in sorted(os.listdir(self.path), key=lambda name: name != _JOB):
            if _OURS.fullmatch(name) or is_system_file(name):
                with suppress(OSError):
                    (self.path / name).unlink()
        with suppress(OSError):
            self.path.rmdir()

    # -- what was read -----------------------------------------------------------------------------------

    def write_rows(self, parts: Iterable[tuple[np.ndarray, dict[int, str]]], job: Job) -> Job:
        """Keep what is read: parts of rows with the errors of some, numbered from the first row of all. The job."""
        self.clear()
        self.path.mkdir()
        digest, count = hashlib.sha256(), 0
        errors: dict[int, str] = {}
        with open(self.path / _ROWS, "wb") as file:
            for rows, wrong in parts:
                data = rows.tobytes()
                file.write(data)
                digest.update(data)
                count += len(rows)
                errors |= wrong
        told = json.dumps(sorted(errors.items())).encode()
        (self.path / _ERRORS).write_bytes(told)
        why = hashlib.sha256(told).hexdigest()
        whole = replace(job, rows=count, rows_sha256=digest.hexdigest(), errors_sha256=why)
        self._put(_JOB, json.dumps(asdict(whole), indent=2).encode())
        return whole

    def read_rows(self, job: Job, kind: np.dtype[Any]) -> tuple[np.ndarray, dict[int, str]] | None:
        """The rows [N], which stay on the disk, and errors by row; None where they are not what the job says."""
        try:
            told = (self.path / _ERRORS).read_bytes()
            size = (self.path / _ROWS).stat().st_size
            if size != job.rows * kind.itemsize or sha256(self.path / _ROWS) != job.rows_sha256:
                return None
        except OSError:
            return None
        if hashlib.sha256(told).hexdigest() != job.errors_sha256:
            return None
        rows = np.memmap(self.path / _ROWS, kind, "r") if job.rows else np.zeros(0, kind)
        return rows, dict(json.loads(told))

    # -- shards ------------------------------------------------------------------------------------------

    def shards(self, job: Job) -> dict[int, str]:
        """The files of the shards that stand there, by number; what they hold is proven when it is read."""
        found = {int(match[1]): match[0] for match in map(_SHARD.fullmatch, entries(self.path)) if match}
        last = -(-job.rows // job.shard_rows)
        return {number: name for number, name in found.items() if number < last}

    def write_shard(self, job: Job, number: int, made: Answered) -> str:
        """Keep a shard's answers; the name of its file."""
        out = io.BytesIO()
        texts = made.errors.astype(str) if len(made) else np.zeros(0, "U1")
        np.savez(out, **{**made.arrays(), "errors": texts, "job": np.array(job.sha256)})  # type: ignore[arg-type]
        data = out.getvalue()
        name = f"{number:08d}-{hashlib.sha256(data).hexdigest()}.npz"
        self._put(name, data)
        return name

    def read_shard(self, job: Job, number: int, name: str, task: Task) -> Answered | None:
        """A shard's answers; None where the file is not what its name and the job say."""
        match = _SHARD.fullmatch(name)
        try:
            data = (self.path / name).read_bytes()
            if match is None or int(match[1]) != number or hashlib.sha256(data).hexdigest() != match[2]:
                return None
            with np.load(io.BytesIO(data), allow_pickle=False) as content:
                arrays = {key: content[key] for key in content.files}
            if str(arrays.pop("job")) != job.sha256:
                return None
            made = Answered(**{**arrays, "errors": arrays["errors"].astype(object)})
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None
        rows = min(job.shard_rows, job.rows - number * job.shard_rows)
        return made if made.tokens.shape == (rows, task.seq_len) else None

    def _put(self, name: str, data: bytes) -> None:
        """Not waited for until it is on the disk: what a loss of power leaves is not what its hash says."""
        part = self.path / f"{name}.part"
        part.write_bytes(data)
        os.replace(part, self.path / name)
