"""A board in the terminal that changes as the model thinks; lines where the output is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from ..console import Console
from ..tasks.boards import UNICODE, Glyphs, board, glyphs_for, legend, wrong_cells
from ..text import echo
from .watch import Moment

if TYPE_CHECKING:
    from typing import Self

# A small model thinks a hundred times a second, which nobody can follow: each board stays at least this long.
_SECONDS_A_BOARD = 0.4
_BAR = 24  # characters, of which the second half means stop


class LiveBoard:
    """Told every :class:`Moment`, shows it; a context, after which the terminal is as it was.

    ``seconds``: how long each board stays at least.
    """

    def __init__(self, console: Console | None = None, seconds: float = _SECONDS_A_BOARD) -> None:
        self._console = console or Console()
        self._glyphs = glyphs_for(self._console)
        self._seconds = seconds
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.clear()

    def __call__(self, moment: Moment) -> None:
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            echo(f"puzzle {moment.puzzle}, {described(moment)}, {leaning(moment)}")
            return
        if self._live is None:
            # What it showed gives way to the answer that is printed when the thinking is over.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(picture(moment, self._glyphs), refresh=True)
        time.sleep(self._seconds)

    def clear(self) -> None:
        """Take the board away, before anything else is printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def picture(moment: Moment, glyphs: Glyphs = UNICODE) -> Text:
    """The board after a segment, its marks, and how near the model is to stopping."""
    full = glyphs is UNICODE
    filled = round(_BAR * moment.confidence)
    colour = "green" if moment.margin > 0 else "magenta"
    bar = Text.assemble(
        ("█" if full else "#") * filled, ("░" if full else "-") * (_BAR - filled), style=colour, end=""
    )
    scale = Text(" " * (_BAR // 2) + ("▲" if full else "^") + " above: stop", "dim")
    verdict = Text()
    if moment.verified is not None:
        verdict = Text("verified", "bold green") if moment.verified else Text("not verified yet", "yellow")
    drawn = board(moment.task, moment.question, moment.guess, moment.previous, glyphs)
    marks = legend(moment.task, moment.question, moment.guess, glyphs, moment.previous)
    sure = Text.assemble(bar, f" {leaning(moment)}")
    lines = (Text(described(moment), "italic"), drawn, *([marks] if marks else ()), sure, scale, verdict)
    return Text("\n").join(lines)


def described(moment: Moment) -> str:
    """Which segment it is, and what it did."""
    wrong = int(wrong_cells(moment.task, moment.question, moment.guess).sum())
    variant = f", symmetric variant {moment.variant}" if moment.variant else ""
    broken = f", {wrong} break a rule" if wrong else ""
    return f"segment {moment.segment} of at most {moment.limit}{variant}: {moment.changed} changed{broken}"


def leaning(moment: Moment) -> str:
    """What the halting head makes of it, and what follows."""
    then = "stops" if moment.stops else "no more segments" if moment.last else "thinks on"
    return f"wants to stop: {100 * moment.confidence:.0f} %, {then}"
