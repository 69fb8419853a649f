"""Export from beginning to end: decide, build, prove, compare, report, and only then publish."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .bundle import Gate, seal_bundle
from .bundle.manifest import Manifest
from .bundle.quantization import QUANTIZATION, Products, Quantization
from .data.puzzles import PuzzleSet
from .errors import GateFailed
from .exporters.audit import audit, compare_products, raise_unless_quantized
from .exporters.build import Built, Traced, Unsealed, build_graphs, trace, write_graphs
from .exporters.options import Context, ExportOptions
from .exporters.quantize.plan import wrong_scales
from .exporters.search.decide import Decision, Quantizing, decide, record
from .exporters.search.trials import Calls, load_packages, load_segments
from .exporters.targets import stand_in
from .files import replacing_folder, write_atomically
from .identifiers import rows_of
from .measure.gate import GateReport, compare, paired_answers
from .models import Checkpoint
from .precision import FP32, PRECISIONS, Precision
from .progress import Progress
from .runtimes import Answers, Engine, backend, load_engine

if TYPE_CHECKING:
    from .measure.drift import Rollout, SegmentNetwork

Say = Callable[[str], None]

_NO_GATE = "exported with --no-gate"
# Puzzles on which states are compared segment by segment; of those whose answers differ, all are followed to
# where it began as long as they are few, else some.
_DRIFT_PUZZLES, _FEW_DIFFERING, _SOME_DIFFERING = 64, 128, 32
_DRIFT_ROWS = 8  # at once, where their number is fixed
_TIMED_ROUNDS, _TIMED_SEGMENTS = 5, 4
# Targets whose compiler tells every product's type whatever the precision.
_ALWAYS_AUDITED = ("tensorrt", "coreml")


@dataclass(frozen=True)
class GateOptions:
    """How accuracy is compared. ``reference``: another checkpoint to hold the bundle to; ``report``: write one."""

    puzzles: PuzzleSet | None  # None: not at all
    max_drop: float = 0.5
    reference: Checkpoint | None = None
    report: bool = True


@dataclass(frozen=True)
class Exported:
    """What was published."""

    manifest: Manifest
    gate: GateReport | None
    quantization: Quantization | None
    products: Products | None  # what the backend compiled, where it was looked at


@dataclass
class _Export:
    """One export under way."""

    checkpoint: Checkpoint
    options: ExportOptions
    gate: GateOptions
    quantizing: Quantizing
    threads: int | None
    say: Say
    progress: Progress | None
    traced: Traced = field(init=False)
    decision: Decision | None = None

    def run(self, folder: Path) -> Exported:
        self.traced = trace(self.checkpoint, self._stage)
        if self._precision.calibrated:
            self.decision = self._decide()
        plan = self.decision.plan if self.decision else None
        built = build_graphs(self.checkpoint, self.traced, self.options, plan, self._stage)
        with replacing_folder(folder) as scratch:
            unsealed = write_graphs(self.checkpoint, self.options, built, scratch, folder.name, plan, self._stage)
            manifest = unsealed.manifest
            products = self._audit(scratch, unsealed, built, folder)
            quantization = self._record(built, products, folder) if self.decision else None
            if quantization is not None:
                write_atomically(scratch / QUANTIZATION, quantization.to_json())
            if self.gate.puzzles is None:
                gate = Gate(ran=False, passed=None, reason=_NO_GATE)
                return Exported(seal_bundle(scratch, replace(manifest, gate=gate)), None, quantization, products)
            return self._gated(scratch, manifest, built, quantization, products, folder)

    @property
    def _precision(self) -> Precision:
        return PRECISIONS[self.options.precision]

    def _stage(self, stage: str) -> None:
        self.say(f"export: {stage}")

    def _decide(self) -> Decision:
        wanted = self.quantizing if self.gate.puzzles is not None else replace(self.quantizing, max_drop=None)
        traced, options = self.traced, self.options
        return decide(
            self.checkpoint,
            traced.start,
            traced.segment,
            options.precision,
            options.target,
            wanted,
            measured=self.gate.puzzles,
            threads=self.threads,
            say=self._stage,
            progress=self.progress,
        )

    def _audit(self, scratch: Path, unsealed: Unsealed, built: Built, folder: Path) -> Products | None:
        """The products that the backend compiled; GateFailed unless they are as asked. None: nothing to compare."""
        target, precision = self.options.target, self.options.precision
        if self.decision is None and target not in _ALWAYS_AUDITED:
            return None
        if unsealed.compiled is not None:
            products = compare_products(unsealed.compiled, precision, built.products)
        else:
            files = [scratch / name for name in unsealed.manifest.graphs.values()]
            products = audit(target, files, precision, built.products)
        raise_unless_quantized(products, str(folder), precision)
        return products

    def _record(self, built: Built, products: Products | None, folder: Path) -> Quantization:
        """What the bundle tells of its quantization, once the graph's scales are those that were decided on."""
        assert self.decision is not None
        if wrong := wrong_scales(self.decision.plan, built.segment):
            raise GateFailed(f"{folder}: {wrong[0]}; nothing was published")
        traced = self.traced
        plain = build_graphs(self.checkpoint, traced, replace(self.options, precision=FP32.name)).graphs
        return record(
            self.decision,
            self.checkpoint,
            traced.segment,
            self.options.target,
            built.graphs.values(),
            plain.values(),
            products,
        )

    def _engine(self, scratch: Path) -> Engine:
        """The bundle as its user would run it; without the device it is for, its graphs as they are written."""
        if self._runs_here:
            return load_engine(scratch, self.threads)
        return load_engine(scratch, self.threads, stand_in=(stand_in.NAME, stand_in.load_graph))

    @property
    def _runs_here(self) -> bool:
        return backend(self.options.target).available()[0]

    @property
    def _stood_in(self) -> str | None:
        """What answered in the device's place, so that nobody takes it for the device."""
        if not self._runs_here:
            return "answered by its ONNX in onnxruntime, not on a GPU"
        runs = backend(self.options.target)
        return f"answered by an interpreter of the package, not by {runs.title}" if runs.interpreted() else None

    def _gated(
        self,
        scratch: Path,
        manifest: Manifest,
        built: Built,
        quantization: Quantization | None,
        products: Products | None,
        folder: Path,
    ) -> Exported:
        puzzles = self.gate.puzzles
        assert puzzles is not None
        seal_bundle(scratch, manifest)
        engine = self._engine(scratch)
        judge = self.gate.reference or self.checkpoint
        reference, candidate = paired_answers(engine, judge, puzzles, say=self.say, progress=self.progress)
        report = compare(
            reference,
            candidate,
            puzzles,
            max_drop=self.gate.max_drop,
            max_think_steps=engine.halt_max_steps,
            engine=f"{engine.backend} {engine.loop} loop",
        )
        if self._stood_in:
            report = replace(report, notes=(self._stood_in, *report.notes))
        report.raise_if_failed(str(folder), self._precision.advice)
        passed = replace(manifest, gate=Gate(ran=True, passed=True, reason=self._stood_in))
        sealed = seal_bundle(scratch, passed, report.to_dict())
        if self.gate.report and not self._precision.is_full:
            self._stage("measuring for the report")
            self._report(scratch, sealed, built, report, quantization, reference, candidate)
            sealed = seal_bundle(scratch, passed, report.to_dict())
        return Exported(sealed, report, quantization, products)

    def _report(
        self,
        scratch: Path,
        manifest: Manifest,
        built: Built,
        gate: GateReport,
        quantization: Quantization | None,
        reference: Answers,
        candidate: Answers,
    ) -> None:
        from .report import build_report, write_report

        puzzles = self.gate.puzzles
        assert puzzles is not None
        shown = _for_drift(puzzles, reference, candidate)
        rollout = self._rollout(built, shown)
        report = build_report(
            manifest=manifest,
            gate=gate.to_dict(),
            quantization=quantization,
            puzzles=puzzles,
            reference=reference,
            candidate=candidate,
            drift=rollout.segments,
            differences=[replace(each, puzzle=int(shown[each.puzzle])) for each in rollout.differences],
            speed=self._speed(scratch) if self._timed else [],
            bundle_bytes=sum(entry.size for entry in manifest.files.values()),
        )
        write_report(report, scratch)

    def _rollout(self, built: Built, rows: np.ndarray) -> Rollout:
        """The quantized segment beside the reference, on the backend that was exported for."""
        from .measure.drift import rightness_of, roll_out
        from .measure.reference import reference_segments

        puzzles = self.gate.puzzles
        assert puzzles is not None
        some = puzzles.select(rows)
        with tempfile.TemporaryDirectory(prefix="hrm-edge-drift-") as folder:
            theirs = self._segments(built, Path(folder))
            ours = reference_segments(self.gate.reference or self.checkpoint)
            return roll_out(
                ours,
                theirs,
                some.questions,
                self.checkpoint.config.halt_max_steps,
                identifiers=self._identifiers(some),
                # Those that are there because they differ would make every figure look worse than it is.
                counted=min(_DRIFT_PUZZLES, len(puzzles)),
                right=rightness_of(some),
                progress=self.progress,
            )

    def _identifiers(self, puzzles: PuzzleSet) -> np.ndarray | None:
        """int32[N] where the network starts from identifiers too, 0 for puzzles without."""
        if self.checkpoint.config.num_puzzle_identifiers == 1:
            return None
        return np.zeros(len(puzzles), np.int32) if puzzles.identifiers is None else puzzles.identifiers

    def _segments(self, built: Built, folder: Path) -> SegmentNetwork:
        """Start and segment as the bundle computes them, whatever its loop."""
        from .measure.drift import SegmentNetwork

        kept = self.checkpoint.kept_identifiers

        def with_rows(calls: Calls) -> Calls:
            """The start asked by identifier, as engines are, not by row."""
            return lambda tokens, *own: calls[0](tokens, *(rows_of(each, kept) for each in own)), calls[1]

        halts = self.checkpoint.config.no_ACT_continue
        if self.options.target != "coreml":
            calls = load_segments(self.traced.start, built.segment, self.options.target, folder, self.threads)
            return SegmentNetwork(*with_rows(calls), no_ACT_continue=halts)
        # Precision is Core ML's own there, so that the graph alone does not have it.
        options = replace(self.options, loop="host", batch=_DRIFT_ROWS)
        plan = self.decision.plan if self.decision else None
        graphs = build_graphs(self.checkpoint, self.traced, options, plan).graphs
        calls = load_packages(graphs, folder, Context(self.checkpoint, options, apart=True), self.threads)
        return SegmentNetwork(*with_rows(calls), no_ACT_continue=halts, batch=_DRIFT_ROWS)

    @property
    def _timed(self) -> bool:
        """Whether the time that answers take here says anything: an interpreter's does not."""
        return self._stood_in is None

    def _speed(self, scratch: Path) -> list[dict[str, Any]]:
        """The bundle beside PyTorch eager on the same weights, in a few interleaved rounds."""
        from .measure.artifact import open_artifact
        from .measure.speed import Settings, bench

        batch = self.options.batch or 1
        threads = self.threads or torch.get_num_threads()
        settings = Settings(threads, batch, _TIMED_ROUNDS, _TIMED_SEGMENTS, per_round=2)
        assert self.gate.puzzles is not None
        artifacts = [open_artifact(path, threads) for path in (self.checkpoint.path, scratch)]
        return [asdict(row) for row in bench(artifacts, self.gate.puzzles, settings).rows]


def export_bundle(
    checkpoint: Checkpoint,
    options: ExportOptions,
    folder: Path,
    gate: GateOptions,
    quantizing: Quantizing | None = None,
    *,
    threads: int | None = None,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Exported:
    """Build a bundle, prove it and publish it at ``folder``, whole or not at all.

    Raises:
        InputError: options or puzzles that do not fit.
        GateFailed: it answers worse than allowed, or is not quantized as was asked; nothing is published, and
            a bundle that stood there before is kept.
    """
    return _Export(checkpoint, options, gate, quantizing or Quantizing(), threads, say, progress).run(folder)


def _for_drift(puzzles: PuzzleSet, reference: Answers, candidate: Answers) -> np.ndarray:
    """Rows to follow segment by segment: the first few, and those that are answered differently."""
    differ = np.flatnonzero((reference.tokens != candidate.tokens).any(axis=1))
    if len(differ) > _FEW_DIFFERING:
        differ = differ[:_SOME_DIFFERING]
    return np.union1d(np.arange(min(_DRIFT_PUZZLES, len(puzzles))), differ)
