"""XML as OpenSudoku writes it: a board in an attribute or an element, under the usual names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.parsers import expat

from ...errors import InputError
from ...tasks import Task
from .base import ANSWER, QUESTION, Batches, File, Format, Rows, column_of

_PAGES = ("<!doctype html", "<html", "<head", "<body", "<script")


# A board may begin with "<" too, where that is a symbol.
_BEGINS = re.compile(r"\s*<[?!A-Za-z_]")


def _fits(file: File) -> bool:
    return _BEGINS.match(next((line for line in file.start if line.strip()), "")) is not None


def _read(file: File, task: Task) -> Iterator[Rows]:
    start = "\n".join(file.start).lstrip().lower()
    if start.startswith(_PAGES):
        raise file.wrong("a web page, as a server sends in place of a file; fetch the file itself")
    batches = Batches(file, task)
    parser = _Parser(batches)
    lines = file.lines
    try:
        for line in lines:
            parser.feed(line + "\n")
            yield from batches.due()
        parser.feed("", last=True)
        yield from batches.take()
    except expat.ExpatError as error:
        raise file.wrong(f"line {error.lineno}: not XML ({expat.ErrorString(error.code)})") from None
    except InputError as error:
        raise file.wrong(error) from None


class _Parser:
    """Puts what elements hold; refuses definitions, which may grow without an end or name other files."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._text: list[str] | None = None
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._defined
        self._parser.EntityDeclHandler = self._defined
        self._parser.StartElementHandler = self._started
        self._parser.CharacterDataHandler = self._said
        self._parser.EndElementHandler = self._ended

    def feed(self, text: str, last: bool = False) -> None:
        self._parser.Parse(text, last)

    def _defined(self, *_: object) -> None:
        raise InputError(
            f"line {self._parser.CurrentLineNumber}: definitions (DOCTYPE, ENTITY) are not read; remove them"
        )

    def _started(self, name: str, attributes: dict[str, str]) -> None:
        names = list(attributes)
        asked = column_of(names, (*QUESTION, "data")) if name.lower() != "folder" else []
        if asked:
            told = column_of(names, ANSWER)
            line = self._parser.CurrentLineNumber
            self._batches.put(line, attributes[names[asked[0]]], attributes[names[told[0]]] if told else None)
        self._text = []

    def _said(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _ended(self, name: str) -> None:
        text, self._text = "".join(self._text or ()), None
        if text.strip() and column_of([name], QUESTION):
            self._batches.put(self._parser.CurrentLineNumber, text.strip())


XML = Format(fits=_fits, read=_read)
