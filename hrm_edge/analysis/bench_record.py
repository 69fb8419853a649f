"""What `hrm-edge bench --json` prints and `--compare` reads, and what noise does not explain between two."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from ..errors import InputError
from ..files import read_text
from ..measure.speed import CeilingRow, SpeedRow
from ..records import STRICT, Count, Fraction, MaybeSize, OneOrMore, Size, from_json, newer_version

FORMAT_VERSION = 1
_LARGEST = 16 * 2**20  # bytes
# A change is told where the medians' intervals at 95 % lie apart, and the medians by more than this: at equal speed
# two such intervals lie apart less than once in a hundred times.
APART = 0.05


@dataclass(frozen=True, config=STRICT)
class ColdRow:
    """Medians over processes that did nothing else; see :class:`~..measure.cold.ColdStart`."""

    engine: str
    backend: str
    seconds: dict[str, float]
    cpu: dict[str, float]
    total: Size
    processes: OneOrMore
    peak_rss_mb: MaybeSize
    above_bare_mb: float | None


@dataclass(frozen=True, config=STRICT)
class Throughput:
    """Puzzles a second with learned halting. ``streams`` 0: the engine alone, one call a puzzle."""

    engine: str
    backend: str
    precision: str
    loop: str
    streams: Count
    threads: OneOrMore
    puzzles_per_second: Size
    puzzles_per_second_interval: tuple[Size, Size]
    waiting: Fraction


@dataclass(frozen=True, config=STRICT)
class ProfileRow:
    """What a segment of one engine spends in one kind of compiled operator, one row of puzzles; see `--profile`."""

    engine: str
    backend: str
    precision: str
    threads: OneOrMore
    operator: str
    kernel: str
    count: OneOrMore
    ms: Size
    share: Fraction


@dataclass(frozen=True, config=STRICT)
class BenchRecord:
    """Everything that one run measured, and where. ``source``: the content hash of the first artifact's weights.

    ``n``: puzzles that were answered with learned halting; ``waiting``: the worst share of the time, of any number
    of threads and rows, in which a thread waited for a CPU.
    """

    hrm_edge: str
    machine: str
    features: tuple[str, ...]
    packages: dict[str, str]
    source: str
    task: str
    puzzles: str
    n: Count
    rounds: OneOrMore
    segments: OneOrMore
    seconds: Size
    waiting: Fraction
    rows: tuple[SpeedRow, ...]
    ceilings: tuple[CeilingRow, ...]
    cold: tuple[ColdRow, ...]
    throughput: tuple[Throughput, ...]
    profile: tuple[ProfileRow, ...]
    notes: tuple[str, ...]
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


@dataclass(frozen=True, config=STRICT)
class Change:
    """One engine then and now, by a ratio that was taken within each round: larger is faster.

    ``by``: × eager, or the share of the ceiling where a run had no eager. ``verdict``: "same": noise explains it.
    """

    what: str
    by: str
    then: float
    then_interval: tuple[float, float]
    now: float
    now_interval: tuple[float, float]
    verdict: Literal["same", "faster", "slower"]

    @property
    def line(self) -> str:
        """For people."""
        then, now = ("{:.3g} ({:.3g} to {:.3g})".format(*each) for each in (
            (self.then, *self.then_interval), (self.now, *self.now_interval)
        ))  # fmt: skip
        return f"{self.what}: {self.verdict}, {self.by} {then} → {now}, {self.now / self.then:.2f} ×"


def read_record(path: Path) -> BenchRecord:
    """What `bench --json` or `-o FILE.json` wrote. InputError: it is none, damaged, or newer."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: is too large to be what `hrm-edge bench --json` prints")
        text = read_text(path)
        content = json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is no JSON; give what `hrm-edge bench -o FILE.json` wrote") from None
    advice = "give what `hrm-edge bench -o FILE.json` wrote"
    if newer_version(content, FORMAT_VERSION):
        raise InputError(f"{path}: was written by a newer hrm-edge")
    return from_json(BenchRecord, json.dumps(content), path, advice)


def compare(then: BenchRecord, now: BenchRecord) -> tuple[list[Change], list[str]]:
    """Every engine that both runs have, and what qualifies the comparison."""
    notes = []
    if (then.machine, then.features) != (now.machine, now.features):
        notes.append(f"another kind of CPU then ({then.machine}): ratios differ between kinds")
    if then.source != now.source:
        notes.append("other weights then: learned halting and accuracy are not compared, times of a segment are")
    others = [f"{name} {then.packages.get(name, 'none')} → {version}" for name, version in now.packages.items()
              if then.packages.get(name) != version]  # fmt: skip
    if others:
        notes.append(f"other versions then: {', '.join(others)}")
    before = {_key(row): row for row in then.rows}
    changes = []
    for row in now.rows:
        old = before.get(_key(row))
        if old is None:
            continue
        change = _change(old, row)
        if change is None:
            notes.append(f"{_name(row)}: not compared, as one of the runs has no ratio of it")
        else:
            changes.append(change)
    if not changes and not notes:
        notes.append("the runs have no engine in common")
    return changes, notes


def slower(changes: Iterable[Change]) -> list[Change]:
    return [change for change in changes if change.verdict == "slower"]


def _key(row: SpeedRow) -> tuple[str, str, str, int, int, bool]:
    # A naive export differs from ours in nothing else.
    return row.backend, row.precision, row.loop, row.batch, row.threads, row.engine == "naive export"


def _name(row: SpeedRow) -> str:
    naive = "naive " if _key(row)[-1] else ""
    return f"{naive}{row.backend} {row.precision}, {row.loop} loop, batch {row.batch}, {row.threads} threads"


def _change(then: SpeedRow, now: SpeedRow) -> Change | None:
    for by, field in (("× eager", "ratio_vs_eager"), ("of ceiling", "of_ceiling")):
        old, new = getattr(then, field), getattr(now, field)
        if old is None or new is None or (now.backend == "torch" and field == "ratio_vs_eager"):
            continue
        old_interval, new_interval = (getattr(row, f"{field}_interval") for row in (then, now))
        return Change(
            _name(now), by, old, old_interval, new, new_interval, _verdict(old, old_interval, new, new_interval)
        )
    return None


def _verdict(
    then: float, then_interval: tuple[float, float], now: float, now_interval: tuple[float, float]
) -> Literal["same", "faster", "slower"]:
    if now_interval[1] < then_interval[0] and now < (1 - APART) * then:
        return "slower"
    if now_interval[0] > then_interval[1] and now > then / (1 - APART):
        return "faster"
    return "same"
