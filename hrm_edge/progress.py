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
    started: dict[str, tuple[float, int]] = {}  # kind of work → when it began, and how far it is
    previous = printed = time.monotonic()
    lock = threading.Lock()

    def report(what: str, done: int, total: int) -> None:
        nonlocal previous, printed
        with lock:
            now = time.monotonic()
            kind = _kind(what)
            start, before = started.get(kind, (previous, 0))
            # A kind of work is first heard of when its first part is done: it began at the report before. The
            # same when it begins again, on other puzzles.
            if done <= before:
                start = previous
            started[kind] = (start, done)
            previous = now
            unsaid = not percent and not 0 < done < (total or done + 1)
            if unsaid or now - printed < _SECONDS_BETWEEN_LINES:
                return
            printed = now
        if percent:
            say(f"{what}: {100 * done // total} %")
        elif not total:
            say(f"{what}: {done} so far, {done / max(now - start, 1e-9):.0f} a second")
        else:
            say(f"{what}: {done} of {total}, about {(now - start) / done * (total - done):.0f} s left")

    return report
