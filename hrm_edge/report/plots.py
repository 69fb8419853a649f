"""The report's plots, one object each: what it takes from the report, how the page draws it, its table in Markdown.

A new plot is an object here that stands in :data:`PLOTS`; the pages ask :func:`figures` and :func:`tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..measure.drift import SegmentDrift
from .format import Halting, Report, SegmentAccuracy
from .layer_plots import CLIPPING, RANGES, SENSITIVITY
from .plot import Columns, Figure, Legend, Plot, Table
from .svg import DEEP, FLOAT, LOW, PAGE, TEAL, whole_numbers
from .words import cosine, number, origin, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOAT_STYLE = {"color": FLOAT, "marker": "o", "linestyle": (0, (4, 2)), "markerfacecolor": PAGE}
_LOW_STYLE = {"color": LOW, "marker": "s", "linestyle": "-"}
# The first two state tensors, or any other two figures of the same comparison; further states look like the second.
_FIRST = {"color": DEEP, "marker": "s", "linestyle": "-"}
_SECOND = {"color": TEAL, "marker": "o", "linestyle": (0, (4, 2)), "markerfacecolor": PAGE}
_LOW_END = {"linestyle": ":", "markersize": 2.5}

# The lines of a plot of drift: what each shows of a row, and its style.
Series = Sequence[tuple[Callable[[Any], Any], dict[str, Any]]]


def figures(report: Report) -> dict[str, list[Figure]]:
    """Section → its plots, drawn."""
    found: dict[str, list[Figure]] = {plot.section: [] for plot in PLOTS}
    for plot in PLOTS:
        if data := plot.data(report):
            found[plot.section].append(plot.figure(data))
    return found


def tables(report: Report) -> dict[str, list[str]]:
    """Section → the tables of its plots as Markdown."""
    found: dict[str, list[str]] = {plot.section: [] for plot in PLOTS}
    for plot in PLOTS:
        if plot.table and (data := plot.data(report)):
            found[plot.section].append(plot.table.markdown(report, data))
    return found


# -- accuracy and halting --------------------------------------------------------------------------------


def _draw_accuracy(ax: Axes, rows: Sequence[SegmentAccuracy]) -> None:
    k = [row.segments for row in rows]
    sides: Any = ([row.reference for row in rows], _FLOAT_STYLE), ([row.candidate for row in rows], _LOW_STYLE)
    for rates, style in sides:
        low, high = zip(*(rate.interval for rate in rates), strict=True)
        ax.fill_between(k, _percent(low), _percent(high), color=style["color"], alpha=0.16, linewidth=0)
        ax.plot(k, _percent(rate.exact for rate in rates), **style)
    if len(k) > 2 and all(count & (count - 1) == 0 for count in k):
        ax.set_xscale("log", base=2)
        ax.set_xticks(k, [str(count) for count in k])
        ax.minorticks_off()
    ax.set_xlabel("segments")
    ax.set_ylabel("exactly solved, %")
    ax.set_ylim(bottom=0)


_ACCURACY = Plot(
    "accuracy",
    "Exact accuracy by segments",
    data=lambda report: report.by_segments,
    draw=_draw_accuracy,
    label=lambda rows: (
        f"Line plot: exact-solve accuracy by number of segments. After {rows[-1].segments}: float "
        f"{rows[-1].reference.exact:.1%}, quantized {rows[-1].candidate.exact:.1%}."
    ),
    legend=(("float", "float reference"), ("low", "this bundle")),
    note=lambda rows: f"On n={rows[-1].n} puzzles, halting off. Shaded: 95 % intervals.",
    table=Table(
        "Accuracy by number of segments",
        (
            ("segments", lambda row: row.segments),
            ("float reference", lambda row: percent(row.reference.exact)),
            ("this bundle", lambda row: percent(row.candidate.exact)),
            ("n", lambda row: row.n),
        ),
        before=lambda report: "Halting off.",
    ),
)


def _counted(halting: Halting) -> list[tuple[int, int, int]]:
    """(segments, puzzles of the reference, puzzles of the candidate)"""
    return list(zip(range(1, len(halting.reference) + 1), halting.reference, halting.candidate, strict=True))


def _draw_halting(ax: Axes, halting: Halting) -> None:
    styles: Any = ({"facecolor": PAGE, "edgecolor": FLOAT, "linewidth": 1.4}, {"color": LOW})
    rows = _counted(halting)
    for side, shift, style in zip((1, 2), (-0.2, 0.2), styles, strict=True):
        taken = [(row[0], row[side]) for row in rows if row[side]]
        ax.bar([k + shift for k, _ in taken], [count for _, count in taken], 0.36, **style)
    ax.set_xlim(0.3, len(rows) + 0.7)
    ax.set_xlabel("segments before the answer")
    ax.set_ylabel("puzzles")
    whole_numbers(ax.xaxis)
    whole_numbers(ax.yaxis)


_HALTING = Plot(
    "halting",
    "When thinking stops",
    data=lambda report: report.halting if report.halting.reference else None,
    draw=_draw_halting,
    label=lambda halting: (
        f"Histogram of halting steps; {halting.agree:.1%} of the puzzles stop after the same segment in both."
    ),
    legend=(("float-box", "float reference"), ("low-box", "this bundle")),
    table=Table(
        "Halting",
        (
            ("segments", lambda row: row[0]),
            ("float reference", lambda row: row[1]),
            ("this bundle", lambda row: row[2]),
        ),
        lambda halting: [row for row in _counted(halting) if any(row[1:])],
        before=lambda report: (
            f"{percent(report.halting.agree)} of the puzzles stop after the same segment, "
            f"{percent(report.halting.within_one)} within one of it; the mean moved by "
            f"{points(100 * report.gate.halt_shift)} % ({number(100 * report.gate.max_halt_shift)} % allowed)."
        ),
    ),
)


# -- drift -----------------------------------------------------------------------------------------------


def _drift(
    title: str,
    ylabel: str,
    series: Series | Callable[[Any], Series],
    label: Callable[[Any], str],
    legend: Legend | Callable[[Any], Legend],
    note: str = "",
    table: Table | None = None,
) -> Plot:
    """Figures of the candidate against the reference, segment by segment. `series`: each line's value of a row, and
    its style; a function where the rows say which. `label`: of the last segment."""

    def draw(ax: Axes, rows: Sequence[Any]) -> None:
        for value_of, style in series(rows) if callable(series) else series:
            values = [float("nan") if (value := value_of(row)) is None else value for row in rows]
            ax.plot([row.segment for row in rows], _percent(values) if "%" in ylabel else values, **style)
        ax.set_xlabel("segment")
        ax.set_ylabel(ylabel)
        whole_numbers(ax.xaxis)
        if ylabel != "cosine":  # which is near 1
            ax.set_ylim(0, 1.05 * ax.get_ylim()[1])

    return Plot(
        "drift",
        title,
        data=lambda report: report.drift,
        draw=draw,
        label=lambda rows: f"Line plot: {label(rows[-1])} after segment {rows[-1].segment}.",
        legend=legend,
        note=lambda rows: note,
        table=table,
    )


def _of_state(number: int, field: str, row: SegmentDrift) -> float | None:
    value: float | None = getattr(row.states[number], field)
    return value


def _shown_as(text: Callable[[float | None], str], value: Callable[[SegmentDrift], float | None], row: Any) -> str:
    return text(value(row))


def _state_lines(field: str, **style: Any) -> Callable[[Any], Series]:
    """A line for each state tensor."""

    def lines(rows: Sequence[SegmentDrift]) -> Series:
        return [
            (partial(_of_state, i, field), {**(_SECOND if i else _FIRST), **style})
            for i in range(len(rows[0].states))
        ]

    return lines


def _state_legend(rows: Sequence[SegmentDrift]) -> Legend:
    return tuple(("second" if i else "first", state.name) for i, state in enumerate(rows[0].states))


def _direction_legend(rows: Sequence[SegmentDrift]) -> Legend:
    names = _state_legend(rows)
    return names + tuple((f"{style} dotted", f"{name}, lowest 5 %") for style, name in names)


def drift_columns(rows: Sequence[SegmentDrift]) -> Columns:
    """The columns of the table of drift: three for each state tensor among them."""
    states: list[tuple[str, Callable[[Any], object]]] = []
    for i, state in enumerate(rows[0].states):
        of = partial(partial, _of_state, i)
        states += [
            (f"{state.name} cosine", partial(_shown_as, cosine, of("cosine"))),
            ("low", partial(_shown_as, cosine, of("cosine_low"))),
            (f"{state.name} error", partial(_shown_as, percent, of("error"))),
        ]
    return (
        ("segment", lambda row: row.segment),
        *states,
        ("logit RMSE", lambda row: number(row.logit_rmse)),
        ("cells differ", lambda row: percent(row.cells_differ)),
        ("puzzles differ", lambda row: percent(row.puzzles_differ)),
        ("halting agrees", lambda row: percent(row.halt_agree)),
    )


_DIRECTION = _drift(
    "Direction of the states",
    "cosine",
    lambda rows: [*_state_lines("cosine")(rows), *_state_lines("cosine_low", **_LOW_END)(rows)],
    lambda last: (
        f"cosine between float and quantized states; {last.states[0].name} {_shown(last.states[0].cosine)}"
    ),
    _direction_legend,
    "1 is no drift. Dotted: 5 % of the tokens lie below.",
    Table(
        "Drift, segment by segment",
        drift_columns,
        before=lambda report: (
            f"Both re-rolled from their own states on {report.drift[0].n} puzzles. "
            '"Low" is the value that 5 % of the tokens lie below.'
        ),
        after=lambda report: origin(report.differences) if report.differences else "",
    ),
)
_ERROR = _drift(
    "Relative error of the states",
    "relative error, %",
    _state_lines("error"),
    lambda last: f"relative error of the states; {last.states[0].name} {_shown(last.states[0].error)}",
    _state_legend,
    "‖float − quantized‖ / ‖float‖, each re-rolled from its own states.",
)
_LOGITS = _drift(
    "Error of the logits",
    "RMS error of logits",
    ((lambda row: row.logit_rmse, _FIRST),),
    lambda last: f"RMS error of the logits, {_shown(last.logit_rmse)}",
    (("first", "root mean square"),),
)
_GUESSES = _drift(
    "Guesses that differ",
    "differ, %",
    ((lambda row: row.puzzles_differ, _FIRST), (lambda row: row.cells_differ, _SECOND)),
    lambda last: f"{last.puzzles_differ:.1%} of the puzzles and {last.cells_differ:.2%} of the cells differ",
    (("first", "puzzles with any such cell"), ("second", "cells whose argmax differs")),
)


# -- all of them -----------------------------------------------------------------------------------------

PLOTS = (
    _ACCURACY, _DIRECTION, _ERROR, _LOGITS, _GUESSES, _HALTING, SENSITIVITY, RANGES, CLIPPING
)  # fmt: skip


def _percent(values: Any) -> list[float]:
    return [100 * value for value in values]


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
