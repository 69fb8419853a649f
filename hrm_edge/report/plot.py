"""What a plot of the report is: one object from which the page's figure and Markdown's table derive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .format import Report
from .svg import HEIGHT, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Legend = tuple[tuple[str, str], ...]  # (style of the page's key, what it stands for); told apart without colour too
Columns = tuple[tuple[str, Callable[[Any], object]], ...]  # (head, a row's cell)


@dataclass(frozen=True)
class Figure:
    """A plot as the page shows it: `svg` is markup, the rest is text."""

    title: str
    svg: str
    legend: Legend
    note: str


@dataclass(frozen=True)
class Table:
    """A plot's figures as text, under a heading of their own; `named`: the first column holds names."""

    heading: str
    columns: Columns | Callable[[Any], Columns]  # a function where the data say which
    rows: Callable[[Any], Sequence[Any]] = lambda data: data
    named: bool = False
    before: Callable[[Report], str] = lambda report: ""
    after: Callable[[Report], str] = lambda report: ""

    def markdown(self, report: Report, data: Any) -> str:
        columns = self.columns(data) if callable(self.columns) else self.columns
        heads = " | ".join(head for head, _ in columns)
        sides = ["---" if self.named else "---:"] + ["---:"] * (len(columns) - 1)
        rows = [" | ".join(str(text(row)) for _, text in columns) for row in self.rows(data)]
        lines = [f"| {heads} |", f"|{'|'.join(sides)}|", *(f"| {row} |" for row in rows)]
        parts = (f"## {self.heading}", self.before(report), "\n".join(lines), self.after(report))
        return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Plot:
    """One plot of the report; all but `data` get what `data` gives."""

    section: str  # the page's part that shows it
    title: str
    data: Callable[[Report], Any]  # what it draws; where that is empty there is no plot
    draw: Callable[[Axes, Any], None]
    label: Callable[[Any], str]  # read aloud
    legend: Legend | Callable[[Any], Legend] = ()
    note: Callable[[Any], str] = lambda data: ""
    height: Callable[[Any], float] = lambda data: HEIGHT
    table: Table | None = None

    def figure(self, data: Any) -> Figure:
        drawn = svg(lambda ax: self.draw(ax, data), self.label(data), self.height(data))
        legend = self.legend(data) if callable(self.legend) else self.legend
        return Figure(self.title, drawn, legend, self.note(data))
