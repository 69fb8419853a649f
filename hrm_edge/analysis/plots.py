"""The analyses' pictures, in the report's look: each function draws one figure and returns its bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measure.statistics import interval
from ..report.svg import drawable, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .ablations import AblationRow
    from .halting import Halting
    from .participation import Participation
    from .segments import Rate, SegmentRates

# The report's own colours, on white.
_INK, _SOFT, _LINE = "#18202b", "#566170", "#d8dee6"
_COLOURS = ("#6d3fa6", "#bd4f14", "#0d766b", "#2460a8", "#b3261e", "#17713f", "#8a6d00", "#566170")
_MARKS = ("s", "o", "^", "D", "v", "P", "X", "*")
_STATE = {"z_H": _COLOURS[0], "z_L": _COLOURS[2]}

_WIDTH, _HEIGHT = 5.2, 3.2  # inches, of each pair of axes


def picture(draw: Callable[[np.ndarray], None], rows: int, columns: int, kind: str, scale: float = 1.0) -> bytes:
    """What `draw` puts on an array [rows, columns] of axes, as "png" or "svg"; equal input gives equal bytes.

    `scale`: of the axes, whose text stays as large as it is.
    """
    with style(_INK, _SOFT, _LINE):
        from matplotlib.figure import Figure

        figure = Figure((_WIDTH * columns * scale, _HEIGHT * rows * scale), layout="constrained")
        draw(figure.subplots(rows, columns, squeeze=False))
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=144, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def segments_picture(results: Sequence[SegmentRates], kind: str) -> bytes:
    """One row an artifact: solve rate by segments, and by retries where there were any; a line a source."""
    retried = any(result.by_retries for result in results)

    def draw(axes: np.ndarray) -> None:
        for (left, *right), result in zip(axes, results, strict=True):
            _lines(left, result.fixed, "-")
            if result.verified:
                _lines(left, result.verified, ":")
            left.set_xscale("log", base=2)
            k = sorted(next(iter(result.fixed.values())))
            left.set_xticks(k, [str(number) for number in k])
            left.minorticks_off()
            if k[0] <= result.limit < k[-1]:
                left.axvline(result.limit, color=_SOFT, linewidth=1, linestyle=(0, (2, 2)))
                left.annotate("training", (result.limit, 101), ha="center", va="bottom", color=_SOFT, fontsize=8)
            how = f"; dotted: {result.retries} retries, verified" if result.verified else ""
            _titled(left, result.artifact, f"segments{how}")
            left.legend(fontsize=8, frameon=False)
            for ax in right:
                _lines(ax, result.by_retries, "-")
                ax.set_xscale("symlog", base=2, linthresh=1)
                r = sorted(next(iter(result.by_retries.values())))
                ax.set_xticks(r, [str(number) for number in r])
                ax.minorticks_off()
                _titled(ax, f"at most {result.limit} segments an attempt", "symmetric retries, verified")

    return picture(draw, len(results), 2 if retried else 1, kind)


def _lines(ax: Axes, groups: Mapping[str, Mapping[int, Rate]], linestyle: str) -> None:
    for i, (name, rates) in enumerate(groups.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        low, high = zip(*(interval(rate.solved, rate.n) for rate in rates.values()), strict=True)
        x = list(rates)
        values = [100 * rate.exact for rate in rates.values()]
        if linestyle == "-":
            ax.fill_between(
                x, [100 * v for v in low], [100 * v for v in high], color=colour, alpha=0.14, linewidth=0
            )
        label = drawable(name) if linestyle == "-" else None
        ax.plot(x, values, color=colour, marker=_MARKS[i % len(_MARKS)], linestyle=linestyle, label=label)
    ax.set_ylim(-2, 102)


def _titled(ax: Axes, title: str, xlabel: str, ylabel: str = "exactly solved, %") -> None:
    ax.set_title(drawable(title), fontsize=10, pad=14, color=_INK)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)


def halting_picture(result: Halting, kind: str) -> bytes:
    """Halting steps by difficulty and source as shares, and the halting head's calibration."""
    rows = [*result.by_rating, *(result.by_source if len(result.by_source) > 1 else ())]

    def draw(axes: np.ndarray) -> None:
        left, right = axes[0]
        shares = np.zeros((len(rows), result.limit))
        for i, row in enumerate(rows):
            for steps, count in row.steps.items():
                shares[i, steps - 1] = 100 * count / row.n
        mesh = left.imshow(
            shares, aspect="auto", cmap="Purples", vmin=0, extent=(0.5, result.limit + 0.5, len(rows), 0)
        )
        left.plot(
            [row.steps_mean for row in rows], np.arange(len(rows)) + 0.5, "D", color=_COLOURS[1], label="mean"
        )
        left.set_yticks(np.arange(len(rows)) + 0.5, [drawable(f"{row.group} ({row.n})") for row in rows])
        left.grid(False)
        left.set_xticks(range(1, result.limit + 1, 1 + result.limit // 12))
        left.legend(fontsize=8, frameon=False, loc="lower left")
        left.figure.colorbar(mesh, ax=left, label="% of the group")
        _titled(left, result.artifact, f"segments before the answer (at most {result.limit})", "")
        bins = result.head.bins
        right.plot([0, 100], [0, 100], color=_SOFT, linewidth=0.8, linestyle=(0, (2, 2)))
        predicted = [100 * b.predicted for b in bins]
        right.plot(predicted, [100 * b.right for b in bins], color=_COLOURS[0], marker="s")
        for b in bins:
            low, high = interval(round(b.right * b.n), b.n)
            right.plot([100 * b.predicted] * 2, [100 * low, 100 * high], color=_COLOURS[0], linewidth=1)
        right.set_ylim(-2, 102)
        auc = "–" if result.head.auc is None else f"{result.head.auc:.3f}"
        _titled(right, f"the halting head: AUC {auc}", "chance of being right it states, %", "right, %")

    return picture(draw, 1, 2, kind)


def participation_picture(results: Sequence[Participation], kind: str) -> bytes:
    """Participation ratio against the number of trajectories; the first model solid, the others dashed."""

    def draw(axes: np.ndarray) -> None:
        ax = axes[0, 0]
        for i, result in enumerate(results):
            for state, points in result.growth.items():
                k = [point.trajectories for point in points]
                colour = _STATE[state]
                dashes: Any = "-" if i == 0 else (0, (4, 2))
                least, most = [point.least for point in points], [point.most for point in points]
                ax.fill_between(k, least, most, color=colour, alpha=0.14, linewidth=0)
                label = drawable(f"{state}, {result.model}")
                means = [point.mean for point in points]
                ax.plot(k, means, color=colour, marker=_MARKS[i % len(_MARKS)], linestyle=dashes, label=label)
        ax.set_xscale("log")
        ax.set_xticks(k, [str(number) for number in k])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        _titled(ax, f"D = {results[0].hidden_size}", "trajectories (puzzles)", "participation ratio")

    return picture(draw, 1, 1, kind)


def ablations_picture(rows: Sequence[AblationRow], kind: str) -> bytes:
    """A group of bars a variant, one bar for each number of segments; whiskers from the worst seed to the best."""

    def draw(axes: np.ndarray) -> None:
        ax = axes[0, 0]
        numbers = list(rows[0].exact)
        height = 0.8 / len(numbers)
        for i, k in enumerate(numbers):
            y = np.arange(len(rows)) + (i - (len(numbers) - 1) / 2) * height
            means, least, most = (np.array([100 * row.exact[k][part] for row in rows]) for part in range(3))
            label = f"after {k} segment" + "s" * (k != "1")
            whiskers = np.array([means - least, most - means])
            ax.barh(y, means, height * 0.9, color=_COLOURS[i], label=label, xerr=whiskers, ecolor=_INK, capsize=2)
        ax.set_yticks(range(len(rows)), [row.title for row in rows])
        ax.invert_yaxis()
        ax.set_xlim(0, 100)
        ax.legend(fontsize=8, frameon=False)
        seeds = max(row.seeds for row in rows)
        _titled(ax, f"{seeds} seed" + "s; whiskers: worst and best" * (seeds > 1), "exactly solved, %", "")

    return picture(draw, 1, 1, kind)
