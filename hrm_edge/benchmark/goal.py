"""`export --goal size=500KB,ms=10,drop=0.5`: which row of a benchmark fits, and is best in the order stated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from .rows import Benchmark, Row

# In 10⁶ bytes.
_UNITS = {
    "": 1e-6,
    "b": 1e-6,
    "kb": 1e-3,
    "mb": 1.0,
    "gb": 1e3,
    "kib": 2**10 / 1e6,
    "mib": 2**20 / 1e6,
    "gib": 2**30 / 1e6,
}


@dataclass(frozen=True)
class _Measure:
    """One thing that a goal limits: a row's value (None: unknown), and how people read and write it."""

    value: Callable[[Row], float | None]
    unit: str
    read: Callable[[str], float | None]


def _megabytes(text: str) -> float | None:
    found = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", text.lower())
    return None if not found or found[2] not in _UNITS else _plain(found[1], _UNITS[found[2]])


def _plain(text: str, unit: float = 1.0) -> float | None:
    try:
        value = float(text) * unit
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _milliseconds(text: str) -> float | None:
    return _plain(text.lower().removesuffix("ms"))


_MEASURES = {
    "size": _Measure(lambda row: row.stored_mb, "MB", _megabytes),
    "ms": _Measure(lambda row: row.ms_per_puzzle, "ms", _milliseconds),
    "drop": _Measure(lambda row: row.drop, "points", _plain),
    "memory": _Measure(lambda row: row.peak_mb, "MB", _megabytes),
}


@dataclass(frozen=True)
class Goal:
    """What an export must keep, in order of importance: ``limits`` by name, at most."""

    limits: dict[str, float]

    @property
    def drop(self) -> float | None:
        """Points of accuracy that may be lost, where the goal says so."""
        return self.limits.get("drop")

    @property
    def needs_time(self) -> bool:
        """Whether only what runs here can keep it."""
        return bool({"ms", "memory"} & self.limits.keys())

    def choose(self, result: Benchmark) -> Row:
        """The row that keeps all limits and is least in the first, then in the second and so on.

        InputError, which names the nearest one, where none does.
        """
        made = [row for row in result.rows if row.bundle is not None]
        if not made:
            raise InputError(f"--goal {self}: nothing that was exported passed its gate; allow more with drop=")
        fitting = [row for row in made if self._excess(row) <= 1]
        if fitting:
            return min(fitting, key=self._order)
        known = [row for row in made if math.isfinite(self._excess(row))]
        if not known:
            raise InputError(f"--goal {self}: nothing that was exported tells all of these; leave some out")
        nearest = min(known, key=lambda row: (self._excess(row), self._order(row)))
        raise InputError(f"--goal {self}: nothing fits; nearest is {nearest.name} with {self.said(nearest)}")

    def __str__(self) -> str:
        """As :func:`read_goal` reads it."""
        sizes = {name for name, measure in _MEASURES.items() if measure.unit == "MB"}
        return ",".join(f"{name}={limit:.9g}{'MB' * (name in sizes)}" for name, limit in self.limits.items())

    def _order(self, row: Row) -> list[float]:
        names = dict.fromkeys([*self.limits, "size", "ms"])
        return [math.inf if (value := _MEASURES[name].value(row)) is None else value for name in names]

    def _excess(self, row: Row) -> float:
        """How many times the limit is the worst of its values; infinite where one is not known."""
        worst = 0.0
        for name, limit in self.limits.items():
            value = _MEASURES[name].value(row)
            if value is None:
                return math.inf
            worst = max(worst, 0.0 if value <= limit else value / limit if limit else 1e9)
        return worst

    def said(self, row: Row) -> str:
        """What a row has of all that is limited."""
        told = {name: f"{name} {_MEASURES[name].value(row):.4g} {_MEASURES[name].unit}" for name in self.limits}
        if "size" in told and row.flash_bytes is not None:
            told["size"] += " of compiled code and weights"
        return ", ".join(told.values())


def read_goal(text: str) -> Goal:
    """`size=500KB,ms=10,drop=0.5` in the order of importance. InputError: it cannot be read."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, given = (each.strip() for each in part.partition("="))
        value = _MEASURES[name].read(given) if name in _MEASURES else None
        if value is None or name in limits:
            raise InputError(
                f"--goal {text}: {part.strip()!r} is not understood; write {', '.join(_MEASURES)} once each, "
                "as in size=500KB,ms=10,drop=0.5"
            )
        limits[name] = value
    return Goal(limits)
