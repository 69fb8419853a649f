"""The pipeline: checkpoint → segment → precision → loop → target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx

from .. import __version__
from ..bundle import Gate, Manifest
from ..errors import InputError
from ..files import readable_name
from ..identifiers import format_ranges
from ..models import Checkpoint
from ..models.network import Wrapped
from ..packages import version_of
from ..precision import PRECISIONS
from ..progress import Progress, Say
from ..runtimes.base import CompiledProduct
from ..tasks.carried import write_task
from .describe import describe
from .explain import explain
from .graph.edit import copied
from .graph.layers import products
from .graph.loop import wrap_in_loop
from .graph.passes import fix_batch
from .graph.trace import programs, trace_segment, trace_start
from .network import traced
from .options import ExportOptions
from .quantize import fp16
from .quantize.plan import Calibrator, Plan, Recipe
from .search.decide import Quantizing, decide
from .targets import target_named
from .targets.base import Context
from .triton import TRITON, arrange

# When few look at the answers the scales need not be good. When nobody can, as the weights are random and only time
# is measured, one segment of one puzzle makes them and weights are rounded to nearest: seconds at the paper's size.
QUICK = Quantizing(calibration=4, sensitivity=0, max_drop=None)
UNREAD = Quantizing(Recipe("minmax", "first", 0.0), calibration=1, sensitivity=0, max_drop=None)

# Bytes of weights; protobuf's limit is 2 GiB for the whole file, and the nodes need some of it.
_LARGEST = 2_100_000_000


@dataclass(frozen=True)
class BundleGraphs:
    """A bundle's graphs by stem, before any target has seen them, and the products that are low-precision."""

    graphs: dict[str, onnx.ModelProto]
    segment: onnx.ModelProto  # converted or quantized, not wrapped
    products: list[str]  # names of those that are to be computed in the precision asked for


def quick_plan(
    checkpoint: Checkpoint,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    precision: str,
    target: str,
    calibrators: dict[str, Calibrator] | None = None,
    say: Say = lambda stage: None,
    progress: Progress | None = None,
    wanted: Quantizing = QUICK,
) -> Plan | None:
    """A plan that nobody has tried, for timing, where the precision needs one. Any target may take it.

    ``calibrators``: see :func:`.search.decide.decide`; ``wanted``: ``QUICK``, or ``UNREAD``.
    """
    if not PRECISIONS[precision].calibrated:
        return None
    more: dict[str, Any] = {"say": say, "progress": progress, "calibrators": calibrators}
    plan = decide(checkpoint, start, segment, precision, target, wanted, **more).plan
    return replace(plan, nearest=True) if wanted is UNREAD else plan


def write_graphs(
    graphs: dict[str, onnx.ModelProto], context: Context, name: str
) -> tuple[Manifest, list[CompiledProduct] | None]:
    """Hand the graphs of the bundle ``name`` to the target: what the bundle is to say of itself, not sealed yet.

    And its products, where the target's compiler told of them.
    """
    checkpoint, options = context.checkpoint, context.options
    target, config = target_named(options.target), checkpoint.config
    context.say(f"writing {options.target}")
    for stem, model in graphs.items():
        describe(model, checkpoint, options, stem)
    torch_programs = programs(checkpoint.model, options.batch) if target.wants == "torch" else None
    written = target.write(torch_programs or graphs, context)
    if options.layout == TRITON:
        written = arrange(written, context.folder, checkpoint.name)
    packages = ("torch", "onnxscript", "onnx", *target.packages)
    manifest = Manifest(
        name=readable_name(name),
        task=checkpoint.task.name,
        vocabulary=tuple(checkpoint.task.vocabulary),
        architecture={
            **config.to_dict(),
            "prefix_len": config.prefix_len,
            "parameters": sum(weight.numel() for weight in checkpoint.model.parameters()),
            "segment_flops": checkpoint.model.segment_flops,
            **written.facts,
        },
        target=options.target,
        precision=options.precision,
        precision_parts=target.parts(PRECISIONS[options.precision], context.plan),
        loop=options.loop,
        batch=options.batch or "dynamic",
        graphs=written.graphs,
        inputs=written.inputs,
        outputs=written.outputs,
        source=_source(checkpoint),
        # A build that carries no metadata has no version.
        tools={"hrm-edge": __version__, **{name: version_of(name) or "unknown" for name in packages}},
        gate=Gate(ran=False, passed=None, reason="not run yet"),
    )
    write_task(checkpoint.task, context.folder)
    if options.layout != TRITON:  # to whose server every folder is a model
        target.finish(manifest, context)
    explain(context.folder, manifest, checkpoint.task)
    return manifest, written.compiled


def _source(checkpoint: Checkpoint) -> dict[str, str]:
    """The checkpoint, whose puzzle identifiers it was trained with, and those whose rows its table has left."""
    source = {"name": readable_name(checkpoint.name), "content_hash": checkpoint.content_hash}
    kept, numbering = checkpoint.kept_identifiers, checkpoint.numbering
    if kept is not None:
        source["puzzle_identifiers"] = format_ranges(kept)
        if numbering is not None:
            source["num_puzzle_identifiers"] = str(numbering.count)
    if numbering is not None and numbering.names is not None:
        source["identifiers"] = numbering.names
    return source


def trace(checkpoint: Checkpoint, say: Say = lambda stage: None) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A checkpoint's start and segment, float and clean. InputError when its weights are too many for one file."""
    size = 4 * sum(weight.numel() for weight in checkpoint.model.parameters())
    if size > _LARGEST:
        raise InputError(
            f"{checkpoint.path}: {size / 1e9:.1f} GB of weights do not fit one ONNX file (2 GiB at most)"
            + ("; keep fewer puzzles with --puzzle-identifiers" * (checkpoint.config.num_puzzle_identifiers > 1))
        )
    say("tracing one segment")
    if isinstance(checkpoint.model, Wrapped):
        return traced(checkpoint.model)
    return trace_start(checkpoint.model), trace_segment(checkpoint.model)


def build_graphs(
    checkpoint: Checkpoint,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    options: ExportOptions,
    plan: Plan | None = None,
    say: Say = lambda stage: None,
) -> BundleGraphs:
    """The bundle's graphs: start and segment, or model. The float graphs they are made from stay as they are."""
    if plan is not None:
        say(f"quantizing it to {options.precision}")
        segment, low = plan.apply(segment, options.target)
    else:
        segment = copied(segment)
        low = [product.name for product in products(segment)]
        precision = PRECISIONS[options.precision]
        if not (precision.is_full or target_named(options.target).lowers_floats):
            say(f"converting it to {options.precision}")
            fp16.convert(segment, precision)
    if options.loop == "graph":
        say("wrapping it in the halting loop")
        graphs = {"model": wrap_in_loop(start, segment, checkpoint.task, checkpoint.config.no_ACT_continue)}
    else:
        graphs = {"start": copied(start), "segment": copied(segment)}
    if options.batch is not None:
        for model in graphs.values():
            fix_batch(model, options.batch)
    return BundleGraphs(graphs, segment, low)
