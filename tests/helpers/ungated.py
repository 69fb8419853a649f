"""Bundles of small networks that no gate has seen."""

from __future__ import annotations

from pathlib import Path

import onnx

from hrm_edge.bundle import Manifest, seal_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.quantize.plan import Plan
from hrm_edge.exporters.targets.base import Context
from hrm_edge.models import Checkpoint


def command_untrained(arguments: list[str], traces: Path | None) -> None:
    """``hrm-edge ARGUMENTS`` in a process of its own, under conftest's `untrained` and `quick_export`."""
    import shared_traces

    from hrm_edge.benchmark import run
    from hrm_edge.cli import main
    from hrm_edge.measure import cold, speed
    from hrm_edge.measure.gate import GateReport

    GateReport.judged = True
    shared_traces.folder = traces
    build.trace_start, build.trace_segment = shared_traces.trace_start, shared_traces.trace_segment
    run.peak_memory = speed.peak_memory = lambda *_, **__: (cold.own_peak_mb(), "")
    main(arguments)


def build_bundle(checkpoint: Checkpoint, options: ExportOptions, folder: Path, name: str) -> Manifest:
    """Trace, plan (from a handful of puzzles), write into the empty ``folder`` and seal."""
    start, segment = build.trace(checkpoint)
    plan = build.quick_plan(checkpoint, start, segment, options.precision, options.target)
    return write_bundle(checkpoint, start, segment, options, folder, name, plan)


def write_bundle(
    checkpoint: Checkpoint,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    options: ExportOptions,
    folder: Path,
    name: str,
    plan: Plan | None = None,
) -> Manifest:
    """The same from what is traced and planned already."""
    graphs = build.build_graphs(checkpoint, start, segment, options, plan).graphs
    manifest, _ = build.write_graphs(graphs, Context(checkpoint, options, folder, plan=plan), name)
    return seal_bundle(folder, manifest)
