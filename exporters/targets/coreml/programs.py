"""A bundle's graphs as ML programs: one .mlpackage folder each, or one that keeps its state on the device.

float32 is computed in float32, every other precision in float16, which is what the Neural Engine runs.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import onnx

from ....bundle import TensorSpec
from ....errors import InputError
from ....packages import install
from ....precision import PRECISIONS
from ...graph.trace import quiet
from ...options import ExportOptions
from ..base import Context, Written
from .lowering import Lowering, binding, compiled, lower, program
from .package import write_package
from .weights import Numbers

# The first system that has states.
_NEW = 18


def write_programs(graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
    """Write a package for each graph; on iOS 18 a host loop in float16 is one whose state stays on the device."""
    options, folder = context.options, context.folder
    if importlib.util.find_spec("coremltools") is None:
        raise InputError(f"target coreml needs coremltools, which is not installed; run: {install('coreml')}")
    numbers = numbers_of(options)
    with quiet():
        if keeps_state(options) and not context.apart:
            programs = {"stateful": lower_stateful(graphs["start"], graphs["segment"], numbers)}
        else:
            programs = {name: lower(model, numbers) for name, model in graphs.items()}
    files: dict[str, str] = {}
    inputs, outputs = {}, {}
    for name, made in programs.items():
        files[name] = f"{name}.mlpackage"
        with quiet():
            model = compiled(made, numbers)
            write_package(model, folder / files[name], context.checkpoint, options, name)
        described = model.get_spec().description
        inputs[name], outputs[name] = _specs(described.input), _specs(described.output)
    return Written(files, inputs, outputs)


def keeps_state(options: ExportOptions) -> bool:
    """Whether the state stays on the device between segments: Core ML's states are float16, from iOS 18 on."""
    return options.loop == "host" and not PRECISIONS[options.precision].is_full and options.ios >= _NEW


def numbers_of(options: ExportOptions) -> Numbers:
    """How a precision computes and stores floats."""
    precision = PRECISIONS[options.precision]
    bits = precision.bits if precision.family == "palette" else None
    return Numbers(half=not precision.is_full, ios=options.ios, bits=bits)


def lower_stateful(start: onnx.ModelProto, segment: onnx.ModelProto, numbers: Numbers) -> Any:
    """One program for a host loop: a segment on every row, from its state or, where ``fresh``, from the start."""
    from coremltools.converters.mil import Builder as mb

    inputs = {value.name: binding(value) for value in start.graph.input}
    states = {value.name: binding(value)[1] for value in segment.graph.input if value.name != "e"}
    rows = inputs["tokens"][1][0]

    def body(given: dict[str, Any]) -> dict[str, Any]:
        begun = Lowering(start.graph, numbers, given, prefix="start_").run()
        is_fresh = mb.greater(x=given["fresh"], y=0.5)
        masks: dict[int, Any] = {}  # by rank
        for name, shape in states.items():
            rank = len(shape)
            if rank not in masks:
                called = "is_fresh" if rank == 3 else f"is_fresh_{rank}"
                masks[rank] = mb.expand_dims(x=is_fresh, axes=list(range(1, rank)), name=called)
            before = mb.read_state(input=given[name], name=f"{name}_before")
            begun[name] = mb.select(cond=masks[rank], a=begun[name], b=before, name=f"{name}_begin")
        results = Lowering(segment.graph, numbers, begun).run()
        for name in states:
            mb.coreml_update_state(state=given[name], value=results[f"{name}_next"])
        return {name: results[name] for name in ("logits", "q")}

    fresh = {"fresh": ("float32", (rows,))}
    kept = {name: ("state", shape) for name, shape in states.items()}
    return program({**inputs, **fresh, **kept}, body, numbers)


def _specs(bindings: Any) -> tuple[TensorSpec, ...]:
    from coremltools.proto import FeatureTypes_pb2

    kinds = {FeatureTypes_pb2.ArrayFeatureType.FLOAT32: "float32", FeatureTypes_pb2.ArrayFeatureType.INT32: "int32"}
    arrays = [(item.name, item.type.multiArrayType) for item in bindings]
    return tuple(TensorSpec(name, kinds[array.dataType], tuple(array.shape)) for name, array in arrays)
