"""Bytes and lines as they come, from files, pipes and archives, with a limit on what comes out of small ones."""

from __future__ import annotations

import bz2
import codecs
import functools
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import InputError

_CHUNK = 2**18  # bytes read together
UNPACKED = 2**31  # bytes of a file; the largest public set has 0.7 GB
_SUSPECT, _RATIO = 2**26, 200  # puzzles do not shrink more than this: larger files that do are no puzzles
_END = re.compile(r"\r\n|\r|\n")
_LONGEST = 2**24  # characters of a line
DOCUMENT = 2**26  # characters that are parsed as a whole

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED: tuple[tuple[bytes, str, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", "gzip", lambda raw: gzip.GzipFile(fileobj=raw)),
    (b"BZh", "bzip2", bz2.BZ2File),
    (b"\xfd7zXZ\0", "xz", lzma.LZMAFile),
    (b"\x5d\0\0", "lzma", lzma.LZMAFile),
)
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


class Stream:
    """Bytes of a file or pipe, handed on as they come; what was looked at is read again."""

    def __init__(self, raw: Any, of: Stream | None = None, shown: str = "", kind: str = "") -> None:
        self._raw, self._of, self._shown, self._kind = raw, of, shown, kind
        self._ahead = b""
        self.count = 0  # bytes that came

    @property
    def size(self) -> int:
        """How many there are; 0 where that is not known."""
        try:
            where = self._raw.tell()
            size = self._raw.seek(0, io.SEEK_END)
            self._raw.seek(where)
            return size
        except (OSError, ValueError, AttributeError):
            return 0

    @functools.cached_property
    def _whole(self) -> int:
        return 0 if self._of is not None else self.size

    @property
    def at_hand(self) -> bool:
        """Whether more can be read without waiting for anybody, which is only the end of a file."""
        return 0 < self._whole <= self.count

    def peek(self, count: int) -> bytes:
        """The next bytes, at least ``count`` unless there are fewer."""
        while len(self._ahead) < count and (more := self._next()):
            self._ahead += more
        return self._ahead

    def read1(self, count: int = -1) -> bytes:
        """What is at hand, at most ``count`` bytes; nothing at the end."""
        data = self._ahead or self._next()
        if 0 <= count < len(data):
            data, self._ahead = data[:count], data[count:]
        else:
            self._ahead = b""
        return data

    def read(self, count: int = -1) -> bytes:
        """``count`` bytes, or all."""
        parts, left = [], count
        while left and (part := self.read1(left)):
            parts.append(part)
            left -= len(part) if count >= 0 else 0
            if count < 0 and self.count > UNPACKED:
                raise InputError(f"{self._shown or 'this'} is larger than {UNPACKED // 2**20} MiB; split it")
        return b"".join(parts)

    def require_whole(self) -> None:
        """InputError where the rest, as far as it is looked at, cannot be unpacked."""
        until = self.count + _SUSPECT
        while self.count < until and self._next():
            pass

    def _next(self) -> bytes:
        try:
            data = self._raw.read1(_CHUNK)
        except _DAMAGED as error:
            raise InputError(
                f"{self._shown} is a damaged {self._kind} file ({error}); fetch or write it again"
            ) from None
        except (OSError, ValueError) as error:
            if self._of is not None:
                raise InputError(
                    f"{self._shown} is a damaged {self._kind} file ({error}); fetch or write it again"
                ) from None
            raise InputError(f"cannot read {self._shown or 'the file'}: {error}") from None
        self.count += len(data)
        if self._of is not None and (
            self.count > UNPACKED or (self.count > _SUSPECT and self.count > _RATIO * self._of.count)
        ):
            raise InputError(
                f"{self._shown} unpacks to more than {self.count // 2**20} MiB, which no puzzles do from so few "
                "bytes; unpack it and look at what it holds"
            )
        return data


def unpacked(source: Stream, shown: str) -> Stream:
    """What a compressed stream holds, be it compressed twice; any other stream as it is."""
    stream = source
    for _ in range(2):
        start = stream.peek(6)
        for magic, kind, opened in _PACKED:
            if start.startswith(magic):
                stream = Stream(opened(stream), stream, shown, kind)
                break
        else:
            return stream
    return stream


class Lines:
    """The lines of a text, whatever ends them. ``ready``: whether another is at hand without reading on."""

    def __init__(self, stream: Stream, shown: str) -> None:
        self._stream, self._shown = stream, shown
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._lines: list[str] = []
        self._at = 0
        self._part = ""
        self._ended = False
        self.number = 0  # of the line that was read last

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self._at == len(self._lines):
            if not self._fill():
                raise StopIteration
        line = self._lines[self._at]
        self._at += 1
        self.number += 1
        return line.rstrip("\r\n")

    def with_ends(self) -> Iterator[str]:
        """The lines with what ends them."""
        for _ in self:
            yield self._lines[self._at - 1]

    @property
    def ready(self) -> bool:
        return self._at < len(self._lines)

    def start(self) -> list[str]:
        """Lines at hand, at least one that is not empty; they stay to be read."""
        while not any(line.strip() for line in self._lines[self._at :]) and self._fill():
            pass
        return [line.rstrip("\r\n") for line in self._lines[self._at : self._at + 64]]

    def rest(self) -> list[str]:
        """All that were not read; InputError where they are too many to be parsed as a whole."""
        lines, size = [], 0
        for line in self:
            size += len(line) + 1
            if size > DOCUMENT:
                raise InputError(f"{self._shown} is longer than {DOCUMENT // 2**20} MiB; write one puzzle a line")
            lines.append(line)
        return lines

    def _fill(self) -> bool:
        """Read on until there is a whole line; False at the end."""
        if self._ended:
            return False
        if self._decoder is None:
            decoder = codecs.getincrementaldecoder(_encoding(self._stream.peek(4)))()
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=False)
        data = self._stream.read1()
        try:
            # A "\r" at the end of what is at hand waits for what follows it.
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = self._stream.count - len(data) + error.start
            raise InputError(
                f"{self._shown} is not text: byte {at} is not UTF-8, or what its byte-order mark says"
            ) from None
        text = self._part + text
        ends = [end.end() for end in _END.finditer(text)]
        whole = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        self._part = text[ends[-1] :] if ends else text
        if len(self._part) > _LONGEST:
            raise InputError(
                f"{self._shown} has a line of more than {_LONGEST // 2**20} MiB; no puzzle is that long"
            )
        self._ended = not data
        if not self._ended and self._stream.at_hand:
            self._lines, self._at = self._lines[self._at :] + whole, 0
            self._fill()
            return True
        if self._ended and self._part:
            whole.append(self._part)
            self._part = ""
        self._lines = self._lines[self._at :] + whole
        self._at = 0
        return bool(whole) or not self._ended


def _encoding(start: bytes) -> str:
    """By the byte-order mark; without one, a zero in every other byte is one too."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if len(start) >= 4 and start[1] == start[3] == 0 != start[0] and start[2]:
        return "utf-16-le"
    if len(start) >= 4 and start[0] == start[2] == 0 != start[1] and start[3]:
        return "utf-16-be"
    return "utf-8"
