"""Lines and progress on stderr: what is said, how often, and that no thread or terminal breaks it."""

import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hrm_edge import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved: `clock[0] += seconds`."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds_and_none_at_the_end(clock, capsys):
    with progress.progress() as show:
        for done in range(1, 11):
            clock[0] += 4
            show("solving", done, 10)
    assert capsys.readouterr().err.splitlines() == [
        "solving: 3 of 10, about 28 s left",
        "solving: 6 of 10, about 16 s left",
        "solving: 9 of 10, about 4 s left",
    ]


def test_the_time_left_is_told_from_the_pace_behind_the_first_part(clock, capsys):
    """Which took a compiler's time too, or began nobody knows when."""
    with progress.progress() as show:
        for _ in range(2):  # the second time on other puzzles
            for done, seconds in ((1, 100), (2, 15), (3, 15), (4, 15)):
                clock[0] += seconds
                show("solving", done, 4)
    told = ["solving: 1 of 4", "solving: 2 of 4, about 30 s left", "solving: 3 of 4, about 15 s left"]
    assert capsys.readouterr().err.splitlines() == told * 2


def test_parts_that_come_together_tell_no_pace(clock):
    """Two threads, each of which takes ten seconds for a part."""
    said = []
    show = progress.lines(said.append)
    for later, done in ((9.98, 1), (0.05, 2), (9.93, 3), (0.05, 4), (9.95, 5)):
        clock[0] += later
        show("solving", done, 40)
    assert said == ["solving: 2 of 40", "solving: 5 of 40, about 175 s left"]


def test_percentages_are_said_up_to_the_last_and_nothing_done_is_no_error(clock):
    said = []
    show, other = progress.lines(said.append, percent=True), progress.lines(said.append)
    clock[0] += 10
    for done in (0, 100):
        show("building", done, 100)
        clock[0] += 10
    other("solving", 0, 7)
    assert said == ["building: 0 %", "building: 100 %"]


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_threads_may_report_at_once_even_where_only_ascii_can_be_shown(monkeypatch, terminal):
    raw = io.BytesIO()
    kind = Terminal if terminal else io.TextIOWrapper
    monkeypatch.setattr(sys, "stderr", kind(raw, encoding="ascii", errors="backslashreplace"))
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    with progress.progress() as show, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: show(f"wörk {i % 4}", i // 4 + 1, 100), range(400)))
    sys.stderr.flush()
    text = raw.getvalue().decode("ascii")
    if not terminal:
        assert re.fullmatch(r"(w\\xf6rk [0-3]: \d+ of 100(, about \d+ s left)?\n)+", text)


def test_what_is_announced_says_whose_it_is(capsys):
    progress.announce("a line")
    assert capsys.readouterr() == ("", "hrm-edge: a line\n")
