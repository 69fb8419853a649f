"""A benchmark for people: its tables, on the terminal and as Markdown, and its plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..measure.ceilings import MEMORY
from ..measure.cold import STAGES
from ..report.colours import page_colours
from ..report.svg import drawable
from .plots import picture
from .tables import Table

if TYPE_CHECKING:
    import numpy as np

    from ..measure.speed import SpeedRow
    from .bench_record import BenchRecord, Change

_NONE = "–"
_SHOWN = 0.01


@dataclass(frozen=True)
class Tables:
    """Several, one after the other, each under its heading."""

    parts: Sequence[tuple[str, Table]]

    def markdown(self) -> str:
        return "\n".join(f"## {title}\n\n{table.markdown()}" for title, table in self.parts)


def bench_tables(record: BenchRecord, changes: Sequence[Change] = ()) -> Tables:
    """Engines, ceilings, cold starts, puzzles a second and changes; what was not measured has no table."""
    parts = [("Engines", _engines(record)), ("The machine's ceilings", _ceilings(record))]
    if record.cold:
        parts.append(("Cold start", _cold(record)))
    if record.throughput:
        parts.append(("Puzzles a second", _throughput(record)))
    if record.profile:
        parts.append(("Where a segment's time goes", _profile(record)))
    if changes:
        parts.append(("Then and now", _changes(changes)))
    return Tables(parts)


def _engines(record: BenchRecord) -> Table:
    crossed = len({(row.threads, row.batch) for row in record.rows}) > 1
    head = [
        "engine",
        "runs as",
        *(["threads", "batch"] if crossed else []),
        "ms/segment",
        "95 %",
        "CPU ms",
        "waited",
    ]
    head += [
        "× eager",
        "95 %",
        "of ceiling",
        "by CPU time",
        "of memory",
        "ms/puzzle",
        "ms/solved",
        "exact",
        "size MB",
    ]
    rows = []
    for row in record.rows:
        cells = [row.engine, f"{row.backend} {row.precision}, {row.loop} loop"]
        cells += [str(row.threads), str(row.batch)] if crossed else []
        cells += [f"{row.ms_per_segment:.2f}", _between(row.ms_per_segment_interval, 2)]
        cells += [f"{row.cpu_ms_per_segment:.2f}", f"{row.waiting:.0%}"]
        cells += [_number(row.ratio_vs_eager, 2), _between(row.ratio_vs_eager_interval, 2)]
        cells += [_percent(row.of_ceiling), _percent(row.of_ceiling_cpu), _percent(row.of_memory)]
        cells += [_number(row.ms_per_puzzle, 1), _number(row.ms_per_solved, 1), _percent(row.exact, 1)]
        rows.append([*cells, f"{row.size_mb:.2f}"])
    first = record.rows[0]
    told = "" if crossed else f", {first.threads} threads, batch {first.batch}"
    notes = [
        f"Medians of {record.rounds} interleaved rounds{told}, on {record.machine}. A segment: calls of "
        f"{record.segments} with halting off, of the whole batch. × eager and of ceiling: medians of the rounds' "
        "own ratios, of rounds in which at most a fifth went by waiting for a CPU. Of ceiling: what the products "
        "take at the fastest rates below; by CPU time: of all threads together, which other work changes less. Of "
        "memory: what their operands take to be moved once.",
    ]
    if record.n:
        notes.append(f"A puzzle: learned halting, {record.n} puzzles of {record.puzzles}.")
    return Table(head, rows, 2, [*notes, *record.notes])


def _ceilings(record: BenchRecord) -> Table:
    rows = [
        [row.by, row.kind, str(row.threads), f"{row.giga:.1f}", _between(row.giga_interval, 1)]
        for row in record.ceilings
    ]
    note = f"10⁹ operations a second of a square product, in the same rounds; {MEMORY}: 10⁹ bytes read or written."
    return Table(["library", "product", "threads", "G/s", "95 %"], rows, 2, [note])


def _cold(record: BenchRecord) -> Table:
    head = ["engine", "runs as", *STAGES, "total s", "CPU s", "peak MB", "above the bare backend"]
    rows = [
        [
            *(row.engine, row.backend),
            *(f"{row.seconds[stage]:.2f}" for stage in STAGES),
            *(f"{row.total:.2f}", f"{sum(row.cpu.values()):.2f}"),
            *(_number(row.peak_rss_mb, 0), _number(row.above_bare_mb, 0)),
        ]
        for row in record.cold
    ]
    processes = max(row.processes for row in record.cold)
    note = (
        f"Seconds of a process of its own, medians of {processes}: start of the interpreter, import of the "
        "backend's library, opening (hashing) the artifact, compiling it, and the first answer, of two segments."
    )
    return Table(head, rows, 2, [note])


def _throughput(record: BenchRecord) -> Table:
    head = ["engine", "runs as", "called by", "puzzles/s", "95 %", "waited"]
    rows = [
        [
            *(row.engine, f"{row.backend} {row.precision}, {row.loop} loop"),
            f"{row.streams} stream{'s' * (row.streams > 1)}" if row.streams else "one call a puzzle",
            *(f"{row.puzzles_per_second:.1f}", _between(row.puzzles_per_second_interval, 1), f"{row.waiting:.0%}"),
        ]
        for row in record.throughput
    ]
    return Table(head, rows, 3, ["Learned halting, one thread a stream; streams: the scheduler's."])


def _profile(record: BenchRecord) -> Table:
    """What is below one part in a hundred is left out here, and stands in the JSON."""
    rows = [
        [
            *(row.engine, row.operator, row.kernel or _NONE),
            *(str(row.count), f"{row.ms:.3f}", f"{row.share:.1%}"),
        ]
        for row in record.profile
        if row.share >= _SHOWN
    ]
    note = "Compiled operators of one segment, one row, by the backends' own profilers; bundles with a host loop."
    return Table(["engine", "operator", "kernel", "n", "ms", "share"], rows, 3, [note])


def _changes(changes: Sequence[Change]) -> Table:
    rows = [
        [
            *(change.what, change.verdict, change.by),
            *(f"{change.then:.3g}", _between(change.then_interval, 3), f"{change.now:.3g}"),
            *(_between(change.now_interval, 3), f"{change.now / change.then:.2f}"),
        ]
        for change in changes
    ]
    note = "Slower or faster: the medians' intervals lie apart, and the medians by more than 5 %."
    return Table(["engine", "", "by", "then", "95 %", "now", "95 %", "×"], rows, 3, [note])


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return _NONE if value is None else f"{value:.{digits}%}"


def _between(interval: tuple[float, float] | None, digits: int) -> str:
    return _NONE if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


# -- the plot ------------------------------------------------------------------------------------------


def bench_picture(record: BenchRecord, kind: str) -> bytes:
    """By number of threads and of rows: milliseconds a segment, and the share of the ceiling."""
    cells: dict[tuple[int, int], list[SpeedRow]] = {}
    for row in record.rows:
        cells.setdefault((row.threads, row.batch), []).append(row)
    most = max(map(len, cells.values()))

    def draw(axes: np.ndarray) -> None:
        page = page_colours()
        for (left, right), ((threads, batch), rows) in zip(axes, cells.items(), strict=True):
            where: Any = range(len(rows))
            names = [f"{_short(row)} {row.precision}, {row.loop}" for row in rows]
            colours = [page["soft" if row.backend.startswith("torch") else _COLOUR.get(row.precision, "low")]
                       for row in rows]  # fmt: skip
            times = [row.ms_per_segment for row in rows]
            least = [max(0.0, row.ms_per_segment - row.ms_per_segment_interval[0]) for row in rows]
            largest = [max(0.0, row.ms_per_segment_interval[1] - row.ms_per_segment) for row in rows]
            left.barh(where, times, 0.7, color=colours, xerr=[least, largest], ecolor=page["ink"], capsize=2)
            left.set_xscale("log")
            left.set_yticks(where, [drawable(name) for name in names])
            left.invert_yaxis()
            left.set_xlabel(f"ms a segment, {threads} threads, batch {batch}")
            right.barh(where, [100 * (row.of_ceiling or 0) for row in rows], 0.7, color=colours)
            right.set_yticks(where, [_NONE if row.of_ceiling is None else "" for row in rows])
            right.invert_yaxis()
            right.set_xlim(0, 100)
            right.set_xlabel("of the machine's matrix products, %")

    return picture(draw, len(cells), 2, kind, scale=max(1.0, most / 11))


_COLOUR = {"fp32": "float", "bf16": "teal", "fp16": "teal", "int8": "low"}


def _short(row: SpeedRow) -> str:
    return f"{row.backend} (naive)" if row.engine == "naive export" else row.backend
