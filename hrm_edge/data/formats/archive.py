"""Zip archives of puzzle files, each read in its own form; and `.npz`, whose arrays stand under the usual names."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ...tasks import Task
from ...workspace import is_system_file
from .base import ANSWER, QUESTION, File, Format, Rows, column_of
from .npy import array_rows
from .streams import UNPACKED

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


def _read(file: File, task: Task) -> Iterator[Rows]:
    from . import format_of

    try:
        archive = zipfile.ZipFile(io.BytesIO(file.stream.read()))
        parts = [part for part in archive.infolist() if not part.is_dir() and not _is_system(part.filename)]
    except _DAMAGED as error:
        raise file.wrong(f"a damaged zip file ({error}); fetch or write it again") from None
    names = [part.filename for part in parts]
    if "[Content_Types].xml" in names:
        raise file.wrong("a workbook; save the table in it as CSV")
    total = sum(part.file_size for part in parts)
    if total > UNPACKED or (total > 2**26 and total > 200 * sum(part.compress_size for part in parts)):
        raise file.wrong(f"unpacks to {total // 2**20} MiB, which no puzzles do from so few bytes")
    if names and all(name.endswith(".npy") for name in names):
        yield from _arrays(file, archive, names, task)
        return
    for part in parts:
        inner = File(
            Path(f"{file.path}/{part.filename}"), _opener(archive, part, file), f"{file.shown}/{part.filename}"
        )
        if inner.stream.peek(4).startswith(b"PK\x03\x04"):
            raise inner.wrong("a zip file within a zip file; unpack it first")
        yield from format_of(inner).read(inner, task)


def _is_system(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(is_system_file(part) for part in parts)


def _opener(archive: zipfile.ZipFile, part: zipfile.ZipInfo, file: File) -> Any:
    def opened() -> BinaryIO:
        try:
            return _Part(archive.open(part))  # type: ignore[return-value]
        except _DAMAGED as error:
            raise file.wrong(f"{part.filename} cannot be unpacked ({error})") from None

    return opened


class _Part:
    """A part of an archive, whose damage is told as that of any file."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read1(self, count: int = -1) -> bytes:
        try:
            return self._raw.read1(count)
        except _DAMAGED as error:
            raise OSError(f"damaged: {error}") from None


def _arrays(file: File, archive: zipfile.ZipFile, names: list[str], task: Task) -> Iterator[Rows]:
    plain = [name.removesuffix(".npy") for name in names]
    asked, told = column_of(plain, QUESTION), column_of(plain, ANSWER)
    if not asked and len(names) == 1:
        asked = [0]
    if not asked:
        raise file.wrong(f"no array 'puzzles' among {', '.join(map(repr, plain[:8]))}; name it so")
    try:
        arrays = [
            np.lib.format.read_array(io.BytesIO(archive.read(names[column])), allow_pickle=False)
            for column in (asked[0], *told[:1])
        ]
    except Exception as error:  # numpy's header parser raises nearly every kind on a damaged file
        raise file.wrong(f"no whole .npz file of numbers ({' '.join(str(error).split())})") from None
    yield from array_rows(file, arrays[0], task, arrays[1] if told else None)


def _fits(file: File) -> bool:
    return file.stream.peek(4).startswith((b"PK\x03\x04", b"PK\x05\x06"))


ZIP = Format(fits=_fits, read=_read)
