"""Export from beginning to end: decide, build, prove, gate, report, and only then publish.

Called, it is :func:`hrm_edge.exporting.export`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from .bundle import Gate, require_replaceable, seal_bundle
from .bundle.examples import write_examples
from .bundle.manifest import Manifest
from .bundle.quantization import QUANTIZATION, Products, Quantization
from .callables import make_callable
from .data.puzzles import PuzzleSet
from .errors import ArtifactError, GateFailed
from .exporters import emulator
from .exporters.audit import prove
from .exporters.build import BundleGraphs, build_graphs, trace, write_graphs
from .exporters.drift import drift_of
from .exporters.explain import explain
from .exporters.options import ExportOptions
from .exporters.quantize.plan import Calibrator, Plan, wrong_scales
from .exporters.search.decide import Decision, Quantizing, calibration_puzzles, decide, record
from .exporters.targets import target_named
from .exporters.targets.base import Context, Target
from .exporters.triton import TRITON, configure
from .files import replacing_folder
from .measure.gate import GateReport, Judged, judge
from .measure.selftest import answer_alone
from .measure.speed import beside_eager
from .models import Checkpoint
from .precision import FP32, PRECISIONS, Precision
from .progress import Progress, Say
from .runtimes import load_engine
from .runtimes.base import CompiledProduct
from .tasks import Task
from .text import printable

make_callable(__name__, "hrm_edge.exporting:export")


@dataclass(frozen=True)
class GateOptions:
    """How accuracy is compared.

    ``reference``: another checkpoint to hold the bundle to; ``report``: write one. ``more(n)``: a set of n puzzles
    that begins with these, InputError where there are not so many; None: none are left to be asked. ``not_judged``:
    publish also where the reference solves none, as what nobody judged.
    """

    puzzles: PuzzleSet | None  # None: not at all
    max_drop: float = 0.5
    reference: Checkpoint | None = None
    report: bool = True
    more: Callable[[int], PuzzleSet] | None = None
    not_judged: bool = False


@dataclass
class Shared:
    """What exports of one checkpoint have in common, made by the first that needs it.

    ``graphs``: start and segment in float; ``calibrators`` by puzzles. ``decisions``: by precision how to quantize,
    which another target then takes as it is, and the gate judges.
    """

    graphs: tuple[onnx.ModelProto, onnx.ModelProto] | None = None
    calibrators: dict[str, Calibrator] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What was published. It stands for its folder wherever a path does: ``hrm_edge.load(exported)``."""

    folder: Path
    task: Task
    options: ExportOptions
    manifest: Manifest
    gate: GateReport | None
    quantization: Quantization | None
    products: Products | None  # what the backend compiled, where it was looked at

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        judged = f"gate {self.gate.reason}" if self.gate else "not gated"
        return printable(f"{self.folder}: {self.size_mb:.2f} MB, {judged}")

    @functools.cached_property
    def size_mb(self) -> float:
        """All files of the folder, in 10⁶ bytes."""
        return round(sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 1e6, 3)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `hrm-edge export --json`."""
        facts = None
        if record := self.quantization:
            # The figures that a script would look at; all of the record is in the bundle.
            products = record.products
            facts = {
                "products": products and {"expected": products.expected, "found": products.found},
                "weights_ratio": record.weights_bytes / record.float_weights_bytes,
                "kept": {layer.name: layer.kept for layer in record.layers if layer.kept},
            }
        return {
            "bundle": str(self.folder),
            "accuracy": self.gate.to_dict() if self.gate else None,
            "passed": self.gate and self.gate.passed,
            "size_mb": self.size_mb,
            "quantization": facts,
        }


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
    shared: Shared | None = None,
) -> Exported:
    """Build a bundle, prove it and publish it at ``folder``, whole or not at all.

    ``shared``: what is handed from one export of a checkpoint to the next, where this is one of several.

    Raises:
        InputError: options or puzzles that do not fit, or a folder that may not be replaced or is written to.
        GateFailed: it answers worse than allowed, or is not quantized as was asked; nothing is published, and
            a bundle that stood there before is kept.
    """
    wanted = quantizing or Quantizing()
    alone = shared is None
    return _Export(checkpoint, options, gate, wanted, threads, say, progress, shared or Shared(), alone).run(folder)


@dataclass
class _Export:
    """One export under way. Every stage fills in what the next ones read."""

    checkpoint: Checkpoint
    options: ExportOptions
    gate: GateOptions
    quantizing: Quantizing
    threads: int | None
    say: Say
    progress: Progress | None
    shared: Shared
    alone: bool  # whether the bundle is what was asked for, and no part of it

    calibration: PuzzleSet | None = None
    start: onnx.ModelProto = field(init=False)
    segment: onnx.ModelProto = field(init=False)  # in float, as it was traced
    decision: Decision | None = None  # None: the precision leaves nothing to decide
    graphs: BundleGraphs = field(init=False)
    scratch: Path = field(init=False)
    manifest: Manifest = field(init=False)
    products: Products | None = None
    quantization: Quantization | None = None
    judged: Judged | None = None

    def run(self, folder: Path) -> Exported:
        gated = self.gate.puzzles is not None
        check = lambda place: require_replaceable(place, gated=gated)  # noqa: E731
        with replacing_folder(folder, check, result=self.alone) as self.scratch:
            self._calibrate()
            self._trace()
            self._decide()
            self._build()
            compiled = self._write(folder.name)
            self._prove(compiled, str(folder))
            self._judge(str(folder))
            gated = bool(self.manifest.gate.passed)  # one that was not judged takes no gated one's place either
            self._report()
            facts = self._seal(), self._verdict, self.quantization, self.products
            return Exported(folder, self.checkpoint.task, self.options, *facts)

    @property
    def _precision(self) -> Precision:
        return PRECISIONS[self.options.precision]

    @property
    def _target(self) -> Target:
        return target_named(self.options.target)

    @property
    def _verdict(self) -> GateReport | None:
        return self.judged.report if self.judged else None

    @property
    def _plan(self) -> Plan | None:
        return self.decision.plan if self.decision else None

    def _stage(self, stage: str) -> None:
        self.say(f"export: {stage}")

    def _calibrate(self) -> None:
        """The puzzles to calibrate on. Before the rest, as a trace takes long and there may be none."""
        if self._precision.calibrated:
            self.calibration = calibration_puzzles(self.checkpoint, self.quantizing, self.gate.puzzles)

    def _trace(self) -> None:
        if self.shared.graphs is None:
            self.shared.graphs = trace(self.checkpoint, self._stage)
        self.start, self.segment = self.shared.graphs

    def _decide(self) -> None:
        """How to quantize, where the precision leaves anything to decide."""
        if not self._precision.calibrated:
            return
        decisions, precision = self.shared.decisions, self.options.precision
        if precision in decisions:
            self.decision = decisions[precision]
            return
        wanted = self.quantizing if self.gate.puzzles is not None else replace(self.quantizing, max_drop=None)
        self.decision = decide(
            self.checkpoint,
            self.start,
            self.segment,
            precision,
            self.options.target,
            wanted,
            measured=self.gate.puzzles,
            calibration=self.calibration,
            threads=self.threads,
            say=self._stage,
            progress=self.progress,
            calibrators=self.shared.calibrators,
        )
        decisions[precision] = self.decision

    def _build(self) -> None:
        self.graphs = build_graphs(self.checkpoint, self.start, self.segment, self.options, self._plan, self._stage)

    def _write(self, name: str) -> list[CompiledProduct] | None:
        """The products that the target's compiler told of, if it did."""
        context = Context(self.checkpoint, self.options, self.scratch, self._stage, self._plan)
        self.manifest, compiled = write_graphs(self.graphs.graphs, context, name)
        return compiled

    def _prove(self, compiled: list[CompiledProduct] | None, what: str) -> None:
        """GateFailed unless what was compiled is what was asked for; then the quantization is written down."""
        if not self._target.audits(self._precision):
            return
        files = [self.scratch / name for name in dict.fromkeys(self.manifest.graphs.values())]
        self.products = prove(self.options, files, compiled, self.graphs.products, what)
        if self.decision is None:
            return
        if wrong := wrong_scales(self.decision.plan, self.graphs.segment):
            raise GateFailed(f"{what}: {wrong[0]}; nothing was published")
        in_full = replace(self.options, precision=FP32.name)
        plain = build_graphs(self.checkpoint, self.start, self.segment, in_full)
        self.quantization = record(
            self.decision,
            self.checkpoint,
            self.segment,
            self.options.target,
            self.graphs.graphs.values(),
            plain.graphs.values(),
            self.products,
        )
        (self.scratch / QUANTIZATION).write_bytes(self.quantization.to_json().encode())

    def _judge(self, what: str) -> None:
        """GateFailed where the bundle, run as its user would run it, answers too many puzzles wrong."""
        puzzles = self.gate.puzzles
        if puzzles is None:
            self.manifest = replace(
                self.manifest, gate=Gate(ran=False, passed=None, reason="exported with --no-gate")
            )
            return
        self._seal()
        instead = None if self._target.runs_here() else (emulator.NAME, emulator.load_graph)
        engine = load_engine(self.scratch, self.threads, stand_in=instead)
        reference = self.gate.reference or self.checkpoint
        try:
            # Half of the calls have several rows, which those give who ask the graph without this code.
            found = judge(
                engine.in_whole_calls(),
                reference,
                puzzles,
                self.gate.more,
                max_drop=self.gate.max_drop,
                say=self.say,
                progress=self.progress,
            )
        except ArtifactError as error:
            raise GateFailed(f"{what}: {str(error).rpartition(';')[0]}; nothing was published") from error
        stand_in = self._target.stood_in_by()
        notes = (stand_in, *found.report.notes) if stand_in else found.report.notes
        self.judged = replace(found, report=replace(found.report, notes=notes))
        limit, halt, arithmetic = found.report.max_think_steps, found.report.halt, found.report.arithmetic
        write_examples(
            self.scratch,
            found.puzzles,
            found.bundle,
            limit,
            halt,
            arithmetic,
            self._precision.q_tolerance,
            ask=lambda few: answer_alone(engine, few.questions, few.identifiers, limit, halt),
        )
        if self.gate.not_judged and found.report.only_unjudged:
            gate = Gate(ran=False, passed=None, reason=f"not judged: {found.report.reason}")
        else:
            dropped = found.report.drop_points > found.report.max_drop
            found.report.raise_if_failed(what, self._precision.advice(dropped))
            gate = Gate(ran=True, passed=True, reason=stand_in)
        self.manifest = replace(self.manifest, gate=gate)

    def _report(self) -> None:
        """Measure drift and time, and write the accuracy report, where answers were compared that may differ."""
        if self.judged is None or not self.gate.report or self._precision.is_full:
            return
        from .report import build_report, write_report

        puzzles = self.judged.puzzles
        answers = self.judged.reference, self.judged.bundle
        sealed = self._seal()
        self._stage("measuring for the report")
        rollout = drift_of(
            self.checkpoint,
            self.start,
            self.graphs.segment,
            self.options,
            self._plan,
            puzzles,
            answers,
            reference=self.gate.reference,
            threads=self.threads,
            progress=self.progress,
        )
        timed = self._target.stood_in_by() is None
        batch = self.options.batch or 1
        report = build_report(
            manifest=sealed,
            gate=self.judged.report.to_dict(),
            quantization=self.quantization,
            puzzles=puzzles,
            reference=answers[0],
            candidate=answers[1],
            drift=rollout.segments,
            differences=rollout.differences,
            speed=beside_eager(self.checkpoint.path, self.scratch, puzzles, batch, self.threads) if timed else [],
            bundle_bytes=sum(entry.size for entry in sealed.files.values()),
        )
        write_report(report, self.scratch)

    def _seal(self) -> Manifest:
        """Seal the bundle as it is now, with what it says of itself."""
        accuracy = self._verdict.to_dict() if self._verdict else None
        notes = configure(self.scratch, self.manifest) if self.options.layout == TRITON else ()
        explain(self.scratch, self.manifest, self.checkpoint.task, accuracy, notes)
        return seal_bundle(self.scratch, self.manifest, accuracy)
