"""The report's plots, one object each: what it takes from the report, how the page draws it, its table in Markdown.

A new plot is a class here and an object in :data:`PLOTS`; the pages ask :func:`figures` and :func:`tables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .format import Drift, Halting, Quantization, Report, SegmentAccuracy, Site, Trial
from .svg import DEEP, FLOAT, HEIGHT, INK, LINE, LOW, PAGE, SOFT, TEAL, svg
from .words import cell, cosine, number, origin, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOAT_STYLE = {"color": FLOAT, "marker": "o", "linestyle": (0, (4, 2)), "markerfacecolor": PAGE}
_LOW_STYLE = {"color": LOW, "marker": "s", "linestyle": "-"}
# z_H and z_L, or any other two figures of the same comparison.
_FIRST = {"color": DEEP, "marker": "s", "linestyle": "-"}
_SECOND = {"color": TEAL, "marker": "o", "linestyle": (0, (4, 2)), "markerfacecolor": PAGE}
_STATES = (("first", "z_H"), ("second", "z_L"))

_ROW = 0.2  # height of a layer's row

Legend = tuple[tuple[str, str], ...]  # (style of the page's key, what it stands for); told apart without colour too


@dataclass(frozen=True)
class Figure:
    """A plot as the page shows it: `svg` is markup, the rest is text."""

    title: str
    svg: str
    legend: Legend
    note: str


@dataclass(frozen=True)
class Table:
    """The same figures as text, under a heading of their own; `named`: the first column holds names."""

    heading: str
    columns: tuple[tuple[str, Callable[[Any], object]], ...]  # (head, a row's cell)
    rows: Callable[[Report], Sequence[Any]]
    named: bool = False
    before: Callable[[Report], str] = lambda report: ""
    after: Callable[[Report], str] = lambda report: ""

    def markdown(self, report: Report) -> str:
        heads = " | ".join(head for head, _ in self.columns)
        sides = ["---" if self.named else "---:"] + ["---:"] * (len(self.columns) - 1)
        rows = [" | ".join(str(text(row)) for _, text in self.columns) for row in self.rows(report)]
        lines = [f"| {heads} |", f"|{'|'.join(sides)}|", *(f"| {row} |" for row in rows)]
        parts = (f"## {self.heading}", self.before(report), "\n".join(lines), self.after(report))
        return "\n\n".join(part for part in parts if part)


class Plot:
    """One plot of the report. `section`: the page's part that shows it."""

    section: ClassVar[str]
    title: ClassVar[str]
    legend: ClassVar[Legend] = ()
    table: ClassVar[Table | None] = None

    def data(self, report: Report) -> Any:
        """What it draws; where that is empty there is no plot."""
        raise NotImplementedError

    def draw(self, ax: Axes, data: Any) -> None:
        raise NotImplementedError

    def label(self, data: Any) -> str:
        """What is read aloud."""
        raise NotImplementedError

    def note(self, data: Any) -> str:
        return ""

    def height(self, data: Any) -> float:
        return HEIGHT

    def figure(self, data: Any) -> Figure:
        drawn = svg(lambda ax: self.draw(ax, data), self.label(data), self.height(data))
        return Figure(self.title, drawn, self.legend, self.note(data))


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
        if plot.table and plot.data(report):
            found[plot.section].append(plot.table.markdown(report))
    return found


# -- accuracy and halting --------------------------------------------------------------------------------


class AccuracyBySegments(Plot):
    section = "accuracy"
    title = "Exact accuracy by segments"
    legend = (("float", "float reference"), ("low", "this bundle"))
    table = Table(
        "Accuracy by number of segments",
        (
            ("segments", lambda row: row.segments),
            ("float reference", lambda row: percent(row.reference.exact)),
            ("this bundle", lambda row: percent(row.candidate.exact)),
            ("n", lambda row: row.n),
        ),
        lambda report: report.by_segments,
        before=lambda report: "Halting off.",
    )

    def data(self, report: Report) -> tuple[SegmentAccuracy, ...]:
        return report.by_segments

    def draw(self, ax: Axes, data: tuple[SegmentAccuracy, ...]) -> None:
        k = [row.segments for row in data]
        sides: Any = ([row.reference for row in data], _FLOAT_STYLE), ([row.candidate for row in data], _LOW_STYLE)
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

    def label(self, data: tuple[SegmentAccuracy, ...]) -> str:
        last = data[-1]
        return (
            f"Line plot: exact-solve accuracy by number of segments. After {last.segments}: float "
            f"{last.reference.exact:.1%}, quantized {last.candidate.exact:.1%}."
        )

    def note(self, data: tuple[SegmentAccuracy, ...]) -> str:
        return f"On n={data[-1].n} puzzles, halting off. Shaded: 95 % intervals."


class HaltingSteps(Plot):
    """How many puzzles stopped after each segment."""

    section = "halting"
    title = "When thinking stops"
    legend = (("float-box", "float reference"), ("low-box", "this bundle"))
    table = Table(
        "Halting",
        (
            ("segments", lambda row: row[0]),
            ("float reference", lambda row: row[1]),
            ("this bundle", lambda row: row[2]),
        ),
        lambda report: [row for row in _counted(report.halting) if any(row[1:])],
        before=lambda report: (
            f"{percent(report.halting.agree)} of the puzzles stop after the same segment, "
            f"{percent(report.halting.within_one)} within one of it; the mean moved by "
            f"{points(100 * report.gate.halt_shift)} % ({number(100 * report.gate.max_halt_shift)} % allowed)."
        ),
    )

    def data(self, report: Report) -> Halting | None:
        return report.halting if report.halting.reference else None

    def draw(self, ax: Axes, data: Halting) -> None:
        styles: Any = ({"facecolor": PAGE, "edgecolor": FLOAT, "linewidth": 1.4}, {"color": LOW})
        rows = _counted(data)
        for side, shift, style in zip((1, 2), (-0.2, 0.2), styles, strict=True):
            taken = [(row[0], row[side]) for row in rows if row[side]]
            ax.bar([k + shift for k, _ in taken], [count for _, count in taken], 0.36, **style)
        ax.set_xlim(0.3, len(rows) + 0.7)
        ax.set_xlabel("segments before the answer")
        ax.set_ylabel("puzzles")
        _whole_numbers(ax.xaxis)
        _whole_numbers(ax.yaxis)

    def label(self, data: Halting) -> str:
        return f"Histogram of halting steps; {data.agree:.1%} of the puzzles stop after the same segment in both."


def _counted(halting: Halting) -> list[tuple[int, int, int]]:
    """(segments, puzzles of the reference, puzzles of the candidate)"""
    return list(zip(range(1, len(halting.reference) + 1), halting.reference, halting.candidate, strict=True))


# -- drift -----------------------------------------------------------------------------------------------


class _DriftPlot(Plot):
    """Figures of the candidate against the reference, segment by segment: (field, style of its line)."""

    section = "drift"
    series: ClassVar[tuple[tuple[str, dict[str, Any]], ...]]
    ylabel: ClassVar[str]
    percent: ClassVar[bool] = False
    from_zero: ClassVar[bool] = True

    def data(self, report: Report) -> tuple[Drift, ...]:
        return report.drift

    def draw(self, ax: Axes, data: tuple[Drift, ...]) -> None:
        k = [row.segment for row in data]
        for name, style in self.series:
            values = [_or_nan(getattr(row, name)) for row in data]
            ax.plot(k, _percent(values) if self.percent else values, **style)
        ax.set_xlabel("segment")
        ax.set_ylabel(self.ylabel)
        _whole_numbers(ax.xaxis)
        if self.from_zero:
            ax.set_ylim(0, 1.05 * ax.get_ylim()[1])

    def label(self, data: tuple[Drift, ...]) -> str:
        return f"Line plot: {self.at_the_end(data[-1])} after segment {data[-1].segment}."

    def at_the_end(self, last: Drift) -> str:
        raise NotImplementedError


class StateDirection(_DriftPlot):
    title = "Direction of the states"
    legend = (*_STATES, ("first dotted", "z_H, lowest 5 %"), ("second dotted", "z_L, lowest 5 %"))
    ylabel = "cosine"
    series = (
        ("z_H_cosine", _FIRST),
        ("z_L_cosine", _SECOND),
        ("z_H_cosine_low", {**_FIRST, "linestyle": ":", "markersize": 2.5}),
        ("z_L_cosine_low", {**_SECOND, "linestyle": ":", "markersize": 2.5}),
    )
    from_zero = False
    table = Table(
        "Drift, segment by segment",
        (
            ("segment", lambda row: row.segment),
            ("z_H cosine", lambda row: cosine(row.z_H_cosine)),
            ("low", lambda row: cosine(row.z_H_cosine_low)),
            ("z_H error", lambda row: percent(row.z_H_error)),
            ("z_L cosine", lambda row: cosine(row.z_L_cosine)),
            ("low", lambda row: cosine(row.z_L_cosine_low)),
            ("z_L error", lambda row: percent(row.z_L_error)),
            ("logit RMSE", lambda row: number(row.logit_rmse)),
            ("cells differ", lambda row: percent(row.cells_differ)),
            ("puzzles differ", lambda row: percent(row.puzzles_differ)),
            ("halting agrees", lambda row: percent(row.halt_agree)),
        ),
        lambda report: report.drift,
        before=lambda report: (
            f"Both re-rolled from their own states on {report.drift[0].n} puzzles. "
            '"Low" is the value that 5 % of the tokens lie below.'
        ),
        after=lambda report: origin(report.differences) if report.differences else "",
    )

    def at_the_end(self, last: Drift) -> str:
        return f"cosine between float and quantized states; z_H {_shown(last.z_H_cosine)}"

    def note(self, data: tuple[Drift, ...]) -> str:
        return "1 is no drift. Dotted: 5 % of the tokens lie below."


class StateError(_DriftPlot):
    title = "Relative error of the states"
    legend = _STATES
    ylabel = "relative error, %"
    series = (("z_H_error", _FIRST), ("z_L_error", _SECOND))
    percent = True

    def at_the_end(self, last: Drift) -> str:
        return f"relative error of the states; z_H {_shown(last.z_H_error)}"

    def note(self, data: tuple[Drift, ...]) -> str:
        return "‖float − quantized‖ / ‖float‖, each re-rolled from its own states."


class LogitError(_DriftPlot):
    title = "Error of the logits"
    legend = (("first", "root mean square"),)
    ylabel = "RMS error of logits"
    series = (("logit_rmse", _FIRST),)

    def at_the_end(self, last: Drift) -> str:
        return f"RMS error of the logits, {_shown(last.logit_rmse)}"


class GuessesThatDiffer(_DriftPlot):
    title = "Guesses that differ"
    legend = (("first", "puzzles with any such cell"), ("second", "cells whose argmax differs"))
    ylabel = "differ, %"
    series = (("puzzles_differ", _FIRST), ("cells_differ", _SECOND))
    percent = True

    def at_the_end(self, last: Drift) -> str:
        return f"{last.puzzles_differ:.1%} of the puzzles and {last.cells_differ:.2%} of the cells differ"


# -- layers and ranges -----------------------------------------------------------------------------------


class Sensitivity(Plot):
    """Points of exact accuracy that each layer costs when it alone is quantized, the worst on top."""

    section = "layers"
    title = "Each layer quantized alone"
    table = Table(
        "Sensitivity: each layer quantized alone",
        (
            ("layer", lambda trial: cell(trial.what)),
            ("drop, points", lambda trial: points(trial.drop_points)),
            ("lost", lambda trial: trial.lost),
            ("won", lambda trial: trial.won),
            ("n", lambda trial: trial.n),
            ("same halting step", lambda trial: percent(trial.halt_agree)),
        ),
        lambda report: sorted(_trials(report), key=lambda trial: trial.drop_points, reverse=True),
        named=True,
    )

    def data(self, report: Report) -> list[Trial]:
        return sorted(_trials(report), key=lambda trial: (-trial.drop_points, -trial.lost, trial.halt_agree))

    def draw(self, ax: Axes, data: list[Trial]) -> None:
        _name_rows(ax, [short_name(trial.what) for trial in data])
        drops = [trial.drop_points for trial in data]
        faces = [LOW if drop > 0 else PAGE for drop in drops]
        ax.barh(range(len(data)), drops, 0.58, color=faces, edgecolor=LOW, linewidth=1.2)
        ax.axvline(0, color=SOFT, linewidth=0.8)
        ax.set_xlabel("drop of exact accuracy, points")

    def label(self, data: list[Trial]) -> str:
        worst = data[0]
        return f"Bar chart: {short_name(worst.what)} is the most sensitive layer, {worst.drop_points:.2f} points."

    def note(self, data: list[Trial]) -> str:
        n = data[0].n
        below = " Below 0: more solved than in float." if data[-1].drop_points < 0 else ""
        return f"On n={n} puzzles, where one puzzle is {100 / n:.2g} points.{below}"

    def height(self, data: list[Trial]) -> float:
        return _tall(len(data))


class _SitePlot(Plot):
    """One row a layer, one mark for each of its calls."""

    section = "ranges"

    def data(self, report: Report) -> Quantization | None:
        return report.quantization if report.quantization and report.quantization.sites else None

    def height(self, data: Quantization) -> float:
        return _tall(len(_sites_by_layer(data.sites)))


class Ranges(_SitePlot):
    title = "Ranges"
    legend = (
        ("low-dot", "covered by INT8 (127 steps)"),
        ("float-dot", "largest activation seen"),
        ("tick", "largest weight"),
    )
    table = Table(
        "Activation ranges",
        (
            ("layer and call", lambda site: cell(site.name)),
            ("largest seen", lambda site: number(site.absmax)),
            ("covered", lambda site: number(None if site.scale is None else 127 * site.scale)),
            ("clipped", lambda site: percent(site.clipped, 4)),
        ),
        lambda report: report.quantization.sites if report.quantization else (),
        named=True,
    )

    def draw(self, ax: Axes, data: Quantization) -> None:
        calls = _sites_by_layer(data.sites)
        weights = {layer.name: layer.absmax for layer in data.layers if layer.absmax}
        _name_rows(ax, [short_name(name) for name in calls])
        for row, (name, found) in enumerate(calls.items()):
            seen = [site.absmax for site in found if site.absmax]
            covered = [127 * site.scale for site in found if site.scale]
            ax.plot(seen, [row - 0.14] * len(seen), "o", color=FLOAT, markerfacecolor="none")
            ax.plot(covered, [row + 0.14] * len(covered), "s", color=LOW, markersize=3)
            if name in weights:
                ax.plot([weights[name]], [row], "|", color=INK, markersize=9, markeredgewidth=1.6)
        _log_scale(ax)
        ax.set_xlabel("magnitude (log scale)")

    def label(self, data: Quantization) -> str:
        return f"Dot plot: ranges of {len(data.sites)} activation quantizers."

    def note(self, data: Quantization) -> str:
        return "One mark for each call of the layer."


class Clipping(_SitePlot):
    title = "Clipping"
    legend = (("low-dot", "one call of the layer"),)

    def draw(self, ax: Axes, data: Quantization) -> None:
        calls = _sites_by_layer(data.sites)
        _name_rows(ax, [short_name(name) for name in calls])
        for row, found in enumerate(calls.values()):
            values = [100 * site.clipped for site in found if site.clipped is not None]
            ax.plot(values, [row] * len(values), "s", color=LOW, alpha=0.75)
        ax.set_xscale("symlog", linthresh=0.01)
        ax.set_xlim(-0.002, max(0.1, 200 * max((site.clipped or 0) for site in data.sites)))
        ax.xaxis.set_major_formatter(_plain_number)
        ax.minorticks_off()
        ax.set_xlabel("clipped values, % (0, then log scale)")

    def label(self, data: Quantization) -> str:
        most = max(data.sites, key=lambda site: site.clipped or 0)
        return f"Dot plot: part of the values clipped, most at {most.name}."

    def note(self, data: Quantization) -> str:
        return "Part of the calibration values beyond the range."


PLOTS: tuple[Plot, ...] = (
    AccuracyBySegments(),
    StateDirection(),
    StateError(),
    LogitError(),
    GuessesThatDiffer(),
    HaltingSteps(),
    Sensitivity(),
    Ranges(),
    Clipping(),
)


# -- what several plots need -----------------------------------------------------------------------------


def _trials(report: Report) -> tuple[Trial, ...]:
    return report.quantization.sensitivity if report.quantization else ()


def _sites_by_layer(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Quantizers grouped by the layer that reads them ("layer/call")."""
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.name.rpartition("/")[0] or site.name, []).append(site)
    return groups


def short_name(name: str) -> str:
    """A layer's name as a plot has room for: "L_level.layers.0.mlp.down_proj" is "L.0 down"."""
    name = re.sub(r"^([HL])_level\.layers\.(\d+)\.(?:self_attn|mlp)\.", r"\1.\2 ", name)
    name = re.sub(r"^([HL])_level\.layers\.(\d+)\.mlp_t\.", r"\1.\2 mix ", name)
    name = re.sub(r"_proj\b", "", name)
    return name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}"


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.grid(axis="x", color=LINE)
    ax.grid(axis="y", color=LINE)


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def _log_scale(ax: Axes) -> None:
    """A few plain numbers, however many decades there are."""
    from matplotlib.ticker import LogLocator

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    ax.xaxis.set_major_formatter(_plain_number)
    ax.minorticks_off()


def _tall(rows: int) -> float:
    return max(1.5, 0.75 + _ROW * rows)


def _percent(values: Any) -> list[float]:
    return [100 * value for value in values]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _plain_number(value: float, _: Any) -> str:
    return f"{value:g}"
