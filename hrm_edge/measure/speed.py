"""Speed and memory of engines side by side: interleaved rounds in one process, ratios within each round.

Machines are noisy, and they drift. So every round times every engine once, in rotating order, and what is
reported is the median over rounds; `ratio_vs_eager` is the median of the rounds' own ratios, in which a slow
moment hits both sides. Everything goes through `Engine.solve`, so a loop's overhead is part of its time.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
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
from .memory import peak_memory

_SGEMM = 2048
# Idle worker threads of one engine spin for a few milliseconds and would slow the next one down.
_SETTLE_SECONDS = 0.02
# Share of the time spent waiting for a CPU from which the figures are not to be trusted.
_BUSY = 0.05


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


@dataclass(frozen=True)
class SpeedRow:
    """One engine's row. Times are medians over rounds; MB are 10⁶ bytes; None where it could not be measured."""

    engine: str
    backend: str
    precision: str
    loop: str
    batch: int
    ms_per_segment: float  # of the whole batch, halting off, everything around the segment included
    ms_per_segment_quartiles: tuple[float, float]
    ms_per_puzzle: float  # learned halting, in calls of `batch` puzzles
    ratio_vs_eager: float | None  # how many times faster per segment than PyTorch eager on the same weights
    exact: float | None
    peak_rss_mb: float | None
    size_mb: float


@dataclass(frozen=True)
class SpeedReport:
    """What `bench --json` prints: all engines' rows, the machine's ceilings, and notes that qualify them."""

    rows: list[SpeedRow]
    ceilings: dict[str, float]
    settings: Settings
    puzzles: int
    notes: list[str]


@dataclass
class _Timed:
    """One engine's raw measurements, one entry a round."""

    artifact: Artifact
    segment: list[float] = field(default_factory=list)  # seconds
    puzzle: list[float] = field(default_factory=list)  # seconds
    right: list[bool] = field(default_factory=list)


def default_threads() -> int:
    """What PyTorch would use (the physical cores), or all CPUs this process may run on."""
    if importlib.util.find_spec("torch"):
        import torch

        return torch.get_num_threads()
    return usable_cores()


def bench(
    artifacts: Sequence[Artifact], puzzles: PuzzleSet, settings: Settings, progress: Progress | None = None
) -> SpeedReport:
    """Every artifact on the same puzzles. InputError where a bundle's fixed batch is not `settings.batch`."""
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
    timed = [_Timed(artifact) for artifact in artifacts]
    ceiling = _sgemm(settings.threads)
    gflops: list[float] = []
    for number, each in enumerate(timed, 1):
        _warm_up(each, puzzles, settings)
        if progress is not None:
            progress("warming up", number, len(timed))
    begin, waited = time.monotonic(), _waited_for_a_cpu()
    for number in range(settings.rounds):
        turn = number % len(timed)
        for each in timed[turn:] + timed[:turn]:
            _time_round(each, puzzles, settings, number)
        if ceiling is not None:
            gflops.append(ceiling())
        if progress is not None:
            progress("rounds", number + 1, settings.rounds)
    share = (_waited_for_a_cpu() - waited) / (time.monotonic() - begin)
    if share > _BUSY:
        notes.append(
            f"other work was running here: {share:.0%} of the time went by waiting for a CPU, which slows some "
            "engines more than others; measure again on an idle machine"
        )
    return SpeedReport(
        rows=[_row(each, timed, peak, settings, notes) for each, peak in zip(timed, peaks, strict=True)],
        ceilings=_ceilings(gflops, timed, settings),
        settings=settings,
        puzzles=min(len(puzzles), settings.rounds * settings.per_round * settings.batch),
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
    _solve(each, first)


def _time_round(each: _Timed, puzzles: PuzzleSet, settings: Settings, number: int) -> None:
    """One fixed-length call, then some with learned halting; the same puzzles for every engine."""
    part = _slice(puzzles, settings, number)
    starts = range(0, len(part), settings.batch)
    calls = [part.select(np.arange(start, start + settings.batch)) for start in starts]
    time.sleep(_SETTLE_SECONDS)
    _solve(each, calls[0], max_think_steps=1, halt="fixed")
    begin = time.perf_counter()
    _solve(each, calls[0], max_think_steps=settings.segments, halt="fixed")
    middle = time.perf_counter()
    answers = [_solve(each, call).tokens for call in calls]
    end = time.perf_counter()
    each.segment.append((middle - begin) / settings.segments)
    each.puzzle.append((end - middle) / len(part))
    each.right += rightness(part, np.concatenate(answers))[judged(part)].tolist()


def _slice(puzzles: PuzzleSet, settings: Settings, number: int) -> PuzzleSet:
    """The puzzles of one round, `per_round` whole batches; starts again from the first when there are too few."""
    count = settings.batch * settings.per_round
    return puzzles.select(np.arange(number * count, (number + 1) * count) % len(puzzles))


def _row(each: _Timed, timed: list[_Timed], peak: float | None, settings: Settings, notes: list[str]) -> SpeedRow:
    artifact = each.artifact
    same_weights = [other for other in timed if other.artifact.source_hash == artifact.source_hash]
    eager = next((other for other in same_weights if other.artifact.engine.backend == "torch"), None)
    ratio = None
    if eager is None:
        notes.append(f"{artifact.label}: no ratio, as no checkpoint with the same weights was given")
    else:
        ratio = median(theirs / ours for theirs, ours in zip(eager.segment, each.segment, strict=True))
    low, _, high = quantiles(each.segment, n=4) if len(each.segment) > 1 else each.segment * 3
    return SpeedRow(
        engine=artifact.name,
        backend=artifact.engine.backend,
        precision=artifact.precision,
        loop=artifact.engine.loop,
        batch=settings.batch,
        ms_per_segment=1e3 * median(each.segment),
        ms_per_segment_quartiles=(1e3 * low, 1e3 * high),
        ms_per_puzzle=1e3 * median(each.puzzle),
        ratio_vs_eager=ratio,
        exact=float(np.mean(each.right)) if each.right and not settings.random_weights else None,
        peak_rss_mb=peak,
        size_mb=artifact.size_bytes / 1e6,
    )


def _waited_for_a_cpu() -> float:
    """Seconds this thread was ready to run but another had its CPU; 0 where the system does not tell."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0


# -- what the machine could do at best -----------------------------------------------------------------


def _sgemm(threads: int) -> Callable[[], float] | None:
    """A function that times one float32 matrix product and returns GFLOP/s; None without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(_SGEMM, _SGEMM), torch.randn(_SGEMM, _SGEMM)
    torch.mm(a, b)

    def run() -> float:
        begin = time.perf_counter()
        torch.mm(a, b)
        return 2e-9 * _SGEMM**3 / (time.perf_counter() - begin)

    return run


def _ceilings(gflops: list[float], timed: list[_Timed], settings: Settings) -> dict[str, float]:
    """Matrix products in the same rounds, and how long a segment would take at that speed."""
    if not gflops:
        return {}
    ceilings = {f"sgemm_{_SGEMM}_gflops": median(gflops), f"sgemm_{_SGEMM}_gflops_best": max(gflops)}
    flops = next((flops for each in timed if (flops := each.artifact.segment_flops) is not None), None)
    if flops is not None:
        work = settings.batch * flops * 1e-9
        ceilings["segment_gflop"] = work
        ceilings["segment_ms_at_sgemm"] = 1e3 * work / median(gflops)
    return ceilings
