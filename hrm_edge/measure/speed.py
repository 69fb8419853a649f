"""Speed and memory of engines side by side: interleaved rounds in one process, ratios within each round.

Machines are noisy, and they drift. So every round times every engine and every ceiling once, in rotating order, and
what is reported is the median over rounds; `ratio_vs_eager` and `of_ceiling` are medians of the rounds' own ratios,
in which a slow moment hits both sides. Everything goes through `Engine.solve`, so a loop's overhead is part of its
time. Where more than a fifth of a round went by waiting for a CPU that others had, that round gives no ratio.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from ..data.puzzles import PuzzleSet, judged
from ..errors import InputError
from ..progress import Progress
from ..runtimes import Answers
from ..tasks.parallel import usable_cores
from .accuracy import check_match, rightness
from .artifact import Artifact, open_artifact
from .ceilings import MEMORY, Ceiling, ceilings
from .clock import MOST_WAITING, Clock, Span
from .cold import peak_memory
from .statistics import median_interval
from .work import Work

# Idle worker threads of one engine spin for a few milliseconds and would slow the next one down.
_SETTLE_SECONDS = 0.02
# Share of the time spent waiting for a CPU from which the figures are not to be trusted.
_BUSY = 0.05
# Ratios are told of so many rounds at the least, or of all that were asked for.
_FEWEST = 3

Interval = tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """How to measure. `threads` is the same for all engines."""

    threads: int
    batch: int = 1
    rounds: int = 9
    segments: int = 8  # per fixed-length call, from which ms_per_segment follows
    per_round: int = 4  # calls with learned halting, each of `batch` puzzles
    memory: bool = True
    random_weights: bool = False  # then `exact` means nothing and is left out
    ceilings: bool = False
    most_waiting: float = MOST_WAITING  # share of a round from which it gives no ratio


@dataclass(frozen=True)
class SpeedRow:
    """One engine's row. Times are medians over rounds; MB are 10⁶ bytes; None where it could not be measured.

    Intervals are of the median, at 95 %. ``waiting``: the share of its time in which a thread waited for a CPU.
    """

    engine: str
    backend: str
    precision: str
    loop: str
    batch: int
    threads: int
    ms_per_segment: float  # of the whole batch, halting off, everything around the segment included
    ms_per_segment_quartiles: Interval
    ms_per_segment_interval: Interval
    cpu_ms_per_segment: float  # of all threads together: what stays the same when others use the machine too
    waiting: float
    ms_per_puzzle: float | None  # learned halting, in calls of `batch` puzzles
    ms_per_solved: float | None  # all the time, by the puzzles that came out right
    ratio_vs_eager: float | None  # how many times faster per segment than PyTorch eager on the same weights
    ratio_vs_eager_interval: Interval | None
    of_ceiling: float | None  # time that its products take at the fastest rates of the same round, by its time
    of_ceiling_interval: Interval | None
    of_ceiling_cpu: float | None  # the same by CPU time of all threads, which other work changes less
    of_memory: float | None  # time that its products' operands take to be moved once, by its time
    exact: float | None
    peak_rss_mb: float | None
    size_mb: float


@dataclass(frozen=True)
class CeilingRow:
    """What one library did of one kind: ``giga`` operations (of ``kind`` memory: bytes) a second, the median."""

    by: str
    kind: str
    threads: int
    giga: float
    giga_interval: Interval


@dataclass(frozen=True)
class SpeedReport:
    """All engines' rows, the machine's ceilings in the same rounds, and notes that qualify them."""

    rows: list[SpeedRow]
    ceilings: list[CeilingRow]
    settings: Settings
    puzzles: int
    waiting: float
    notes: list[str]


@dataclass(frozen=True)
class _Best:
    """By round, the fastest rate of each kind a second, and a second of CPU time; empty where none was measured."""

    by_clock: list[dict[str, float]]
    by_cpu: list[dict[str, float]]


@dataclass
class _Timed:
    """One engine's raw measurements, one entry a round."""

    artifact: Artifact
    work: Work | None = None
    segment: list[Span] = field(default_factory=list)  # of `segments`
    puzzle: list[float] = field(default_factory=list)  # seconds a puzzle
    right: list[bool] = field(default_factory=list)

    def waiting(self, number: int) -> float:
        return self.segment[number].waiting


def default_threads() -> int:
    """What PyTorch would use (the physical cores), or all CPUs this process may run on."""
    if importlib.util.find_spec("torch"):
        import torch

        return torch.get_num_threads()
    return usable_cores()


def bench(
    artifacts: Sequence[Artifact],
    puzzles: PuzzleSet,
    settings: Settings,
    progress: Progress | None = None,
    work: Sequence[Work | None] = (),
) -> SpeedReport:
    """Every artifact on the same puzzles. InputError where a bundle's fixed batch is not `settings.batch`.

    ``work``: what a segment of each has to do, where that is known.
    """
    for artifact in artifacts:
        check_match(artifact.engine, puzzles)
        if artifact.engine.batch not in (None, settings.batch):
            raise InputError(
                f"{artifact.path}: is built for batches of {artifact.engine.batch}; "
                f"bench it with --batch {artifact.engine.batch}"
            )
    notes: list[str] = []
    peaks: list[float | None] = [None] * len(artifacts)
    if settings.memory:
        for number, artifact in enumerate(artifacts):
            peaks[number] = _peak(artifact, settings, notes)
            if progress is not None:
                progress("peak memory", number + 1, len(artifacts))
    works = list(work) or [None] * len(artifacts)
    timed = [_Timed(artifact, known) for artifact, known in zip(artifacts, works, strict=True)]
    known_ceilings = ceilings(settings.threads) if settings.ceilings else []
    at_best: list[list[Span]] = [[] for _ in known_ceilings]
    for number, each in enumerate(timed, 1):
        _warm_up(each, puzzles, settings)
        if progress is not None:
            progress("warming up", number, len(timed))
    clock = Clock()
    for number in range(settings.rounds):
        turn = number % len(timed)
        for each in timed[turn:] + timed[:turn]:
            _time_round(each, puzzles, settings, number)
        for ceiling, spans in zip(known_ceilings, at_best, strict=True):
            spans.append(ceiling.time())
        if progress is not None:
            progress("rounds", number + 1, settings.rounds)
    share = clock.stop().waiting
    if share > _BUSY:
        notes.append(
            f"other work was running here: {share:.0%} of the time went by waiting for a CPU, which slows some "
            "engines more than others; measure again on an idle machine"
        )
    rates = [[c.work / span.seconds for span in spans] for c, spans in zip(known_ceilings, at_best, strict=True)]
    by_cpu = [
        [c.work / max(span.cpu, 1e-9) for span in spans] for c, spans in zip(known_ceilings, at_best, strict=True)
    ]
    best = _Best(*(_fastest(known_ceilings, each, settings.rounds) for each in (rates, by_cpu)))
    rows = [_row(each, timed, best, peak, settings, notes) for each, peak in zip(timed, peaks, strict=True)]
    untold = sum(row.ratio_vs_eager is None and _eager_of(each, timed) is not None
                 for row, each in zip(rows, timed, strict=True))  # fmt: skip
    if untold:
        notes.append(
            f"no ratio of {untold} of {len(rows)} engines ({settings.threads} threads, batch {settings.batch}): in "
            f"most rounds more than {settings.most_waiting:.0%} of the time went by waiting for a CPU"
        )
    return SpeedReport(
        rows=rows,
        ceilings=[
            CeilingRow(each.by, each.kind, settings.threads, 1e-9 * median(rate), _giga(median_interval(rate)))
            for each, rate in zip(known_ceilings, rates, strict=True)
        ],
        settings=settings,
        puzzles=min(len(puzzles), settings.rounds * settings.per_round * settings.batch),
        waiting=share,
        notes=notes,
    )


def beside_eager(
    checkpoint: Path, bundle: Path, puzzles: PuzzleSet, batch: int, threads: int | None = None
) -> list[dict[str, Any]]:
    """Rows of a short comparison of a bundle with PyTorch eager on the weights that it was made of."""
    threads = threads or default_threads()
    settings = Settings(threads, batch, rounds=5, segments=4, per_round=2)
    artifacts = [open_artifact(path, threads) for path in (checkpoint, bundle)]
    return [asdict(row) for row in bench(artifacts, puzzles, settings).rows]


def _peak(artifact: Artifact, settings: Settings, notes: list[str]) -> float | None:
    compiled = artifact.engine.backend == "torch.compile"
    peak, why_not = peak_memory(artifact.path, batch=settings.batch, threads=settings.threads, compiled=compiled)
    if peak is None:
        notes.append(f"{artifact.label}: no peak memory ({why_not})")
    return peak


def _solve(each: _Timed, puzzles: PuzzleSet, **settings: Any) -> Answers:
    return each.artifact.engine.solve(puzzles.questions, puzzle_identifiers=puzzles.identifiers, **settings)


def _warm_up(each: _Timed, puzzles: PuzzleSet, settings: Settings) -> None:
    """First calls allocate, compile and page in."""
    first = _slice(puzzles, settings, 0).select(np.arange(settings.batch))
    for _ in range(2):
        _solve(each, first, max_think_steps=2, halt="fixed")
    if settings.per_round:
        _solve(each, first)


def _time_round(each: _Timed, puzzles: PuzzleSet, settings: Settings, number: int) -> None:
    """One fixed-length call, then some with learned halting; the same puzzles for every engine."""
    part = _slice(puzzles, settings, number)
    starts = range(0, len(part), settings.batch)
    calls = [part.select(np.arange(start, start + settings.batch)) for start in starts]
    time.sleep(_SETTLE_SECONDS)
    _solve(each, calls[0], max_think_steps=1, halt="fixed")
    clock = Clock()
    _solve(each, calls[0], max_think_steps=settings.segments, halt="fixed")
    each.segment.append(clock.stop())
    if not settings.per_round:
        return
    clock = Clock()
    answers = [_solve(each, call).tokens for call in calls]
    each.puzzle.append(clock.stop().seconds / len(part))
    each.right += rightness(part, np.concatenate(answers))[judged(part)].tolist()


def _slice(puzzles: PuzzleSet, settings: Settings, number: int) -> PuzzleSet:
    """The puzzles of one round, `per_round` whole batches; starts again from the first when there are too few."""
    count = settings.batch * max(1, settings.per_round)
    return puzzles.select(np.arange(number * count, (number + 1) * count) % len(puzzles))


# -- rows ----------------------------------------------------------------------------------------------


def _row(
    each: _Timed,
    timed: list[_Timed],
    best: _Best,
    peak: float | None,
    settings: Settings,
    notes: list[str],
) -> SpeedRow:
    artifact = each.artifact
    seconds = [span.seconds / settings.segments for span in each.segment]
    eager = _eager_of(each, timed)
    if eager is None:
        notes.append(f"{artifact.label}: no ratio, as no checkpoint with the same weights was given")
        ratio = None
    else:
        theirs = [span.seconds / settings.segments for span in eager.segment]
        ratio = _told([each, eager], lambda i: theirs[i] / seconds[i], settings)
    of_ceiling = _of_ceiling(each, seconds, best.by_clock, settings)
    cpu = [span.cpu / settings.segments for span in each.segment]
    # Whatever was waited for, CPU time is not it.
    by_cpu = _of_ceiling(each, cpu, best.by_cpu, replace(settings, most_waiting=1.0))
    of_memory = None
    if each.work is not None and best.by_clock and best.by_clock[0].get(MEMORY):
        moved = each.work.bytes(settings.batch)
        of_memory = _told([each], lambda i: moved / best.by_clock[i][MEMORY] / seconds[i], settings)
    low, _, high = quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    known = each.right and not settings.random_weights
    return SpeedRow(
        engine=artifact.name,
        backend=artifact.engine.backend,
        precision=artifact.precision,
        loop=artifact.engine.loop,
        batch=settings.batch,
        threads=settings.threads,
        ms_per_segment=1e3 * median(seconds),
        ms_per_segment_quartiles=(1e3 * low, 1e3 * high),
        ms_per_segment_interval=_scaled(median_interval(seconds), 1e3),
        cpu_ms_per_segment=1e3 * median(cpu),
        waiting=_share(each.segment),
        ms_per_puzzle=1e3 * median(each.puzzle) if each.puzzle else None,
        ms_per_solved=1e3 * float(np.mean(each.puzzle)) / float(np.mean(each.right))
        if known and any(each.right)
        else None,
        ratio_vs_eager=ratio and ratio[0],
        ratio_vs_eager_interval=ratio and ratio[1],
        of_ceiling=of_ceiling and of_ceiling[0],
        of_ceiling_interval=of_ceiling and of_ceiling[1],
        of_ceiling_cpu=by_cpu and by_cpu[0],
        of_memory=of_memory and of_memory[0],
        exact=float(np.mean(each.right)) if known else None,
        peak_rss_mb=peak,
        size_mb=artifact.size_bytes / 1e6,
    )


def _eager_of(each: _Timed, timed: Sequence[_Timed]) -> _Timed | None:
    """PyTorch eager on the same weights, if it is among them."""
    same = [other for other in timed if other.artifact.source_hash == each.artifact.source_hash]
    return next((other for other in same if other.artifact.engine.backend == "torch"), None)


def _told(
    sides: Sequence[_Timed], of_round: Callable[[int], float], settings: Settings
) -> tuple[float, Interval] | None:
    """Median and interval of a ratio over the rounds in which no side waited; None where too few are left."""
    quiet = [i for i in range(settings.rounds) if all(s.waiting(i) <= settings.most_waiting for s in sides)]
    if len(quiet) < min(_FEWEST, settings.rounds):
        return None
    values = [of_round(i) for i in quiet]
    return median(values), median_interval(values)


def _of_ceiling(
    each: _Timed, seconds: list[float], best: list[dict[str, float]], settings: Settings
) -> tuple[float, Interval] | None:
    if each.work is None or not best:
        return None
    least = [each.work.seconds_of_products(settings.batch, rates) for rates in best]
    if None in least:
        return None
    return _told([each], lambda i: (least[i] or 0.0) / seconds[i], settings)


def _share(spans: Sequence[Span]) -> float:
    return min(1.0, sum(span.waited for span in spans) / max(1e-9, sum(span.seconds for span in spans)))


def _fastest(known: Sequence[Ceiling], rates: Sequence[Sequence[float]], rounds: int) -> list[dict[str, float]]:
    """By round, the fastest rate of each kind, whichever library gave it over all rounds.

    One library's, lest a ceiling is made of the luckiest moment of several.
    """
    if not known:
        return []
    fastest: dict[str, Sequence[float]] = {}
    for ceiling, measured in zip(known, rates, strict=True):
        if ceiling.kind not in fastest or median(measured) > median(fastest[ceiling.kind]):
            fastest[ceiling.kind] = measured
    return [{kind: measured[i] for kind, measured in fastest.items()} for i in range(rounds)]


def _scaled(interval: Interval, factor: float) -> Interval:
    return interval[0] * factor, interval[1] * factor


def _giga(interval: Interval) -> Interval:
    return _scaled(interval, 1e-9)
