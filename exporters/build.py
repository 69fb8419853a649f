"""The pipeline: checkpoint → segment → precision → loop → target, sealed as a bundle that no gate has seen yet."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx

from .. import __version__
from ..bundle import Gate, Manifest, TensorSpec, seal_bundle
from ..errors import InputError
from ..models import Checkpoint
from . import fp16
from .loop import LoopFacts, wrap_in_loop
from .passes import fix_batch
from .plan import QUANTIZED, Plan
from .quantize import Quantizing, decide
from .segment import trace_segment, trace_start

# Target → the module beside this file that writes it: `write_graph(model, folder, stem) -> file name`.
TARGETS = {"onnx": "onnx", "openvino": "openvino"}
# Precision → what converts a traced segment in place, and the dtype of each part of the network after it.
PRECISIONS: dict[str, tuple[Callable[[onnx.ModelProto], None] | None, dict[str, str]]] = {
    "fp32": (None, dict.fromkeys(fp16.PARTS, "float32")),
    "fp16": (fp16.convert_to_fp16, fp16.PARTS),
}
ALL_PRECISIONS = (*PRECISIONS, *QUANTIZED)
LOOPS = ("graph", "host")
# What users may well ask for, and will get.
_LATER = {"tensorrt", "coreml"}
# Puzzles to calibrate on when nobody looks at the answers: for timing, the scales need not be good.
_FEW = 4

# Bytes of weights; protobuf's limit is 2 GiB for the whole file, and the nodes need some of it.
_LARGEST = 2_100_000_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """What to build. ``batch``: rows of every call, or None for any number.

    Raises:
        InputError: a value is unknown, or not in this version.
    """

    target: str = "onnx"
    precision: str = "fp32"
    loop: str = "graph"
    batch: int | None = None

    def __post_init__(self) -> None:
        for flag, value, known in (
            ("--target", self.target, tuple(TARGETS)),
            ("--precision", self.precision, ALL_PRECISIONS),
            ("--loop", self.loop, LOOPS),
        ):
            if value in _LATER:
                raise InputError(f"{flag} {value}: not in this version; choose {' or '.join(known)}")
            if value not in known:
                raise InputError(f"{flag} {value}: unknown; choose {' or '.join(known)}")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"--batch must be a number of rows, at least 1, or dynamic, not {self.batch}")

    @property
    def suffix(self) -> str:
        """Tells bundles of one checkpoint apart: ``onnx-fp32-graph``."""
        return f"{self.target}-{self.precision}-{self.loop}"


@dataclass(frozen=True)
class Traced:
    """A checkpoint's two float graphs, clean, before anything was decided."""

    start: onnx.ModelProto
    segment: onnx.ModelProto


@dataclass(frozen=True)
class Built:
    """A bundle's graphs by stem, before any target has seen them, and the products that are low-precision."""

    graphs: dict[str, onnx.ModelProto]
    segment: onnx.ModelProto  # converted or quantized, not wrapped
    products: list[str]


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
    if precision not in QUANTIZED:
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
    return write_graphs(checkpoint, options, built, folder, name, plan, say)


def write_graphs(
    checkpoint: Checkpoint,
    options: ExportOptions,
    built: Built,
    folder: Path,
    name: str,
    plan: Plan | None = None,
    say: Say = lambda stage: None,
) -> Manifest:
    """Hand the graphs to the target and seal the bundle; see :func:`build_bundle`."""
    target = importlib.import_module(f".{TARGETS[options.target]}", __package__)
    graphs = built.graphs
    say(f"writing {options.target}")
    files = {stem: target.write_graph(model, folder, stem) for stem, model in graphs.items()}
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
        precision_parts=plan.parts(options.target) if plan else dict(PRECISIONS[options.precision][1]),
        loop=options.loop,
        batch=options.batch or "dynamic",
        graphs=files,
        inputs={stem: _specs(model.graph.input) for stem, model in graphs.items()},
        outputs={stem: _specs(model.graph.output) for stem, model in graphs.items()},
        source={"name": checkpoint.name, "content_hash": checkpoint.content_hash},
        tools=_tools(target.PACKAGES),
        gate=Gate(ran=False, passed=None, reason="not run yet"),
    )
    return seal_bundle(folder, manifest)


def trace(checkpoint: Checkpoint, say: Say = lambda stage: None) -> Traced:
    """Both float graphs of a checkpoint. Raises InputError when its weights are too many for one file."""
    size = 4 * sum(weight.numel() for weight in checkpoint.model.parameters())
    if size > _LARGEST:
        raise InputError(
            f"{checkpoint.path}: {size / 1e9:.1f} GB of weights do not fit one ONNX file (2 GiB at most)"
        )
    say("tracing one segment")
    return Traced(trace_start(checkpoint.model), trace_segment(checkpoint.model))


def build_graphs(
    checkpoint: Checkpoint,
    traced: Traced,
    options: ExportOptions,
    plan: Plan | None = None,
    say: Say = lambda stage: None,
) -> Built:
    """The bundle's graphs: start and segment, or model. ``traced`` stays as it is."""
    segment = onnx.ModelProto.FromString(traced.segment.SerializeToString())
    low: list[str] = []
    if plan is not None:
        say(f"quantizing it to {options.precision}")
        segment, low = plan.apply(segment, options.target)
    else:
        convert, _ = PRECISIONS[options.precision]
        if convert is not None:
            say(f"converting it to {options.precision}")
            convert(segment)
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
    return Built(graphs, segment, low)


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
        specs.append(TensorSpec(value.name, dtype, shape))
    return tuple(specs)


def _tools(packages: tuple[str, ...]) -> dict[str, str]:
    tools = {"hrm-edge": __version__}
    for package in ("torch", "onnxscript", *packages):
        try:
            tools[package] = version(package)
        except PackageNotFoundError:  # a build that carries no metadata
            tools[package] = "unknown"
    return tools
