"""What rich draws: data as data, in lines that command nothing, however it is wrapped and styled."""

import io
import sys

import pytest
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from hrm_edge import progress
from hrm_edge.console import Console

HOSTILE = "[/hard] [hard]x\x1b[2J\r\n\u202e:smile: ::error::y"
SHOWN = r"[/hard] [hard]x\x1b[2J\r\n\u202e:smile: \x3a:error::y"


def drawn(*objects, width=120, **options) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **options).print(*objects)
    return file.getvalue()


def table(*cells: str) -> Table:
    made = Table(*cells, title=cells[0], caption=cells[0], pad_edge=False, box=None)
    made.add_row(*cells)
    return made


@pytest.mark.parametrize(
    "what",
    [
        HOSTILE,
        Text(HOSTILE.replace("\n", "")),
        Text.assemble((HOSTILE, "bold"), "\n"),
        table(HOSTILE, "b"),
        Columns([HOSTILE, "b"]),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_shown_as_they_are_and_nothing_else(what, terminal):
    out = drawn(what, force_terminal=terminal, color_system="standard" if terminal else None)
    plain = out if not terminal else Text.from_ansi(out).plain
    assert "[/hard] [hard]x" in plain
    assert ":smile:" in plain
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert "\r" not in out
    assert not any(line.lstrip().startswith("::") for line in plain.split("\n"))


def test_a_string_is_one_line():
    assert drawn(HOSTILE) == SHOWN + "\n"


@pytest.mark.parametrize("width", range(4, 40))
def test_wrapping_makes_no_command(width):
    for what in ("a" * 20 + "::error::x", "aaa bbb ccc ::error::x", table("aaaaaaaaaa::error::x", "c")):
        for line in drawn(what, width=width).split("\n"):
            assert not line.lstrip().startswith("::")


def test_columns_stay_straight():
    lines = drawn(table("\x1b\x1b\x1b", "second")).splitlines()
    assert len({line.index(text) for line in lines for text in ("second",) if text in line}) == 1


def test_a_closed_pipe_is_no_exit_of_richs():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        Console(file=Closed()).print("x")


def test_a_bars_name_is_no_markup(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr("sys.stdout", Terminal())
    with progress.progress() as show:
        show("[/hard] \x1b]0;x\x07", 1, 2)
        progress.say("[hard] ::error::x")
    text = sys.stderr.getvalue()
    assert r"[/hard] \x1b]0;x\x07" in text
    assert "[hard]" in text
    assert "\x1b]0" not in text
    assert sys.stdout.getvalue() == ""


def test_results_for_a_file_are_not_drawn_into_the_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    results = io.StringIO()
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr("sys.stdout", results)
    with progress.progress() as show:
        show("puzzles", 1, 2)
        print("an answer")
    assert results.getvalue() == "an answer\n"
