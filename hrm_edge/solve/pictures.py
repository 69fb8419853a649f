"""Answers as people see them: boards with a caption, for the terminal, for `print` and for notebooks."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from ..console import Console
from ..tasks.boards import UNICODE, Glyphs, board, legend
from .answer import Solved

_WIDTH_OF_A_PAGE = 110  # of notebooks, in characters
_STYLE = "font-family:monospace;line-height:1.2;white-space:pre;overflow-x:auto"


def drawn(solved: Solved, glyphs: Glyphs = UNICODE, count: bool = True) -> Text:
    """An answer's board, what its marks mean, and what the answer is worth; ``count``: whether there are others."""
    task, question, answer = solved.task, solved.question, solved.answer
    marks = board(task, question, answer, glyphs=glyphs), legend(task, question, answer, glyphs)
    return Text("\n").join((*marks, caption(solved, count)))


def caption(solved: Solved, count: bool = True) -> Text:
    """What an answer is worth, and what it took, in one line; ``count``: and whether there are other solutions."""
    if solved.right is None:
        verdict = (f"not judged: {solved.why}", "bold yellow")
    elif solved.task.has_rules:
        verdict = ("verified", "bold green") if solved.right else (f"NOT verified: {solved.why}", "bold red")
    else:
        wrong = f"NOT as labelled: {solved.wrong_cells} cells differ"
        verdict = ("as labelled", "bold green") if solved.right else (wrong, "bold red")
    plural = "s" if solved.steps > 1 else ""
    facts = [f"{solved.steps} segment{plural}", f"{solved.ms:.1f} ms"]
    if solved.variant:
        facts.append(f"answered as symmetric variant {solved.variant}, {solved.segments} segments in all")
    elif solved.segments > solved.steps:
        facts.append(f"{solved.segments} segments over all variants")
    if count and solved.several:
        facts.append("the puzzle has several solutions, any of them counts")
    return Text.assemble(verdict, *(f", {fact}" for fact in facts))


def plain(*parts: RenderableType) -> str:
    """What `print` shows, without colours."""
    console = Console(file=io.StringIO(), width=_width(parts), color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(Group(*parts))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).rstrip("\n")


def html(*parts: RenderableType) -> str:
    """What a notebook shows: one ``<pre>``, in which everything is text and nothing markup."""
    console = Console(file=io.StringIO(), width=_width(parts), record=True, force_terminal=True)
    console.print(Group(*parts))
    return console.export_html(inline_styles=True, code_format=f'<pre style="{_STYLE}">{{code}}</pre>')


def _width(parts: Iterable[RenderableType]) -> int:
    """A page's, or more where a line is longer: it is better broken, or scrolled, by who shows it."""
    lines = (part.plain if isinstance(part, Text) else part for part in parts if isinstance(part, Text | str))
    return max([_WIDTH_OF_A_PAGE, *(cell_len(line) for text in lines for line in text.splitlines())])
