"""Progress of long work on stderr: a bar on a terminal, a line every ten seconds otherwise."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Told a line for the person who waits.
Say = Callable[[str], None]
# Told (what is being done, how much is done, how much in all).
Progress = Callable[[str, int, int], None]

_SECONDS_BETWEEN_LINES = 10


def say(line: str) -> None:
    """One line to the person who waits."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A `Progress` callback: (what is being done, done, in all). Several kinds of work may follow each other."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield lines()


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield report


def lines(say: Say = say, percent: bool = False) -> Progress:
    """Says now and then how far work is, and when it will be done; ``percent``: how far alone, up to the end."""
    started: dict[str, tuple[float, int]] = {}  # kind of work → when it began, and how far it is
    previous = printed = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal previous, printed
        now = time.monotonic()
        start, before = started.get(what, (previous, 0))
        # A kind of work is first heard of when its first part is done: it began at the report before. The same
        # when it begins again, on other puzzles.
        if done <= before:
            start = previous
        started[what] = (start, done)
        previous = now
        if (percent or done < total) and now - printed >= _SECONDS_BETWEEN_LINES:
            left = f"{done} of {total}, about {(now - start) / done * (total - done):.0f} s left"
            say(f"{what}: {f'{100 * done // total} %' if percent else left}")
            printed = now

    return report
