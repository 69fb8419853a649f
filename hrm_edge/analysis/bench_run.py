"""The run of `hrm-edge bench`: all numbers of threads and rows in turn, cold starts, puzzles from many callers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np

from .. import __version__
from ..data.choose import any_puzzles
from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..measure import speed
from ..measure.arithmetic import cpu
from ..measure.artifact import Artifact, open_artifact
from ..measure.clock import MOST_WAITING, Clock
from ..measure.cold import STAGES, ColdStart, start_cold
from ..measure.speed import SpeedRow
from ..measure.statistics import median_interval
from ..measure.work import Work
from ..packages import version_of
from ..progress import Progress, Say
from ..runtimes import backend
from ..solve.scheduler import Scheduler
from ..tasks.parallel import usable_cores
from .bench_record import BenchRecord, ColdRow, ProfileRow, Throughput

_PACKAGES = ("torch", "onnxruntime", "openvino", "ai-edge-litert")
# Puzzles that wait for streams in one round, for each stream; rounds at the most.
_ASKED, _ROUNDS = 8, 5
_PROFILED = 9  # runs


@dataclass(frozen=True)
class Timing:
    """Something to time: where it lies, or how its engine is made for some threads; and what it has to do."""

    path: Path
    work: Work | None = None
    opened: Callable[[int], Artifact] | None = None

    def open(self, threads: int, streams: int = 1) -> Artifact:
        """``streams``: callers at once, who share the threads."""
        return self.opened(threads) if self.opened else open_artifact(self.path, threads, streams=streams)


@dataclass(frozen=True)
class BenchOptions:
    """What to measure; lists are crossed."""

    threads: tuple[int, ...]
    batches: tuple[int, ...] = (1,)
    rounds: int = 9
    segments: int = 8
    n: int | None = None  # puzzles with learned halting, over all rounds
    cold: int = 1  # processes started for each engine; 0: none
    streams: bool = True
    profile: bool = False
    random_weights: bool = False
    data: Path | None = None

    def per_round(self, batch: int) -> int:
        """Calls with learned halting in every round. Of random weights nothing halts, and nothing is right."""
        if self.random_weights:
            return 0
        return -(-self.n // (self.rounds * batch)) if self.n else (4 if batch == 1 else 1)


@dataclass
class _Found:
    rows: list[SpeedRow] = field(default_factory=list)
    ceilings: list[speed.CeilingRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    puzzles: int = 0


def run_bench(
    timings: Sequence[Timing], options: BenchOptions, say: Say, progress: Progress | None = None
) -> BenchRecord:
    """All figures of all engines. InputError where one is no artifact, or does not take one of the batches."""
    begin, found = time.monotonic(), _Found()
    first = [timing.open(options.threads[0]) for timing in timings]
    most = max(options.rounds * max(1, options.per_round(batch)) * batch for batch in options.batches)
    checkpoint = next((each.checkpoint for each in first if each.checkpoint is not None), None)
    puzzles = any_puzzles(first[0].engine.task, most, options.data, checkpoint)
    cold = _cold_starts(timings, first, options, found.notes, progress)
    for threads in options.threads:
        opened = first if threads == options.threads[0] else [timing.open(threads) for timing in timings]
        for batch in options.batches:
            _cell(timings, opened, puzzles, options, threads, batch, found, say, progress)
    throughput: list[Throughput] = []
    if options.streams and not options.random_weights:
        throughput = _throughput(timings, puzzles, options, found.notes, progress)
    peaks = {(row.engine, row.backend): row.peak_rss_mb for row in cold}
    model, features = cpu()
    return BenchRecord(
        hrm_edge=__version__,
        machine=model,
        features=tuple(features),
        packages={name: version for name in _PACKAGES if (version := version_of(name))},
        source=first[0].source_hash,
        task=first[0].engine.task.name,
        puzzles=puzzles.name,
        n=found.puzzles,
        rounds=options.rounds,
        segments=options.segments,
        seconds=round(time.monotonic() - begin, 1),
        waiting=max(found.waiting, default=0.0),
        rows=tuple(replace(row, peak_rss_mb=peaks.get((row.engine, row.backend))) for row in found.rows),
        ceilings=tuple(found.ceilings),
        cold=tuple(cold),
        throughput=tuple(throughput),
        profile=tuple(_profile(first, options, found.notes)) if options.profile else (),
        notes=tuple(dict.fromkeys(found.notes)),
    )


def _cell(
    timings: Sequence[Timing],
    opened: Sequence[Artifact],
    puzzles: PuzzleSet,
    options: BenchOptions,
    threads: int,
    batch: int,
    found: _Found,
    say: Say,
    progress: Progress | None,
) -> None:
    """One number of threads and of rows; bundles of another fixed batch are left out where others are measured."""
    fitting = [i for i, each in enumerate(opened) if each.engine.batch in (None, batch)]
    left = [each for i, each in enumerate(opened) if i not in fitting]
    if left and len(options.batches) == 1:
        fitting = list(range(len(opened)))  # which says what to do
    elif left:
        found.notes.append(
            f"without {', '.join(each.name for each in left)} in batches of {batch}: others are fixed"
        )
    if not fitting:
        return
    say(f"{len(fitting)} engines, {options.rounds} rounds, {threads} threads, batch {batch}")
    settings = speed.Settings(
        threads=threads,
        batch=batch,
        rounds=options.rounds,
        segments=options.segments,
        per_round=options.per_round(batch),
        memory=False,
        random_weights=options.random_weights,
        ceilings=True,
    )
    parts = [opened[i] for i in fitting]
    report = speed.bench(parts, puzzles, settings, progress, [timings[i].work for i in fitting])
    found.rows += report.rows
    found.ceilings += report.ceilings if batch == options.batches[0] else []
    found.notes += report.notes
    found.waiting.append(report.waiting)
    found.puzzles = max(found.puzzles, report.puzzles if settings.per_round else 0)


def _cold_starts(
    timings: Sequence[Timing],
    opened: Sequence[Artifact],
    options: BenchOptions,
    notes: list[str],
    progress: Progress | None,
) -> list[ColdRow]:
    """Each artifact in processes of its own, in turns, with the first number of threads and of rows."""
    found: list[list[ColdStart]] = [[] for _ in timings]
    for turn in range(options.cold):
        for number, (timing, artifact) in enumerate(zip(timings, opened, strict=True)):
            compiled = artifact.engine.backend == "torch.compile"
            if timing.opened is not None and not compiled:
                continue  # made here, and no file that a process could open
            batch = artifact.engine.batch or options.batches[0]
            cold, why_not = start_cold(timing.path, batch=batch, threads=options.threads[0], compiled=compiled)
            if cold is None:
                notes.append(f"{artifact.label}: no cold start ({why_not})")
            else:
                found[number].append(cold)
            if progress is not None:
                progress("cold starts", turn * len(timings) + number + 1, options.cold * len(timings))
    rows = []
    for artifact, starts in zip(opened, found, strict=True):
        if not starts:
            continue
        peaks, above = ([getattr(start, name) for start in starts] for name in ("peak_rss_mb", "above_bare_mb"))
        rows.append(
            ColdRow(
                engine=artifact.name,
                backend=artifact.engine.backend,
                seconds={stage: median(start.seconds[stage] for start in starts) for stage in STAGES},
                cpu={stage: median(start.cpu[stage] for start in starts) for stage in STAGES},
                total=median(start.total for start in starts),
                processes=len(starts),
                peak_rss_mb=None if None in peaks else median(peaks),
                above_bare_mb=None if None in above else median(above),
            )
        )
    return rows


def _profile(opened: Sequence[Artifact], options: BenchOptions, notes: list[str]) -> Iterator[ProfileRow]:
    """Where the time of a segment goes, of each bundle that has it as a graph of its own."""
    for artifact in opened:
        bundle = artifact.bundle
        if bundle is None or "segment" not in bundle.manifest.graphs:
            continue
        file = bundle.path / bundle.manifest.graphs["segment"]
        times = backend(bundle.manifest.target).profile(file, options.threads[0], _PROFILED)
        if times is None:
            notes.append(f"{artifact.name}: no profile, as {bundle.manifest.target} does not tell")
            continue
        whole = max(1e-9, sum(each.ms for each in times))
        for each in times:
            kind = (artifact.name, artifact.engine.backend, artifact.precision, options.threads[0])
            yield ProfileRow(*kind, each.operator, each.kernel, each.count, each.ms, each.ms / whole)


# -- puzzles from many callers -------------------------------------------------------------------------


def _throughput(
    timings: Sequence[Timing],
    puzzles: PuzzleSet,
    options: BenchOptions,
    notes: list[str],
    progress: Progress | None,
) -> list[Throughput]:
    """Puzzles a second by one call after the other, and by the scheduler with one stream and with one a core.

    A stream has one thread here: several of one are what keeps all cores at work.
    """
    cores = usable_cores()
    ways: list[tuple[Artifact, int]] = []
    for timing in timings:
        alone = timing.open(1)
        if alone.engine.batch not in (None, 1):
            continue
        ways.append((alone, 0))
        if not alone.engine.backend.startswith("torch"):  # it takes one call at a time, whoever asks
            ways += [(alone if streams == 1 else timing.open(cores, cores), streams) for streams in {1, cores}]
    rates: list[list[float]] = [[] for _ in ways]
    waits: list[list[float]] = [[] for _ in ways]
    count = _ASKED * cores
    rounds = min(options.rounds, _ROUNDS)
    for number in range(rounds):
        part = puzzles.select((number * count + np.arange(count)) % len(puzzles))
        for i in [*range(number % len(ways), len(ways)), *range(number % len(ways))]:
            clock = Clock()
            _ask(ways[i][0], part, ways[i][1])
            span = clock.stop()
            rates[i].append(count / span.seconds)
            waits[i].append(span.waiting)
        if progress is not None:
            progress("puzzles from many callers", number + 1, rounds)
    found = []
    if (busy := max(map(median, waits))) > MOST_WAITING:
        notes.append(
            f"puzzles a second are other work's too: up to {busy:.0%} of the time went by waiting for a CPU"
        )
    for (artifact, streams), rate, waited in zip(ways, rates, waits, strict=True):
        found.append(
            Throughput(
                engine=artifact.name,
                backend=artifact.engine.backend,
                precision=artifact.precision,
                loop=artifact.engine.loop,
                streams=streams,
                threads=max(1, streams),
                puzzles_per_second=median(rate),
                puzzles_per_second_interval=median_interval(rate),
                waiting=median(waited),
            )
        )
    return found


def _ask(artifact: Artifact, puzzles: PuzzleSet, streams: int) -> None:
    """``streams`` 0: the engine alone, one call a puzzle."""
    identifiers = puzzles.identifiers
    if streams == 0:
        for i in range(len(puzzles)):
            one = None if identifiers is None else identifiers[i : i + 1]
            artifact.engine.solve(puzzles.questions[i : i + 1], puzzle_identifiers=one)
        return
    with Scheduler(artifact.engine, streams=streams) as scheduler:
        requests = [
            {"tokens": tokens, "puzzle_identifier": None if identifiers is None else int(identifiers[i])}
            for i, tokens in enumerate(puzzles.questions)
        ]
        for _ in scheduler.map(requests):
            pass


def known_lists(flag: str, text: str) -> tuple[int, ...]:
    """`1,8,64`: whole numbers from 1 up, each once. InputError where it is none."""
    numbers = []
    for part in text.split(","):
        if not (part.isascii() and part.isdigit() and 1 <= int(part) <= 100_000):
            raise InputError(f"{flag} {text}: give whole numbers of at least 1, as in {flag} 1,8")
        numbers.append(int(part))
    return tuple(dict.fromkeys(numbers))
