"""The run: trace once, calibrate once, then export, gate and measure one candidate after the other."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..analysis.bench import random_checkpoint
from ..bundle import MANIFEST, open_bundle, require_replaceable
from ..data.choose import any_puzzles, gate_puzzles
from ..data.puzzles import PuzzleSet, load_puzzles
from ..errors import GateFailed, InputError
from ..export import Exported, GateOptions, Shared, export_bundle
from ..exporters.build import QUICK, trace
from ..exporters.search.decide import Quantizing
from ..exporters.targets import target_named
from ..files import check_place, check_replaceable, owning, require_utf8, sha256
from ..measure import speed
from ..measure.arithmetic import cpu
from ..measure.artifact import open_artifact
from ..measure.cache import cache_file
from ..measure.cold import peak_memory
from ..measure.gate import GateReport, readable
from ..measure.reference import has_reference_answers, identity
from ..models import Checkpoint, load_checkpoint
from ..packages import version_of
from ..precision import precision_named
from ..progress import Progress, Say
from .candidates import Candidate, candidates, runs_as
from .pace import pace
from .rows import PAGE, PLOT, RECORD, Benchmark, Row, kept_rows, read_benchmark, write_benchmark
from .table import write_pages

GATE_PUZZLES = 200  # to begin with: half a point is one of them, and the gate asks more where that is close
# Before anything is timed: a process that loads an artifact and tells its memory; building a bundle, in traces.
_SECONDS_OF_A_PROCESS, _TRACES_OF_A_BUNDLE = 4.0, 1.0
_LONG = 300  # seconds from which people are told what makes it shorter


@dataclass(frozen=True)
class Wanted:
    """What to measure. ``targets``, ``precisions``: None for all; ``data``: puzzles for the gate."""

    targets: Sequence[str] | None = None
    precisions: Sequence[str] | None = None
    random_weights: str | None = None
    data: Path | None = None
    gate_puzzles: int | None = None
    calibration_data: Path | None = None
    max_drop: float = 0.5
    rounds: int = 5
    segments: int = 4
    threads: int | None = None
    only_timed: bool = False  # leave out what cannot be timed here


def run_benchmark(
    checkpoint: Path | str | None, wanted: Wanted, output: Path | None, say: Say, progress: Progress | None
) -> tuple[Benchmark, Path]:
    """The table, and the folder that holds it with the bundles; what an interrupted run finished is kept.

    InputError: nothing can be exported, or the folder holds something else.
    """
    if (wanted.random_weights is None) == (checkpoint is None):
        raise InputError("give a checkpoint to benchmark, or --random-weights paper, but not both")
    with ExitStack() as stack:
        if wanted.random_weights is not None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hrm-edge-benchmark-"))
            checkpoint = random_checkpoint(wanted.random_weights, Path(scratch))
        assert checkpoint is not None
        opened = load_checkpoint(checkpoint)
        folder = output or Path("bundles") / f"{opened.name}-benchmark"
        require_utf8(folder)
        check_place(folder / RECORD)
        stack.enter_context(owning(folder / "benchmark", named=folder))  # a second one would undo its rows
        _require_own_pages(folder)
        return _Run(opened, wanted, folder, say, progress).run(), folder


def _require_own_pages(folder: Path) -> None:
    """InputError where the table and the plot would take the place of somebody else's files."""
    for file in (folder / PAGE, folder / PLOT):
        if file.exists() and not (folder / RECORD).exists():
            raise InputError(f"{file}: is there without a {RECORD}, and would be lost; move it away, or choose "
                             "another folder with -o")  # fmt: skip


@dataclass
class _Run:
    """One benchmark under way."""

    checkpoint: Checkpoint
    wanted: Wanted
    folder: Path
    say: Say
    progress: Progress | None
    shared: Shared = field(default_factory=Shared)
    searched: set[str] = field(default_factory=set)  # precisions whose plan was looked for, as the first one failed

    rounds_take: float = 0.0  # seconds of the timing, as estimated

    def run(self) -> Benchmark:
        begin, wanted = time.monotonic(), self.wanted
        before = read_benchmark(self.folder)
        self.threads = wanted.threads or speed.default_threads()
        gated = wanted.random_weights is None
        self.puzzles = (
            gate_puzzles(self.checkpoint, wanted.data, wanted.gate_puzzles or GATE_PUZZLES) if gated else None
        )
        self.calibration = (
            load_puzzles(wanted.calibration_data, self.checkpoint.task) if wanted.calibration_data else None
        )
        found = candidates(wanted.targets, wanted.precisions, gated)
        if wanted.only_timed or (not gated and not wanted.targets):
            # Nothing but the size of these would be known.
            left = [each for each in found if each.options and not each.timed]
            found = [each for each in found if each not in left]
            if left:
                names = ", ".join(dict.fromkeys(each.target for each in left))
                self.say(f"benchmark: without {names}, which cannot be timed here; --target includes them")
        keys = [self._key(each) for each in found]
        kept = kept_rows(self.folder, before.rows) if before else {}
        todo = [each for each, key in zip(found, keys, strict=True) if each.options and key not in kept]
        for candidate in todo:
            check_replaceable(
                self._place(candidate), lambda place: require_replaceable(place, gated=self.puzzles is not None)
            )
        self._announce(found, todo)
        unasked = self._unasked(found, before, list(kept.values()))
        rows: list[Row] = []
        for candidate, key in zip(found, keys, strict=True):
            row = kept.get(key)
            if row is None:
                row = self._row(candidate, key)
                done = replace(self._table([*rows, row], begin), timed=before.timed if before else None)
                # What comes later in the list may be kept from before: an interruption must not forget it.
                later = [kept[each] for each in keys[len(rows) + 1 :] if each in kept]
                write_benchmark(self.folder, replace(done, rows=(*done.rows, *later, *unasked)))
            rows.append(row)
            if todo[1:] and candidate == todo[0] and row.seconds:
                remaining = (len(todo) - 1) * row.seconds + self.rounds_take
                self.say(f"benchmark: about {readable(remaining)} left where each takes as long as this one")
            if self.progress is not None and candidate in todo:
                self.progress("bundles", todo.index(candidate) + 1, len(todo))
        table = self._timed(self._table(rows, begin), before)
        table = replace(table, seconds=round(time.monotonic() - begin, 1))
        write_benchmark(self.folder, replace(table, rows=(*table.rows, *unasked)))
        write_pages(self.folder, table)
        return table

    def _table(self, rows: Sequence[Row], begin: float) -> Benchmark:
        return Benchmark(
            checkpoint=self.checkpoint.name,
            checkpoint_hash=self.checkpoint.content_hash,
            task=self.checkpoint.task.name,
            puzzles=self.puzzles.name if self.puzzles else None,
            machine=cpu()[0],
            threads=self.threads,
            seconds=round(time.monotonic() - begin, 1),
            rows=tuple(rows),
        )

    def _unasked(self, found: Sequence[Candidate], before: Benchmark | None, kept: Sequence[Row]) -> list[Row]:
        """Rows of earlier runs that this one was not asked for: the record keeps them, a wider run takes them up.

        None where the record is about another checkpoint, other puzzles or another machine than this run's.
        """
        now, names = self._table((), time.monotonic()), {(each.target, each.precision) for each in found}
        same = before is not None and replace(before, rows=(), seconds=0, reference=None, timed=None) == replace(
            now, seconds=0
        )
        return [row for row in kept if same and (row.target, row.precision) not in names]

    def _key(self, candidate: Candidate) -> str:
        """Of all that a row depends on: weights, code, options, puzzles, packages, the kind of CPU."""
        if candidate.options is None:
            return f"absent: {candidate.target} {candidate.precision}"
        packages = target_named(candidate.target).packages
        content: dict[str, Any] = {
            **identity(self.checkpoint),
            "options": asdict(candidate.options),
            "runs as": runs_as(candidate),
            "writes": {name: version_of(name) for name in packages},
            "max_drop": self.wanted.max_drop,
            "threads": self.threads,
            "gate": self.puzzles is not None,
            "calibration": self.calibration and self.calibration.content_hash(),
            "driver": [sha256(file) for file in sorted(Path(__file__).parent.glob("*.py"))],
        }
        return cache_file("benchmark", content, self.puzzles or self._boards(1)).stem

    def _boards(self, n: int) -> PuzzleSet:
        return any_puzzles(self.checkpoint.task, n, self.wanted.data, self.checkpoint)

    # -- how long it takes -----------------------------------------------------------------------------

    def _announce(self, found: Sequence[Candidate], todo: Sequence[Candidate]) -> None:
        """Trace, time one segment, and say what the whole will take, before it begins."""
        made = [each for each in found if each.options]
        if not made:
            why = "; ".join(dict.fromkeys(each.why_not for each in found if each.why_not))
            raise InputError(f"nothing can be exported here: {why}")
        kept = f", {len(made) - len(todo)} of them kept from before" if len(todo) < len(made) else ""
        self.say(f"benchmark: {len(made)} bundles of {self.checkpoint.name}{kept}")
        if not todo:
            return
        begin = time.monotonic()
        self.shared.graphs = trace(self.checkpoint, self.say)
        bundles, self.rounds_take = self._estimate(made, todo, time.monotonic() - begin)
        seconds = bundles + self.rounds_take
        flags: dict[str, object] = {"--target": self.wanted.targets, "--precision": self.wanted.precisions}
        if self.puzzles is not None:
            flags["--gate-puzzles"] = self.wanted.gate_puzzles
        fewer = [flag for flag, given in flags.items() if not given]
        advice = f"; fewer with {', '.join(fewer)}" if fewer and seconds > _LONG else ""
        if advice and not self.wanted.precisions:
            advice += " (fastest: --precision fp32,int8)"
        self.say(
            f"benchmark: about {readable(seconds)} in all, within a factor of two or so{advice}; "
            "an interrupted run goes on where it was"
        )

    def _estimate(self, made: Sequence[Candidate], todo: Sequence[Candidate], traced: float) -> tuple[float, float]:
        """Seconds of the bundles and of the timing, from one trace and a few puzzles in PyTorch; rough figures."""
        segment, usual = pace(self.checkpoint, self.puzzles or self._boards(1), learned=self.puzzles is not None)
        bundles = len(todo) * _TRACES_OF_A_BUNDLE * traced
        processes = sum(each.timed for each in todo) * _SECONDS_OF_A_PROCESS
        calibrated = any(precision_named(each.precision).calibrated for each in todo)
        calibration = self._quantizing.calibration * usual * 2 * segment if calibrated else 0
        asked = 0 if self.puzzles is None else len(self.puzzles)
        fresh = self.puzzles is not None and not has_reference_answers(self.checkpoint, self.puzzles)
        gates = asked * usual * segment * (len(todo) + fresh)
        timed = (1 + sum(each.timed for each in made)) * (self.wanted.rounds + 1)
        rounds = timed * (1 + self.wanted.segments + self._per_round * usual) * segment
        return bundles + processes + calibration + gates, rounds

    # -- one bundle ------------------------------------------------------------------------------------

    @property
    def _quantizing(self) -> Quantizing:
        """The plan that calibration gives, untried: the gate judges it."""
        return QUICK if self.puzzles is None else Quantizing(data=self.calibration, max_drop=None)

    def _row(self, candidate: Candidate, key: str) -> Row:
        loop = candidate.options.loop if candidate.options else None
        row = Row(key, candidate.target, candidate.precision, loop, "absent", candidate.why_not)
        if candidate.options is None:
            return row
        begin = time.monotonic()
        self.say(f"benchmark: {row.name}")
        try:
            made = self._exported(candidate, self._place(candidate))
        except GateFailed as error:
            seconds = round(time.monotonic() - begin, 1)
            return replace(row, state="failed", note=str(error), seconds=seconds, **_accuracy(error.report))
        except InputError as error:  # what its compiler cannot do, it says when asked
            return replace(row, note=str(error))
        bundle = open_bundle(made.folder)
        stands_in = target_named(candidate.target).stood_in_by()
        peak = peak_memory(made.folder, batch=1, threads=self.threads)[0] if stands_in is None else None
        device = target_named(candidate.target).device_figures(made.folder, made.manifest)
        return replace(
            row,
            state="runs" if stands_in is None else "built",
            note=stands_in,
            bundle=made.folder.name,
            manifest=sha256(made.folder / MANIFEST),
            size_mb=bundle.size / 1e6,
            peak_mb=peak,
            **_accuracy(made.gate),
            **device._asdict(),
            seconds=round(time.monotonic() - begin, 1),
        )

    def _place(self, candidate: Candidate) -> Path:
        assert candidate.options is not None
        return self.folder / candidate.options.suffix

    def _exported(self, candidate: Candidate, folder: Path) -> Exported:
        """The plan of the precision is shared. Where chance fails its answers, as many are asked as an export asks;
        where they fail still, a plan is looked for as an export does it."""
        check = partial(self._checked, candidate, folder)
        precision, puzzles = precision_named(candidate.precision), self.puzzles
        try:
            return check(self._quantizing, puzzles)
        except GateFailed as error:
            if puzzles is None:
                raise
            undecided, failed = error.report and error.report.undecided, error
        if undecided and (more := self._as_an_export_asks(precision.gate_puzzles)):
            self.say(f"benchmark: chance may have decided; asking {len(more)} and more, as an export does")
            puzzles = more
            try:
                return check(self._quantizing, puzzles)
            except GateFailed as error:
                failed = error
        if not precision.quantizes_inputs or precision.name in self.searched:
            raise failed
        self.say("benchmark: that plan loses too much; looking for layers that need more bits")
        self.searched.add(precision.name)
        plain = self.shared.decisions.pop(precision.name, None)
        try:
            return check(replace(self._quantizing, max_drop=self.wanted.max_drop, sensitivity=0), puzzles)
        except GateFailed:
            if plain is not None and precision.name not in self.shared.decisions:
                self.shared.decisions[precision.name] = plain  # another target may still pass with it
            raise

    def _as_an_export_asks(self, n: int) -> PuzzleSet | None:
        """``n`` puzzles; None where there are no more than were asked, or the user has said how many."""
        assert self.puzzles is not None
        if self.wanted.gate_puzzles is not None:
            return None
        try:
            more = gate_puzzles(self.checkpoint, self.wanted.data, n)
        except InputError:  # a small board has no more
            return None
        return more if len(more) > len(self.puzzles) else None

    def _checked(
        self, candidate: Candidate, folder: Path, quantizing: Quantizing, puzzles: PuzzleSet | None
    ) -> Exported:
        """The bundle, gated on ``puzzles``. GateFailed: it answers worse."""
        assert candidate.options is not None
        gate = GateOptions(puzzles, self.wanted.max_drop, report=False)
        if puzzles is not None:
            gate = replace(gate, more=partial(gate_puzzles, self.checkpoint, self.wanted.data))
        return export_bundle(
            self.checkpoint,
            candidate.options,
            folder,
            gate,
            quantizing,
            threads=self.threads,
            say=self.say,
            progress=self.progress,
            shared=self.shared,
        )

    # -- time ------------------------------------------------------------------------------------------

    @property
    def _per_round(self) -> int:
        return 1 if self.puzzles is None else 2

    def _timed(self, table: Benchmark, before: Benchmark | None) -> Benchmark:
        """All that runs here in interleaved rounds, beside PyTorch; kept where nothing has changed."""
        running = [row for row in table.rows if row.state == "runs" and row.bundle is not None]
        settings = speed.Settings(
            self.threads,
            rounds=self.wanted.rounds,
            segments=self.wanted.segments,
            per_round=self._per_round,
            memory=False,
            random_weights=self.puzzles is None,
        )
        said = f"{[row.manifest for row in running]} {settings} {table.machine}"
        key = hashlib.sha256(said.encode()).hexdigest()
        if before is not None and before.timed == key and before.reference is not None:
            return replace(table, reference=before.reference, timed=key)
        self.say(f"benchmark: timing {len(running)} bundles beside PyTorch, {settings.rounds} interleaved rounds")
        paths = [self.checkpoint.path, *(self.folder / str(row.bundle) for row in running)]
        opened = [open_artifact(path, self.threads) for path in paths]
        timed = [each for each in opened if each.engine.batch in (None, 1)]
        puzzles = self._boards(settings.rounds * settings.per_round)
        report = speed.bench(timed, puzzles, settings, self.progress)
        for note in report.notes:
            self.say(f"note: {note}")
        times = {each.path: _times(row) for each, row in zip(timed, report.rows, strict=True)}
        rows = [replace(row, **times.get(self.folder / str(row.bundle), {})) for row in table.rows]
        peak, _ = peak_memory(self.checkpoint.path, batch=1, threads=self.threads)
        eager = Row("", "PyTorch", "fp32", "host", "runs", None, size_mb=opened[0].size_bytes / 1e6, peak_mb=peak)
        exact = next((row.exact_reference for row in rows if row.exact_reference is not None), None)
        eager = replace(eager, exact=exact, **times[self.checkpoint.path])
        return replace(table, rows=tuple(rows), reference=eager, timed=key)


def _accuracy(report: GateReport | None) -> dict[str, Any]:
    if report is None:
        return {}
    sides = {"exact_reference": report.reference.exact, "exact": report.bundle.exact}
    return {"n": report.n, "lost": report.lost, "won": report.won, **sides}


def _times(row: speed.SpeedRow) -> dict[str, Any]:
    return {
        "ms_per_puzzle": None if row.ms_per_puzzle is None else round(row.ms_per_puzzle, 4),
        "ms_per_segment": round(row.ms_per_segment, 4),
        "speedup": None if row.ratio_vs_eager is None else round(row.ratio_vs_eager, 3),
    }
