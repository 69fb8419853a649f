"""The benchmark's record: a row an export, kept beside the bundles so that what is done is not done again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from ..bundle import open_bundle
from ..errors import InputError
from ..files import read_text, write_atomically
from ..records import STRICT, Count, MaybeFraction, MaybeSize, OneOrMore, Size, from_json, newer_version

FORMAT_VERSION = 1
RECORD, PAGE, PLOT = "benchmark.json", "benchmark.md", "benchmark.png"
_LARGEST = 16 * 2**20  # bytes

# runs: exported, and run here by what it is for. built: exported, and another answered in the device's place.
# failed: it answers worse than allowed, or is not what was asked for. absent: it cannot be made here.
State = Literal["runs", "built", "failed", "absent"]


@dataclass(frozen=True, config=STRICT)
class Row:
    """One target in one precision. None: nobody measured it, or it cannot be measured here.

    ``key``: all that the row depends on but the time; ``bundle``: its folder beside the record, ``manifest`` that
    one's hash. MB are 10⁶ bytes; ``seconds`` it took to make; ``speedup``: over PyTorch's eager mode, a segment.
    """

    key: str
    target: str
    precision: str
    loop: str | None
    state: State
    note: str | None  # what stood in, or why it failed or is absent
    bundle: str | None = None
    manifest: str | None = None
    size_mb: MaybeSize = None
    n: Count | None = None
    exact_reference: MaybeFraction = None
    exact: MaybeFraction = None
    lost: Count | None = None
    won: Count | None = None
    peak_mb: MaybeSize = None
    ms_per_puzzle: MaybeSize = None
    ms_per_segment: MaybeSize = None
    speedup: MaybeSize = None
    ram_bytes: Count | None = None
    flash_bytes: Count | None = None
    instructions: Count | None = None
    emulated: str | None = None
    seconds: Size = 0.0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.target} {self.precision}"

    @property
    def stored_mb(self) -> float | None:
        """What a device stores, in 10⁶ bytes: the bundle or, of source, what it is compiled to."""
        return self.size_mb if self.flash_bytes is None else self.flash_bytes / 1e6

    @property
    def drop(self) -> float | None:
        """Points of exact-solve accuracy that it lost."""
        return None if self.n is None or self.lost is None else 100 * (self.lost - (self.won or 0)) / self.n


@dataclass(frozen=True, config=STRICT)
class Benchmark:
    """What was measured: ``rows`` in the order of the targets, and how.

    ``reference``: PyTorch's eager mode on the checkpoint, which is no candidate. ``timed``: the key of the times.
    """

    checkpoint: str
    checkpoint_hash: str
    task: str
    puzzles: str | None  # that accuracy was compared on; None: it was not
    machine: str
    threads: OneOrMore
    seconds: Size
    rows: tuple[Row, ...]
    reference: Row | None = None
    timed: str | None = None
    format_version: int = FORMAT_VERSION

    @property
    def best(self) -> list[Row]:
        """The Pareto set: rows than which none is smaller, faster and more accurate at once."""
        known = [row for row in self.rows if row.state == "runs" and row.ms_per_puzzle is not None]
        return [row for row in known if not any(_dominates(other, row) for other in known)]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``hrm-edge benchmark --json``."""
        return {**asdict(self), "pareto": [row.name for row in self.best]}


def _dominates(row: Row, other: Row) -> bool:
    mine, theirs = (_costs(each) for each in (row, other))
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def _costs(row: Row) -> tuple[float, float, float]:
    return row.stored_mb or 0.0, row.ms_per_puzzle or 0.0, -(row.exact or 0.0)


def read_benchmark(folder: Path) -> Benchmark | None:
    """The record in a folder; None where there is none. InputError where it is something else, or damaged."""
    file = folder / RECORD
    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(f"{file}: is too large to be a benchmark's; choose another folder with -o")
        content = json.loads(read_text(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); choose another folder with -o") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file}: is no benchmark; choose another folder with -o") from None
    if newer_version(content, FORMAT_VERSION):
        raise InputError(f"{file}: was written by a newer hrm-edge; choose another folder with -o")
    return from_json(Benchmark, json.dumps(content), file, "remove it, or choose another folder with -o")


def write_benchmark(folder: Path, benchmark: Benchmark) -> None:
    """Keep what is done so far, whole or not at all."""
    write_atomically(folder / RECORD, json.dumps(asdict(benchmark), indent=2) + "\n")


def kept_rows(folder: Path, rows: Sequence[Row]) -> dict[str, Row]:
    """By key, those whose bundle still stands as it was made, and those that failed their gate.

    What could not be made is tried again: a full disk or a compiler that was missing may have been why.
    """
    return {row.key: row for row in rows if _stands(folder, row)}


def _stands(folder: Path, row: Row) -> bool:
    """Whether a row's bundle is whole, and came to what the row says of it."""
    if row.bundle is None:
        return row.state == "failed"
    if row.bundle != Path(row.bundle).name:
        return False  # elsewhere
    try:
        bundle = open_bundle(folder / row.bundle)
    except InputError:
        return False
    found = bundle.accuracy
    told = (
        (None,) * 5
        if found is None
        else (found.n, found.lost, found.won, found.reference.exact, found.bundle.exact)
    )
    return (bundle.sha256, *told) == (row.manifest, row.n, row.lost, row.won, row.exact_reference, row.exact)
