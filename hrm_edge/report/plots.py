"""The report's plots as inline SVG whose colours are the page's own, so that dark mode and print restyle them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours matplotlib writes → the page's custom properties that take their place.
_COLOURS = {
    name: f"#0a0b{number:02x}"
    for number, name in enumerate(("ink", "soft", "line", "page", "float", "low", "deep", "teal"))
}
_INK, _SOFT, _LINE, _PAGE, _FLOAT, _LOW, _DEEP, _TEAL = _COLOURS.values()
_FLOAT_STYLE = {"color": _FLOAT, "marker": "o", "linestyle": (0, (4, 2)), "markerfacecolor": _PAGE}
_LOW_STYLE = {"color": _LOW, "marker": "s", "linestyle": "-"}
# z_H and z_L, or any other two figures of the same comparison.
_FIRST = {"color": _DEEP, "marker": "s", "linestyle": "-"}
_SECOND = {"color": _TEAL, "marker": "o", "linestyle": (0, (4, 2)), "markerfacecolor": _PAGE}

_WIDTH, _HEIGHT = 5.2, 2.7  # inches of 72 units; text of 10 units stays legible when a phone shows it smaller
_ROW = 0.2  # height of a layer's row


@dataclass(frozen=True)
class Plot:
    """One figure of the page: `svg` is markup, the rest is text."""

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()  # (style, what it stands for)
    note: str = ""


def accuracy_plot(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Exact accuracy after k segments, both sides with their intervals."""
    k = [row["segments"] for row in rows]

    def draw(ax: Axes) -> None:
        for side, style in (("reference", _FLOAT_STYLE), ("candidate", _LOW_STYLE)):
            low, high = zip(*(row[side]["interval"] for row in rows), strict=True)
            ax.fill_between(k, _percent(low), _percent(high), color=style["color"], alpha=0.16, linewidth=0)
            ax.plot(k, _percent(row[side]["exact"] for row in rows), **style)
        if len(k) > 2 and all(number & (number - 1) == 0 for number in k):
            ax.set_xscale("log", base=2)
            ax.set_xticks(k, [str(number) for number in k])
            ax.minorticks_off()
        ax.set_xlabel("segments")
        ax.set_ylabel("exactly solved, %")
        ax.set_ylim(bottom=0)

    last = rows[-1]
    note = f"On n={last['n']} puzzles, halting off. Shaded: 95 % intervals."
    label = (
        f"Line plot: exact-solve accuracy by number of segments. After {last['segments']}: float "
        f"{last['reference']['exact']:.1%}, quantized {last['candidate']['exact']:.1%}."
    )
    return Plot("Exact accuracy by segments", _svg(draw, label), _BOTH, note)


# Legends: (style of the page's key, what it stands for); told apart without colour as well.
_BOTH = (("float", "float reference"), ("low", "this bundle"))
_STATES = (("first", "z_H"), ("second", "z_L"))


def drift_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """States, logits and decisions of the candidate against the reference, segment by segment."""
    k = [row["segment"] for row in rows]

    def lines(ylabel: str, *series: tuple[str, dict[str, Any]], percent: bool = False, zero: bool = True) -> Any:
        def draw(ax: Axes) -> None:
            for name, style in series:
                values = [_or_nan(row[name]) for row in rows]
                ax.plot(k, _percent(values) if percent else values, **style)
            ax.set_xlabel("segment")
            ax.set_ylabel(ylabel)
            _whole_numbers(ax.xaxis)
            if zero:
                ax.set_ylim(0, 1.05 * ax.get_ylim()[1])

        return draw

    last = rows[-1]
    low_h, low_l = ({**s, "linestyle": ":", "markersize": 2.5} for s in (_FIRST, _SECOND))
    cosine = lines(
        "cosine",
        ("z_H_cosine", _FIRST),
        ("z_L_cosine", _SECOND),
        ("z_H_cosine_low", low_h),
        ("z_L_cosine_low", low_l),
        zero=False,
    )
    error = lines("relative error, %", ("z_H_error", _FIRST), ("z_L_error", _SECOND), percent=True)
    logits = lines("RMS error of logits", ("logit_rmse", _FIRST))
    flips = lines("differ, %", ("puzzles_differ", _FIRST), ("cells_differ", _SECOND), percent=True)
    end = f"after segment {last['segment']}"
    return [
        Plot(
            "Direction of the states",
            _svg(
                cosine,
                f"Line plot: cosine between float and quantized states; z_H {_shown(last['z_H_cosine'])} {end}.",
            ),
            (*_STATES, ("first dotted", "z_H, lowest 5 %"), ("second dotted", "z_L, lowest 5 %")),
            "1 is no drift. Dotted: 5 % of the tokens lie below.",
        ),
        Plot(
            "Relative error of the states",
            _svg(error, f"Line plot: relative error of the states; z_H {_shown(last['z_H_error'])} {end}."),
            _STATES,
            "‖float − quantized‖ / ‖float‖, each re-rolled from its own states.",
        ),
        Plot(
            "Error of the logits",
            _svg(logits, f"Line plot: RMS error of the logits, {_shown(last['logit_rmse'])} {end}."),
            (("first", "root mean square"),),
        ),
        Plot(
            "Guesses that differ",
            _svg(
                flips,
                f"Line plot: {last['puzzles_differ']:.1%} of the puzzles and {last['cells_differ']:.2%} of "
                f"the cells differ {end}.",
            ),
            (("first", "puzzles with any such cell"), ("second", "cells whose argmax differs")),
        ),
    ]


def halting_plot(halting: Mapping[str, Any]) -> Plot:
    """How many puzzles stopped after each segment."""
    counts = halting["reference"], halting["candidate"]
    k = range(1, len(counts[0]) + 1)

    def draw(ax: Axes) -> None:
        styles: Any = ({"facecolor": _PAGE, "edgecolor": _FLOAT, "linewidth": 1.4}, {"color": _LOW})
        for side, shift, style in zip(counts, (-0.2, 0.2), styles, strict=True):
            taken = [(x, count) for x, count in zip(k, side, strict=True) if count]
            ax.bar([x + shift for x, _ in taken], [count for _, count in taken], 0.36, **style)
        ax.set_xlim(0.3, len(k) + 0.7)
        ax.set_xlabel("segments before the answer")
        ax.set_ylabel("puzzles")
        _whole_numbers(ax.xaxis)
        _whole_numbers(ax.yaxis)

    label = (
        f"Histogram of halting steps; {halting['agree']:.1%} of the puzzles stop after the same segment in both."
    )
    return Plot(
        "When thinking stops", _svg(draw, label), (("float-box", "float reference"), ("low-box", "this bundle"))
    )


def sensitivity_plot(trials: Sequence[Mapping[str, Any]]) -> Plot:
    """Points of exact accuracy that each layer costs when it alone is quantized, the worst on top."""
    ordered = sorted(trials, key=lambda trial: (-trial["drop_points"], -trial["lost"], trial["halt_agree"]))

    def draw(ax: Axes) -> None:
        _rows(ax, [short_name(trial["what"]) for trial in ordered])
        drops = [trial["drop_points"] for trial in ordered]
        faces = [_LOW if drop > 0 else _PAGE for drop in drops]
        ax.barh(range(len(ordered)), drops, 0.58, color=faces, edgecolor=_LOW, linewidth=1.2)
        ax.axvline(0, color=_SOFT, linewidth=0.8)
        ax.set_xlabel("drop of exact accuracy, points")

    worst = ordered[0]
    label = (
        f"Bar chart: {short_name(worst['what'])} is the most sensitive layer, {worst['drop_points']:.2f} points."
    )
    n = worst["n"]
    note = f"On n={n} puzzles, where one puzzle is {100 / n:.2g} points."
    if ordered[-1]["drop_points"] < 0:
        note += " Below 0: more solved than in float."
    return Plot("Each layer quantized alone", _svg(draw, label, _tall(len(ordered))), note=note)


def range_plots(sites: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Activation ranges and what is clipped of them: one row a layer, one mark for each of its calls."""
    calls = sites_by_layer(sites)
    weights = {layer["name"]: layer["absmax"] for layer in layers if layer["absmax"]}
    names = [short_name(name) for name in calls]

    def ranges(ax: Axes) -> None:
        _rows(ax, names)
        for row, (name, found) in enumerate(calls.items()):
            seen = [site["absmax"] for site in found if site["absmax"]]
            covered = [127 * site["scale"] for site in found if site["scale"]]
            ax.plot(seen, [row - 0.14] * len(seen), "o", color=_FLOAT, markerfacecolor="none")
            ax.plot(covered, [row + 0.14] * len(covered), "s", color=_LOW, markersize=3)
            if name in weights:
                ax.plot([weights[name]], [row], "|", color=_INK, markersize=9, markeredgewidth=1.6)
        _log_scale(ax)
        ax.set_xlabel("magnitude (log scale)")

    def clipping(ax: Axes) -> None:
        _rows(ax, names)
        for row, found in enumerate(calls.values()):
            values = [100 * site["clipped"] for site in found if site["clipped"] is not None]
            ax.plot(values, [row] * len(values), "s", color=_LOW, alpha=0.75)
        ax.set_xscale("symlog", linthresh=0.01)
        ax.set_xlim(-0.002, max(0.1, 200 * max((site["clipped"] or 0) for site in sites)))
        ax.xaxis.set_major_formatter(_plain_number)
        ax.minorticks_off()
        ax.set_xlabel("clipped values, % (0, then log scale)")

    most = max(sites, key=lambda site: site["clipped"] or 0)
    size = _tall(len(calls))
    legend = (
        ("low-dot", "covered by INT8 (127 steps)"),
        ("float-dot", "largest activation seen"),
        ("tick", "largest weight"),
    )
    return [
        Plot(
            "Ranges",
            _svg(ranges, f"Dot plot: ranges of {len(sites)} activation quantizers.", size),
            legend,
            "One mark for each call of the layer.",
        ),
        Plot(
            "Clipping",
            _svg(clipping, f"Dot plot: part of the values clipped, most at {most['name']}.", size),
            (("low-dot", "one call of the layer"),),
            "Part of the calibration values beyond the range.",
        ),
    ]


def sites_by_layer(sites: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Quantizers grouped by the layer that reads them ("layer/call")."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for site in sites:
        groups.setdefault(site["name"].rpartition("/")[0] or site["name"], []).append(site)
    return groups


def short_name(name: str) -> str:
    """A layer's name as a plot has room for: "L_level.layers.0.mlp.down_proj" is "L.0 down"."""
    name = re.sub(r"^([HL])_level\.layers\.(\d+)\.(?:self_attn|mlp)\.", r"\1.\2 ", name)
    name = re.sub(r"^([HL])_level\.layers\.(\d+)\.mlp_t\.", r"\1.\2 mix ", name)
    name = re.sub(r"_proj\b", "", name)
    return name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}"


# -- matplotlib, and what becomes of its SVG -------------------------------------------------------------


def _rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", labelcolor=_INK)
    ax.grid(axis="x", color=_LINE)
    ax.grid(axis="y", color=_LINE)


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


def require_matplotlib() -> None:
    """InputError where no plot can be drawn; asked before long work, too."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            "a plot needs matplotlib, which is not installed; run: pip install 'hrm-edge[report]'"
        ) from error


@contextmanager
def style(ink: str = _INK, soft: str = _SOFT, line: str = _LINE) -> Iterator[Any]:
    """matplotlib set up to look like the report, whatever the user's own style is."""
    require_matplotlib()
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "hrm-edge",  # else ids are random
        "font.size": 10,
        "axes.edgecolor": line,
        "axes.labelcolor": soft,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": line,
        "grid.linewidth": 0.6,
        "xtick.color": soft,
        "ytick.color": soft,
        "text.color": ink,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own style would make other bytes, and other colours
        matplotlib.rcParams.update(settings)
        yield matplotlib


def _svg(draw: Callable[[Axes], None], label: str, height: float = _HEIGHT) -> str:
    """What `draw` puts on one pair of axes, as markup for the page."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure((_WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), label)


def _for_page(svg: str, label: str) -> str:
    """Only what the page needs: no prologue, metadata, style sheet, fonts, fixed size or ids nobody refers to."""
    body = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="[^"]*"', body)
    assert view is not None
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family:[^;\"]*;?", "", body).replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', body))
    names = {name for pair in used for name in pair if name}
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in names else "", body)
    tag = f"p{hashlib.sha256(label.encode()).hexdigest()[:6]}-"  # the page holds several plots
    for name in sorted(names):
        body = body.replace(f'"{name}"', f'"{tag}{name}"').replace(f"#{name}", f"#{tag}{name}")
    for name, colour in _COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    body = re.sub(r"\s*\n\s*", " ", body)
    label = escape(label)
    return f'<svg class="plot" {view[0]} role="img" aria-label="{label}"><title>{label}</title>{body}'.strip()
