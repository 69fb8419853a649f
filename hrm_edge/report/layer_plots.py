"""The plots that have a row for each layer: what it costs in few bits, its ranges, what is clipped of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..text import markdown
from .format import Quantization, Report, Site, Trial
from .plot import Plot, Table
from .svg import FLOAT, INK, LOW, PAGE, SOFT, log_scale, name_rows, plain_number
from .words import number, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.2  # height of a layer's row


def _worst_first(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: (-trial.drop_points, -trial.lost, trial.halt_agree))


def _draw_sensitivity(ax: Axes, trials: Sequence[Trial]) -> None:
    ordered = _worst_first(trials)
    name_rows(ax, [short_name(trial.what) for trial in ordered])
    drops = [trial.drop_points for trial in ordered]
    faces = [LOW if drop > 0 else PAGE for drop in drops]
    ax.barh(range(len(ordered)), drops, 0.58, color=faces, edgecolor=LOW, linewidth=1.2)
    ax.axvline(0, color=SOFT, linewidth=0.8)
    ax.set_xlabel("drop of exact accuracy, points")


def _sensitivity_label(trials: Sequence[Trial]) -> str:
    worst = _worst_first(trials)[0]
    return f"Bar chart: {short_name(worst.what)} is the most sensitive layer, {worst.drop_points:.2f} points."


def _sensitivity_note(trials: Sequence[Trial]) -> str:
    worst = _worst_first(trials)[0]
    below = any(trial.drop_points < 0 for trial in trials)
    note = f"On n={worst.n} puzzles, where one puzzle is {100 / worst.n:.2g} points."
    return note + (" Below 0: more solved than in float." if below else "")


# Points of exact accuracy that each layer costs when it alone is quantized, the worst on top.
SENSITIVITY = Plot(
    "layers",
    "Each layer quantized alone",
    data=lambda report: report.quantization and report.quantization.sensitivity,
    draw=_draw_sensitivity,
    label=_sensitivity_label,
    note=_sensitivity_note,
    height=lambda trials: _tall(len(trials)),
    table=Table(
        "Sensitivity: each layer quantized alone",
        (
            ("layer", lambda trial: markdown(trial.what)),
            ("drop, points", lambda trial: points(trial.drop_points)),
            ("lost", lambda trial: trial.lost),
            ("won", lambda trial: trial.won),
            ("n", lambda trial: trial.n),
            ("same halting step", lambda trial: percent(trial.halt_agree)),
        ),
        lambda trials: sorted(trials, key=lambda trial: -trial.drop_points),
        named=True,
    ),
)


# -- ranges: one row a layer, one mark for each of its calls ---------------------------------------------


def _sites_by_layer(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Quantizers grouped by the layer that reads them ("layer/call")."""
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.name.rpartition("/")[0] or site.name, []).append(site)
    return groups


def _with_sites(report: Report) -> Quantization | None:
    return report.quantization if report.quantization and report.quantization.sites else None


def _range_height(record: Quantization) -> float:
    return _tall(len(_sites_by_layer(record.sites)))


def _draw_ranges(ax: Axes, record: Quantization) -> None:
    calls = _sites_by_layer(record.sites)
    weights = {layer.name: layer.absmax for layer in record.layers if layer.absmax}
    name_rows(ax, [short_name(name) for name in calls])
    for row, (name, found) in enumerate(calls.items()):
        seen = [site.absmax for site in found if site.absmax]
        covered = [127 * site.scale for site in found if site.scale]
        ax.plot(seen, [row - 0.14] * len(seen), "o", color=FLOAT, markerfacecolor="none")
        ax.plot(covered, [row + 0.14] * len(covered), "s", color=LOW, markersize=3)
        if name in weights:
            ax.plot([weights[name]], [row], "|", color=INK, markersize=9, markeredgewidth=1.6)
    log_scale(ax)
    ax.set_xlabel("magnitude (log scale)")


RANGES = Plot(
    "ranges",
    "Ranges",
    data=_with_sites,
    draw=_draw_ranges,
    label=lambda record: f"Dot plot: ranges of {len(record.sites)} activation quantizers.",
    legend=(
        ("low-dot", "covered by INT8 (127 steps)"),
        ("float-dot", "largest activation seen"),
        ("tick", "largest weight"),
    ),
    note=lambda record: "One mark for each call of the layer.",
    height=_range_height,
    table=Table(
        "Activation ranges",
        (
            ("layer and call", lambda site: markdown(site.name)),
            ("largest seen", lambda site: number(site.absmax)),
            ("covered", lambda site: number(None if site.scale is None else 127 * site.scale)),
            ("clipped", lambda site: percent(site.clipped, 4)),
        ),
        lambda record: record.sites,
        named=True,
    ),
)


def _draw_clipping(ax: Axes, record: Quantization) -> None:
    calls = _sites_by_layer(record.sites)
    name_rows(ax, [short_name(name) for name in calls])
    for row, found in enumerate(calls.values()):
        values = [100 * site.clipped for site in found if site.clipped is not None]
        ax.plot(values, [row] * len(values), "s", color=LOW, alpha=0.75)
    ax.set_xscale("symlog", linthresh=0.01)
    ax.set_xlim(-0.002, max(0.1, 200 * max((site.clipped or 0) for site in record.sites)))
    ax.xaxis.set_major_formatter(plain_number)
    ax.minorticks_off()
    ax.set_xlabel("clipped values, % (0, then log scale)")


CLIPPING = Plot(
    "ranges",
    "Clipping",
    data=_with_sites,
    draw=_draw_clipping,
    label=lambda record: (
        f"Dot plot: part of the values clipped, most at {max(record.sites, key=lambda s: s.clipped or 0).name}."
    ),
    legend=(("low-dot", "one call of the layer"),),
    note=lambda record: "Part of the calibration values beyond the range.",
    height=_range_height,
)


def short_name(name: str) -> str:
    """A layer's name as a plot has room for: "L_level.layers.0.mlp.down_proj" is "L.0 down"."""
    name = re.sub(r"^([HL])_level\.layers\.(\d+)\.(?:self_attn|mlp)\.", r"\1.\2 ", name)
    name = re.sub(r"^([HL])_level\.layers\.(\d+)\.mlp_t\.", r"\1.\2 mix ", name)
    name = re.sub(r"_proj\b", "", name)
    return name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}"


def _tall(rows: int) -> float:
    return max(1.5, 0.75 + _ROW * rows)
