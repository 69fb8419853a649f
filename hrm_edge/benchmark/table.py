"""The benchmark for people: one table, and a plot of size, time and accuracy with the Pareto set marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.plots import picture
from ..analysis.tables import Table
from ..files import write_atomically
from ..report.colours import page_colours
from ..report.svg import drawable
from .rows import PAGE, PLOT, Benchmark, Row

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_BEST, _NONE = "★", "–"
_MARKS = "osD^vPX*hd"
# Places of a label beside its mark, in points: right or left, and how far up.
_ASIDES = [(aside, up) for up in (0, 8, -8, 16, -16, 24, -24) for aside in (8, -8)]


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f} %"


def _exact(row: Row) -> str | None:
    return None if row.exact is None else f"{_percent(row.exact_reference)} → {_percent(row.exact)}"


def _changed(row: Row) -> str | None:
    return None if row.n is None else f"{row.lost} / {row.won} of {row.n}"


def _number(name: str, digits: int, unit: float = 1.0) -> Callable[[Row], str | None]:
    """A field of the row in a unit of the table's."""

    def cell(row: Row) -> str | None:
        value = getattr(row, name)
        return None if value is None else f"{value / unit:.{digits}f}"

    return cell


# Head, a row's cell, and whether the column is left out where no row has anything in it.
_COLUMNS: tuple[tuple[str, Callable[[Row], str | None], bool], ...] = (
    ("exact", _exact, True),
    ("lost / won", _changed, True),
    ("size MB", _number("stored_mb", 2), False),
    ("peak MB", _number("peak_mb", 0), False),
    ("ms/puzzle", _number("ms_per_puzzle", 2), False),
    ("ms/segment", _number("ms_per_segment", 2), False),
    ("× eager", _number("speedup", 2), False),
    ("RAM kB", _number("ram_bytes", 0, 1e3), True),
    ("flash kB", _number("flash_bytes", 0, 1e3), True),
    ("M instructions/segment", _number("instructions", 2, 1e6), True),
)


def benchmark_table(result: Benchmark) -> Table:
    """A row an export, PyTorch's first; what is not told anywhere has no column."""
    rows = [
        *([result.reference] if result.reference else []),
        *(row for row in result.rows if row.state != "absent"),
    ]
    shown = [(head, cell) for head, cell, may_go in _COLUMNS if not may_go or any(map(cell, rows))]
    best = {row.name for row in result.best}
    cells = [
        [
            f"{row.name}{f' {_BEST}' if row.name in best else ''}",
            _state(row),
            *(cell(row) or _NONE for _, cell in shown),
        ]
        for row in rows
    ]
    return Table(["target", "here", *(head for head, _ in shown)], cells, 2, list(_notes(result)))


def _state(row: Row) -> str:
    return {"runs": "runs", "built": "built only", "failed": "gate failed", "absent": ""}[row.state]


def _notes(result: Benchmark) -> Sequence[str]:
    compared = "no accuracy"
    if result.puzzles:
        asked = f"{result.puzzles} or, where a gate asked on, more of these"
        compared = f"accuracy: exactly solved of {asked}, PyTorch → bundle"
    notes = [
        f"{result.checkpoint} ({result.task}) on {result.machine}, {result.threads} threads, batch 1; {compared}. "
        f"{_BEST}: nothing here is smaller, faster and more accurate at once. Size: the bundle without a report, "
        "graphs and programs too (of a small model more than its weights); of C, its code and weights as compiled; "
        "of PyTorch, the checkpoint with its card. Time: medians of interleaved rounds, learned halting."
    ]
    if counted := sorted({row.emulated for row in result.rows if row.emulated}):
        notes.append(f"Instructions of a segment: counted by {', '.join(counted)}; they are no time.")
    reasons: dict[str, list[Row]] = {}
    for row in result.rows:
        if row.note:
            reasons.setdefault(row.note, []).append(row)
    for why, rows in reasons.items():
        what = {"absent": "not built", "failed": "failed"}.get(rows[0].state, "built only")
        notes.append(f"{', '.join(row.name for row in rows)}: {what}: {why}")
    return notes


def write_pages(folder: Path, result: Benchmark) -> None:
    """The table as Markdown, and the plot, beside the record."""
    write_atomically(folder / PAGE, benchmark_table(result).markdown())
    write_atomically(folder / PLOT, benchmark_picture(result, "png"))


# -- the plot ----------------------------------------------------------------------------------------------


def benchmark_picture(result: Benchmark, kind: str) -> bytes:
    """Size against time, each mark named, coloured by the accuracy lost; what has no time stands at the right."""
    rows = [row for row in result.rows if row.state in ("runs", "built") and row.stored_mb]
    timed = [row for row in rows if row.ms_per_puzzle]
    untimed = [row for row in rows if not row.ms_per_puzzle]
    targets = list(dict.fromkeys(row.target for row in rows))

    def draw(axes: np.ndarray) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        page, ax = page_colours(), axes[0, 0]
        ax.set_xscale("log")
        ax.set_yscale("log")
        if result.best:
            points = [(row.ms_per_puzzle, row.stored_mb) for row in result.best]
            ax.scatter(*zip(*points, strict=True), s=150, facecolor="none", edgecolor=page["good"], zorder=2)
        longest = max((row.ms_per_puzzle or 0 for row in timed), default=1.0)
        places = {id(row): row.ms_per_puzzle or 2 * longest for row in rows}
        for row in rows:
            mark, colour = _MARKS[targets.index(row.target) % len(_MARKS)], page[_colour(row)]
            ax.scatter([places[id(row)]], [row.stored_mb or 0], s=34, marker=mark, color=colour, zorder=3)
        if untimed:
            ax.axvline(1.5 * longest, color=page["line"], linewidth=1)
            ax.text(1.95 * longest, 1.01, "not timed here", transform=ax.get_xaxis_transform(), size=7,
                    color=page["soft"], ha="center", va="bottom")  # fmt: skip
        ax.scatter([], [], s=110, facecolor="none", edgecolor=page["good"], label="Pareto set")
        if any((row.drop or 0) > 0 for row in rows):
            ax.scatter([], [], marker="", label="−0.5: points of accuracy lost")
        ax.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        title = drawable(f"{result.checkpoint}, {result.threads} threads")
        ax.set_title(title, loc="right", fontsize=10, pad=14, color=page["ink"])
        ax.set_xlabel("ms a puzzle")
        ax.set_ylabel("stored, MB")
        ax.margins(0.15)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        _label(ax, [(row, places[id(row)]) for row in rows], page["ink"])

    return picture(draw, 1, 1, kind, scale=1.7)


def _colour(row: Row) -> str:
    """The page's colour of what a row loses."""
    drop = row.drop
    return "soft" if drop is None else "bad" if drop > 0.25 else "low" if drop > 0 else "float"


def _label(ax: Axes, places: Sequence[tuple[Row, float]], ink: str) -> None:
    """Each mark's target and precision, and the points it lost, where neither label nor mark stands yet."""
    in_points = 72 / ax.figure.dpi
    marks = [in_points * ax.transData.transform((x, row.stored_mb or 1)) for row, x in places]
    taken = [(left - 4, left + 4, middle) for left, middle in marks]  # left, right, middle: in points
    edge = in_points * ax.bbox.x1
    for (row, x), (left, middle) in zip(places, marks, strict=True):
        drop = row.drop
        said = row.name + (f" −{drop:.2g}" if drop and drop > 0 else "")
        width = 4.2 * len(said)
        for aside, up in _ASIDES:
            begin = left + aside if aside > 0 else left + aside - width
            y = middle + up
            free = all(begin > right or begin + width < other or abs(y - at) >= 8 for other, right, at in taken)
            if free and begin + width < edge:
                break
        taken.append((begin, begin + width, y))
        look: Any = {"textcoords": "offset points", "size": 7, "color": ink, "va": "center"}
        ax.annotate(
            drawable(said), (x, row.stored_mb or 1), (aside, up), ha="left" if aside > 0 else "right", **look
        )
