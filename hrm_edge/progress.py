"""Lines and progress of long work on stderr: a bar on a terminal, a line every ten seconds otherwise."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .text import printable, write_lines

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

# Told a line for the person who waits.
Say = Callable[[str], None]
# Told (what is being done, how much is done, how much in all; 0 where nobody knows). What stands in parentheses may
# change from one report to the next.
Progress = Callable[[str, int, int], None]

_SECONDS_BETWEEN_LINES = 10


def say(line: str) -> None:
    """One line to the person who waits. A stream that takes no more is no reason to stop the work."""
    with contextlib.suppress(OSError):
        write_lines(sys.stderr, line)


def announce(line: str) -> None:
    """One line that nobody asked for, from inside another program: it says whose it is."""
    say(f"hrm-edge: {line}")


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A `Progress` callback for any threads. Several kinds of work may follow each other."""
    if not sys.stderr.isatty():
        yield lines()
        return
    from rich.progress import MofNCompleteColumn

    with bar(MofNCompleteColumn(), transient=True) as shown:
        tasks: dict[str, Any] = {}
        lock = threading.Lock()

        def report(what: str, done: int, total: int) -> None:
            kind = _kind(what)
            with lock:
                if kind not in tasks:
                    tasks[kind] = shown.add_task(printable(what), total=total or None)
            shown.update(tasks[kind], description=printable(what), completed=done, total=total or None)

        yield report


def _kind(what: str) -> str:
    return what.partition(" (")[0]


def bar(count: ProgressColumn, transient: bool = False) -> Bar:
    """rich's bars, each with its name, `count` and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from .console import Console

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
    # Results that go to a file while the bar is shown are none of its terminal's business.
    redirect = sys.stdout.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=transient, redirect_stdout=redirect)


def lines(say: Say = say, percent: bool = False) -> Progress:
    """A `Progress` callback for any threads that says a line every ten seconds.

    `percent`: of work whose end cannot be estimated, it says how many percent are done, the last one included.
    """
    heard: dict[
        str, tuple[float, int, int]
    ] = {}  # kind of work → when it was first heard of, how far then, and now
    printed = time.monotonic()
    lock = threading.Lock()

    def report(what: str, done: int, total: int) -> None:
        nonlocal printed
        with lock:
            now, kind = time.monotonic(), _kind(what)
            # Nobody knows when the first part began, and it holds what is done once, such as compiling: the pace is
            # that of the parts behind it. The same when a kind of work begins again, on other puzzles.
            first, at_first, before = heard.get(kind, (now, done, done))
            if done < before:
                first, at_first = now, done
            heard[kind] = first, at_first, done
            unsaid = not percent and not 0 < done < (total or done + 1)
            if unsaid or now - printed < _SECONDS_BETWEEN_LINES:
                return
            printed = now
        if percent:
            say(f"{what}: {100 * done // total} %")
            return
        # The first parts of several threads come almost together, which is no pace yet.
        pace = (done - at_first) / (now - first) if now - first > _SECONDS_BETWEEN_LINES / 2 else 0.0
        if not total:
            say(f"{what}: {done} so far" + (f", {pace:.0f} a second" if pace else ""))
        else:
            say(f"{what}: {done} of {total}" + (f", about {(total - done) / pace:.0f} s left" if pace else ""))

    return report
