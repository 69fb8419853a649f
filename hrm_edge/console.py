"""rich's console as everything here prints through it: data is data, never markup, and commands no terminal."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, NoReturn

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .text import abandon, printable


class Console(rich.console.Console):
    """On standard output, or with ``stderr=True`` on the other; neither markup, emoji codes nor highlighting."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as a line, written out before it is measured, so that columns stay straight."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything passes here on its way: also what was styled before, and what wrapping begins a line with."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment("\n".join(map(printable, text.split("\n"))), style)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            abandon(self.file)  # type: ignore[arg-type]
            raise

    def on_broken_pipe(self) -> NoReturn:
        """As for all other output, and not rich's own exit with 1."""
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
