"""The rules of `hrm-edge check`: one function each, with its unit, what it needs and its line of documentation.

A new rule is one function here. The spec's keys and their ranges, what is measured, verdicts, tables, JSON, JUnit,
`--help` and this folder's README derive from `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..measure.statistics import median_interval, percent
from .findings import Finding, paired_drop, proportion, timing, with_worst

if TYPE_CHECKING:
    from ..bundle.quantization import Products
    from .measure import Measurement

# data: puzzles to answer. checkpoint: the float checkpoint, and with it PyTorch. speed: timed rounds against it.
# compiled: what the backend compiles of the bundle here.
Need = Literal["data", "checkpoint", "baseline", "speed", "compiled"]
# (what was measured, the limit, label of the data set or None where none is needed) → finding
Find = Callable[["Measurement", float, Any], Finding]

NO_MOST = 1e9  # the largest limit where a unit has none


@dataclass(frozen=True)
class Unit:
    """What a limit is a number of: from `low` to `high`, both inclusive. Figures are printed times `scale`."""

    name: str
    low: float
    high: float
    suffix: str
    scale: float = 1

    @property
    def expected(self) -> str:
        """What a limit must be."""
        up_to = f"of at least {self.low:g}" if self.high == NO_MOST else f"between {self.low:g} and {self.high:g}"
        return f"a number {up_to} ({self.name})"

    def read(self, value: Any) -> float:
        """A limit as the spec gives it. Raises ValueError, which says what it must be."""
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            raise ValueError(f"must be {self.expected}, not {shown(value)}")
        return float(value)

    def figures(self, *values: float) -> str:
        """Figures in a table: "1.25 points", "90.00 to 95.00 %"."""
        return " to ".join(f"{self.scale * value:.2f}" for value in values) + self.suffix

    def limit(self, value: float) -> str:
        """A limit in a table."""
        return self.figures(value)

    def setting(self, value: float) -> str:
        """A limit behind its rule's name, in a line."""
        return f" = {value:g}"

    def json(self, value: float) -> float | bool:
        return value


class Flag(Unit):
    """A limit that is `true`, or not there at all. Figures are printed as those of a number."""

    @property
    def expected(self) -> str:
        return "true"

    def read(self, value: Any) -> float:
        if value is not True:
            raise ValueError(
                f"must be {self.expected}, not {shown(value)}; leave the line out where it need not be"
            )
        return 1.0

    def limit(self, value: float) -> str:
        return "yes"

    def setting(self, value: float) -> str:
        return ""

    def json(self, value: float) -> bool:
        return True


FRACTION = Unit("a fraction", 0, 1, " %", 100)
POINTS = Unit("points", 0, 100, " points")
MEGABYTES = Unit("10⁶ bytes", 0, NO_MOST, " MB")
SPEED_RATIO = Unit("times the float checkpoint's speed", 0, NO_MOST, "×")
TRUE = Flag("true", 1, 1, " %", 100)


@dataclass(frozen=True)
class Rule:
    """One rule that a check may hold bundles to. It is judged once a data set when it needs data, else once."""

    name: str
    unit: Unit
    needs: frozenset[Need]
    text: str  # its documentation: one line
    find: Find


RULES: dict[str, Rule] = {}


def rule(unit: Unit, *needs: Need) -> Callable[[Find], Rule]:
    """Register a function as the rule of its name, which its docstring documents."""

    def register(find: Find) -> Rule:
        name = find.__name__
        RULES[name] = Rule(name, unit, frozenset(needs), " ".join((find.__doc__ or "").split()), find)
        return RULES[name]

    return register


def shown(value: Any) -> str:
    """A value of the spec, in a message."""
    try:
        return repr(value)[:60]
    except ValueError:  # a whole number of thousands of digits
        return "that"


# -- the rules, in the order in which they are judged --------------------------------------------------


@rule(FRACTION, "data")
def min_exact(measured: Measurement, limit: float, data: Any) -> Finding:
    """at least this fraction of the puzzles is solved"""
    sample = measured.samples[data]
    found = proportion(sample.right, limit, "solved")
    return found if found.good else with_worst(found, sample, ~sample.right)


@rule(POINTS, "data", "checkpoint")
def max_drop(measured: Measurement, limit: float, data: Any) -> Finding:
    """exact-solve accuracy is at most this far below the float checkpoint's, puzzle for puzzle"""
    sample = measured.samples[data]
    assert sample.reference_right is not None
    return paired_drop(sample, sample.reference_right, limit, "the float checkpoint")


@rule(POINTS, "data", "baseline")
def max_drop_vs_baseline(measured: Measurement, limit: float, data: Any) -> Finding:
    """exact-solve accuracy is at most this far below the baseline's, puzzle for puzzle"""
    assert measured.case.baseline is not None
    return paired_drop(measured.samples[data], measured.case.baseline.data[data].bits(), limit, "the baseline")


@rule(FRACTION, "data", "checkpoint")
def min_agreement(measured: Measurement, limit: float, data: Any) -> Finding:
    """at least this fraction of the whole answers equals the float checkpoint's, right or wrong"""
    sample = measured.samples[data]
    assert sample.reference is not None
    wanted = sample.reference.tokens
    agree = (sample.answers.tokens == wanted).all(axis=1)
    found = proportion(agree, limit, "answered as the float checkpoint does")
    return found if found.good else with_worst(found, sample, ~agree, wanted)


@rule(MEGABYTES)
def max_size_mb(measured: Measurement, limit: float, _: Any) -> Finding:
    """all files of the bundle together are at most this large"""
    size = measured.size_mb
    return Finding(size, f"{size:.3f} MB", size <= limit)


@rule(FRACTION, "checkpoint", "baseline", "speed")
def max_speed_loss(measured: Measurement, limit: float, _: Any) -> Finding:
    """the ratio to the float checkpoint's speed is at most this part below the baseline's; compare on the same
    kind of CPU"""
    entry, speed = measured.case.baseline, measured.speed
    assert entry is not None
    assert entry.speed_ratio is not None
    assert speed is not None
    before = entry.speed_ratio
    low, high = median_interval(speed.rounds)
    loss = 1 - speed.ratio / before
    text = f"{speed.ratio:.2f} times the float checkpoint's speed, {before:.2f} in the baseline"
    spread = (1 - high / before, 1 - low / before)
    return timing(speed, loss, f"{text}: lost {percent(loss)}", loss <= limit, spread, limit)


@rule(SPEED_RATIO, "checkpoint", "speed")
def min_speed_ratio(measured: Measurement, limit: float, _: Any) -> Finding:
    """the bundle is at least so many times as fast as the float checkpoint, in interleaved rounds"""
    speed = measured.speed
    assert speed is not None
    text = f"{speed.ratio:.2f} times the float checkpoint's speed"
    return timing(speed, speed.ratio, text, speed.ratio >= limit, median_interval(speed.rounds), limit)


@rule(TRUE, "compiled")
def quantized(measured: Measurement, _: float, __: Any) -> Finding:
    """every low-precision product that the bundle's quantization record expects is compiled as such here"""
    record = measured.case.quantization
    if record is None:
        precision = measured.case.artifact.precision
        return Finding(0, f"nothing is quantized in this {precision} bundle (it has no record of it)", False)
    told, here = record.products, measured.case.compiled
    if told is None or told.expected < 1:
        return Finding(0, "its record does not tell of any low-precision product; export it again", False)
    at_export = _compiled(told, "were compiled as such at its export")
    if here is None and at_export.good:
        return replace(at_export, sure=False, doubt="its backend does not tell what it compiles here")
    return _compiled(here, "are compiled as such here") if here and at_export.good else at_export


def _compiled(products: Products, words: str) -> Finding:
    text = f"{products.found} of {products.expected} expected low-precision products {words}"
    if products.missing:
        text += f"; not {', '.join(products.missing[:3])}{', …' if len(products.missing) > 3 else ''}"
    if products.kinds:  # what the record lets be in float is no fault, but seen
        text += f"; {sum(products.kinds.values())} products in all"
    good = products.found >= products.expected and not products.missing
    return Finding(products.found / products.expected, text, good)
