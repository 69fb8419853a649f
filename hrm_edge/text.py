"""Text from and to the outside: what strangers wrote is shown as it is, and commands neither terminal nor log.

Names, reasons and labels come out of files that anybody may have written. All that is printed goes through here
(what rich draws through :class:`hrm_edge.console.Console`), and all text files are decoded here.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# What isprintable() lets through and no eye sees: joiners, fillers and variation selectors.
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
# What a log's reader takes for a command: GitHub's "::error ::" (at the start of a line, which wrapping may make of
# any word), and "##[error]", "##vso[…]", "##teamcity[…]" anywhere.
_COMMANDS = re.compile(r"(?<!\S):(?=:)|#(?=#\w*\[)")
_HIDDEN = re.compile(rf"[^ -~]|{_COMMANDS.pattern}")
# Marks anywhere, what makes a list or a heading of a line, and addresses, which would become links.
_MARKDOWN = re.compile(r"[\\`*_|\[\]#~$]|^[-+=](?=\s|$|[-+=])|^\d+(?=[.)](?:\s|$))|:(?=//)|(?<=www)\.")
_FAILING = ("strict", "surrogateescape")  # what a stream does about a character that it cannot hold
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: str) -> str:
    """One line that shows everything in ``text``: what would break, hide or command is written out, as ``\\n``."""
    return _HIDDEN.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    character = found[0]
    if character in ":#":
        return f"\\x{ord(character):02x}"
    if character.isprintable() and not re.match(f"[{_UNSEEN}]", character):
        return character
    return character.encode("unicode_escape").decode()


def markdown(text: str) -> str:
    """``text`` as one line of any Markdown, a table's cell included, in which nothing is markup."""
    shown = _MARKDOWN.sub(lambda found: _escaped(found[0]), printable(text))
    return re.sub("[&<>]", lambda found: _ENTITIES[found[0]], shown)


def _escaped(mark: str) -> str:
    """What stands for itself: digits would be escaped by the dot behind them, which a list's number has."""
    return f"{mark}\\" if mark.isdigit() else f"\\{mark}"


def code(text: str) -> str:
    """``text`` as a code span of Markdown."""
    shown = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " * (len(fence) > 1)  # between fence and a tick of the text's own
    return f"{fence}{pad}{shown}{pad}{fence}"


def decoded(content: bytes) -> str:
    """The text of a file: UTF-8, or what its byte-order mark says. UnicodeDecodeError where it is no text."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


# -- streams -------------------------------------------------------------------------------------------


def echo(*lines: str) -> None:
    """Lines of results, on standard output."""
    write_lines(sys.stdout, *lines)


def echo_json(content: Any, indent: int | None = None) -> None:
    """A JSON value on standard output, in ASCII whatever the stream can hold."""
    # A "#" stands in texts alone, where it may be written so.
    line = json.dumps(content, indent=indent).replace("##", "#\\u0023")
    _write(sys.stdout, line + "\n")


def write_lines(stream: TextIO, *lines: str) -> None:
    """One line of ``stream`` for each of ``lines``, whatever is in it."""
    _write(stream, "".join(f"{printable(line)}\n" for line in lines))


def _write(stream: TextIO, content: str) -> None:
    """At once, so that what cannot be written is known here and not when Python ends."""
    try:
        stream.write(content)
        stream.flush()
    except OSError:
        abandon(stream)
        raise


def prepare_streams() -> None:
    """Standard streams that are there and take any character; for the start of a program."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by whoever started us: a file opened next would get its number, and what libraries print.
            nowhere = open(os.devnull, mode)  # noqa: SIM115
            os.set_inheritable(nowhere.fileno(), True)  # for our own processes too
            setattr(sys, name, nowhere)
        elif mode == "w" and isinstance(stream, io.TextIOWrapper) and stream.errors in _FAILING:
            stream.reconfigure(errors="replace")


def abandon(stream: TextIO) -> None:
    """Send to nowhere what was not written yet, or Python would fail on it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def best_effort() -> Iterator[None]:
    """What is printed inside tells of work that is done: a stream that takes no more does not undo it."""
    try:
        yield
    except BrokenPipeError:
        pass  # the reader had enough
    except OSError as error:
        with contextlib.suppress(OSError):
            write_lines(sys.stderr, f"hrm-edge: done, but the result could not be printed ({error.strerror})")
