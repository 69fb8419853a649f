"""The pipeline: checkpoint → segment → precision → loop → target, sealed as a bundle that no gate has seen yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from .. import __version__
from ..bundle import Gate, Manifest, seal_bundle
from ..errors import InputError
from ..identifiers import format_ranges
from ..models import Checkpoint
from ..packages import version_of
from ..precision import PRECISIONS
from ..progress import Say
from ..runtimes.base import CompiledProduct
from .graph.layers import products
from .graph.loop import LoopFacts, wrap_in_loop
from .graph.passes import fix_batch
from .graph.trace import programs, trace_segment, trace_start
from .options import ExportOptions
from .quantize import fp16
from .quantize.plan import Plan
from .search.decide import Quantizing, decide
from .targets import target_named
from .targets.base import Context

# Puzzles to calibrate on when nobody looks at the answers: for timing, the scales need not be good.
_FEW = 4

# Bytes of weights; protobuf's limit is 2 GiB for the whole file, and the nodes need some of it.
_LARGEST = 2_100_000_000


@dataclass(frozen=True)
class Traced:
    """A checkpoint's two float graphs, clean, before anything was decided."""

    start: onnx.ModelProto
    segment: onnx.ModelProto


@dataclass(frozen=True)
class BundleGraphs:
    """A bundle's graphs by stem, before any target has seen them, and the products that are low-precision."""

    graphs: dict[str, onnx.ModelProto]
    segment: onnx.ModelProto  # converted or quantized, not wrapped
    products: list[str]  # names of those that are to be computed in the precision asked for


@dataclass(frozen=True)
class Unsealed:
    """A bundle's files as its target wrote them. ``compiled``: its products, where the target's compiler told."""

    manifest: Manifest
    compiled: list[CompiledProduct] | None


def build_bundle(
    checkpoint: Checkpoint, options: ExportOptions, folder: Path, name: str, say: Say = lambda stage: None
) -> Manifest:
    """Write a checkpoint's bundle called ``name`` into the empty ``folder`` and seal it, its gate not run.

    ``say`` is told each stage as it begins. A quantized one gets scales from a handful of puzzles, good enough
    for timing; :func:`quantize.decide` makes a plan to ship.
    """
    traced = trace(checkpoint, say)
    plan = quick_plan(checkpoint, traced, options.precision, options.target)
    return write_bundle(checkpoint, traced, options, folder, name, plan, say)


def quick_plan(checkpoint: Checkpoint, traced: Traced, precision: str, target: str) -> Plan | None:
    """A plan that nobody has tried, for timing, where the precision needs one."""
    if not PRECISIONS[precision].calibrated:
        return None
    quick = Quantizing(calibration=_FEW, sensitivity=0, max_drop=None)
    return decide(checkpoint, traced.start, traced.segment, precision, target, quick).plan


def write_bundle(
    checkpoint: Checkpoint,
    traced: Traced,
    options: ExportOptions,
    folder: Path,
    name: str,
    plan: Plan | None = None,
    say: Say = lambda stage: None,
) -> Manifest:
    """As :func:`build_bundle`, from what is traced and planned already."""
    built = build_graphs(checkpoint, traced, options, plan, say)
    return seal_bundle(folder, write_graphs(checkpoint, options, built, folder, name, plan, say).manifest)


def write_graphs(
    checkpoint: Checkpoint,
    options: ExportOptions,
    built: BundleGraphs,
    folder: Path,
    name: str,
    plan: Plan | None = None,
    say: Say = lambda stage: None,
) -> Unsealed:
    """Hand the graphs to the target, and tell what its bundle is to say of itself."""
    target = target_named(options.target)
    say(f"writing {options.target}")
    context = Context(checkpoint, options, folder, say, plan)
    torch_programs = programs(checkpoint.model, options.batch) if target.wants == "torch" else None
    written = target.write(torch_programs or built.graphs, context)
    config = checkpoint.config
    manifest = Manifest(
        name=name,
        task=checkpoint.task.name,
        vocabulary=tuple(checkpoint.task.vocabulary),
        architecture={
            **config.to_dict(),
            "prefix_len": config.prefix_len,
            "parameters": sum(weight.numel() for weight in checkpoint.model.parameters()),
        },
        target=options.target,
        precision=options.precision,
        precision_parts=target.parts(PRECISIONS[options.precision], plan),
        loop=options.loop,
        batch=options.batch or "dynamic",
        graphs=written.graphs,
        inputs=written.inputs,
        outputs=written.outputs,
        source=_source(checkpoint),
        tools=_tools(target.packages),
        gate=Gate(ran=False, passed=None, reason="not run yet"),
    )
    target.finish(manifest, context)
    return Unsealed(manifest, written.compiled)


def _source(checkpoint: Checkpoint) -> dict[str, str]:
    """The checkpoint, and the puzzle identifiers whose rows its table has left."""
    source = {"name": checkpoint.name, "content_hash": checkpoint.content_hash}
    kept = checkpoint.kept_identifiers
    return source if kept is None else {**source, "puzzle_identifiers": format_ranges(kept)}


def trace(checkpoint: Checkpoint, say: Say = lambda stage: None) -> Traced:
    """Both float graphs of a checkpoint. Raises InputError when its weights are too many for one file."""
    size = 4 * sum(weight.numel() for weight in checkpoint.model.parameters())
    if size > _LARGEST:
        raise InputError(
            f"{checkpoint.path}: {size / 1e9:.1f} GB of weights do not fit one ONNX file (2 GiB at most)"
            + ("; keep fewer puzzles with --puzzle-identifiers" * (checkpoint.config.num_puzzle_identifiers > 1))
        )
    say("tracing one segment")
    return Traced(trace_start(checkpoint.model), trace_segment(checkpoint.model))


def build_graphs(
    checkpoint: Checkpoint,
    traced: Traced,
    options: ExportOptions,
    plan: Plan | None = None,
    say: Say = lambda stage: None,
) -> BundleGraphs:
    """The bundle's graphs: start and segment, or model. ``traced`` stays as it is."""
    segment = onnx.ModelProto.FromString(traced.segment.SerializeToString())
    low: list[str] = []
    if plan is not None:
        say(f"quantizing it to {options.precision}")
        segment, low = plan.apply(segment, options.target)
    else:
        low = [product.name for product in products(segment)]
        precision = PRECISIONS[options.precision]
        if not (precision.is_full or target_named(options.target).lowers_floats):
            say(f"converting it to {options.precision}")
            fp16.convert(segment, precision)
    if options.loop == "graph":
        say("wrapping it in the halting loop")
        facts = LoopFacts(checkpoint.task, checkpoint.config.no_ACT_continue)
        graphs = {"model": wrap_in_loop(traced.start, segment, facts)}
    else:
        start = onnx.ModelProto.FromString(traced.start.SerializeToString())
        graphs = {"start": start, "segment": onnx.ModelProto.FromString(segment.SerializeToString())}
    if options.batch is not None:
        for model in graphs.values():
            fix_batch(model, options.batch)
    return BundleGraphs(graphs, segment, low)


def _tools(packages: Sequence[str]) -> dict[str, str]:
    names = ("torch", "onnxscript", "onnx", *packages)
    # A build that carries no metadata has no version.
    return {"hrm-edge": __version__, **{name: version_of(name) or "unknown" for name in names}}
