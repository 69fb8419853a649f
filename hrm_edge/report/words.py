"""How the report says things: figures as people read them, the sentences and tiles that pages share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..runtimes import backends
from ..text import markdown
from .format import Differences, Puzzle, Quantization, Report, Verdict

KINDS = {
    "lost": ("Lost", "only the float reference solves them"),
    "won": ("Won", "only this bundle solves them"),
    "differ": ("Different answers", "both right or both wrong, but not the same"),
}


def target_name(target: str) -> str:
    known = backends()
    return known[target].title if target in known else target


# -- what comes first ------------------------------------------------------------------------------------


def tiles(report: Report) -> list[dict[str, str]]:
    """The verdict in a few figures: {"name", "value", "note", "state"}; state is good, bad or plain."""
    gate, accuracy, quantization = report.gate, report.accuracy, report.quantization
    before, after = accuracy.reference, accuracy.candidate
    found = [
        _tile("Exact-solve accuracy", percent(after.exact), f"float {percent(before.exact)}, n = {gate.n}"),
        _tile(
            "Drop",
            f"{points(gate.drop_points)} points",
            f"95 % interval {span(gate.drop_interval)}; {gate.max_drop:g} allowed",
            "plain" if gate.drop_points <= gate.max_drop else "bad",
        ),
        _tile(
            "McNemar’s test",
            f"p = {chance(gate.p_value)}",
            f"{gate.lost} lost, {gate.won} won; {'no' if gate.p_value >= 0.05 else 'a'} significant difference",
        ),
        _tile(
            "Same halting step",
            percent(report.halting.agree, 1),
            f"mean {number(before.steps_mean)} → {number(after.steps_mean)} segments",
        ),
    ]
    if quantization and quantization.weights_bytes:
        low, full = quantization.weights_bytes, quantization.float_weights_bytes
        found.append(_tile("Weights", f"{times(full / low)} smaller", f"{size(low)} instead of {size(full)}"))
    found += _speed_tiles(report)
    if quantization and quantization.products:
        products = quantization.products
        whole = products.found >= products.expected
        found.append(
            _tile(
                "Low-precision products",
                f"{products.found} of {products.expected}",
                "compiled as such by the backend" if whole else "compiled as such: the others run in float",
                "plain" if whole else "bad",
            )
        )
    return found


def _speed_tiles(report: Report) -> list[dict[str, str]]:
    speed = report.speed
    if not speed or speed.own is None:
        return []
    target = target_name(report.bundle.target)
    ratios = [(speed.ratio_vs_eager, "PyTorch eager"), (speed.ratio_vs_float, f"{target} in fp32")]
    known = [(times(ratio), f"against {what}") for ratio, what in ratios if ratio is not None]
    milliseconds = f"{number(speed.rows[speed.own].ms_per_segment)} ms per segment"
    if not known:
        return [_tile("Time", milliseconds, "of one batch, halting off")]
    also = "".join(f"; {value} {what}" for value, what in known[1:])
    return [_tile("Speed", known[0][0], f"{known[0][1]}{also}; {milliseconds}")]


def _tile(name: str, value: str, note: str, state: str = "plain") -> dict[str, str]:
    return {"name": name, "value": value, "note": note, "state": state}


# -- sentences -------------------------------------------------------------------------------------------


def verdict(gate: Verdict) -> str:
    """The gate's own line, for beside a badge that says how it ended."""
    return gate.reason.removeprefix("passed ")


def origin(summary: Differences) -> str:
    """Where the answers that differ came apart."""
    if not summary.followed:
        return "No answer among them differs."
    text = f"{summary.followed} answers that differ were followed."
    if summary.segment_median is not None:
        text += f" Their guesses first differ after segment {summary.segment_median:g} (median)"
        if summary.margin_median is not None:
            text += (
                ", in cells where the float model’s best symbol led the second by "
                f"{number(summary.margin_median)} logits (median; at most {number(summary.margin_max)})"
            )
        text += "."
    if summary.only_stops:
        text += f" In {summary.only_stops} the guesses are the same, but one stops earlier than the other."
    return text


def began(puzzle: Puzzle) -> str:
    """The same for one puzzle; empty where nobody looked."""
    start = puzzle.began
    if start is None:
        return ""
    cells = f"{start.cells} cell" + ("s" if start.cells != 1 else "")
    text = f"Guesses first differ after segment {start.segment}, in {cells}"
    return text + (f"; float margin there {number(start.margin)}." if start.margin is not None else ".")


def calibration(quantization: Quantization) -> str:
    """What the activation scales come from."""
    used = quantization.calibration
    assert used is not None
    smooth = f", SmoothQuant {used.smooth:g}" if used.smooth else ""
    learned = " The scales were then learned by quantization-aware training." if quantization.trained else ""
    measured = used.measured
    apart = (
        f"{measured} puzzles or solutions of them MEASURED ON as well" if measured else "none of them measured on"
    )
    return (
        f"{used.n} puzzles of {used.puzzles}, {apart}; segments: {used.segments}; "
        f"{count(used.samples)} samples; range estimator: {used.estimator}{smooth}.{learned}"
    )


# -- figures as people read them -------------------------------------------------------------------------

_NOTHING = "–"


def percent(fraction: float | None, digits: int = 2) -> str:
    """0.6875 → "68.75 %"; what is not 0 is not shown as 0."""
    if fraction is None:
        return _NOTHING
    value = 100 * fraction
    if 0 < value < 0.5 * 10**-digits:
        return f"{value:.1g} %" if value >= 1e-6 else f"< {1e-6:.6f} %"
    return f"{value:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of percentages, its minus a real one: 0.5 → "0.50"."""
    if value is None:
        return _NOTHING
    return f"{value:.2f}".replace("-", "−") if f"{value:.2f}" != "-0.00" else "0.00"


def span(pair: Sequence[float] | None) -> str:
    """An interval in points: "−0.31 to 1.42"."""
    return _NOTHING if pair is None else f"{points(pair[0])} to {points(pair[1])}"


def cosine(value: float | None) -> str:
    """Four digits, and only a real 1 shown as such."""
    if value is None:
        return _NOTHING
    return "1" if value == 1 else f"{min(value, 0.9999):.4f}" if value < 1 else "1.0000"


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where people expect none."""
    if value is None:
        return _NOTHING
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}".replace(",", " ").replace("-", "−")


def count(value: float) -> str:
    """A whole number in groups of three."""
    return f"{value:,}".replace(",", " ")


def chance(p: float) -> str:
    """A p-value: "0.34", "< 0.0001"."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def size(value: float | None) -> str:
    """Bytes as MB of 10⁶, or kB."""
    if value is None:
        return _NOTHING
    return f"{value / 1e6:.2f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB"


def times(ratio: float | None) -> str:
    """A ratio: "3.4×"."""
    if ratio is None:
        return _NOTHING
    return f"{ratio:.2f}×" if ratio < 0.995 else f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:.0f}×"


def capitalize_first(text: str) -> str:
    """The beginning of a sentence whose full stop the template sets; other capitals stay."""
    return (text[:1].upper() + text[1:]).rstrip(".")


FILTERS = (percent, points, span, cosine, number, count, chance, size, times, markdown, capitalize_first)
