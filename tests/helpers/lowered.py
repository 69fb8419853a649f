"""ONNX graphs as Core ML programs: lowered, saved, and run by the interpreter from what was saved."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.graph.trace import quiet
from hrm_edge.exporters.targets.coreml.lowering import compiled, lower
from hrm_edge.exporters.targets.coreml.weights import Numbers
from hrm_edge.runtimes.coreml.interpreter import Program, load_program


def program(model: onnx.ModelProto, numbers: Numbers | None = None) -> Program:
    """A graph with fixed shapes, ready to run; made once a process."""
    return _program(model.SerializeToString(deterministic=True), numbers or Numbers())


@functools.cache
def _program(content: bytes, numbers: Numbers) -> Program:
    with quiet():
        return saved(compiled(lower(onnx.ModelProto.FromString(content), numbers), numbers))


def saved(model: Any) -> Program:
    """A converted coremltools model as it reads from disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        with quiet():
            model.save(str(path))
        return load_program(path)


def plainly(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime without any optimisation: every node as it is written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def at_batch(model: onnx.ModelProto, rows: int) -> onnx.ModelProto:
    """A copy with a number of rows."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    fix_batch(copy, rows)
    return copy


def reroll(segment: Any, feeds: dict[str, np.ndarray], segments: int) -> list[dict[str, np.ndarray]]:
    """The outputs of segments that each begin where the one before ended."""
    outputs = []
    for _ in range(segments):
        outputs.append(segment(feeds))
        feeds = {"z_H": outputs[-1]["z_H_next"], "z_L": outputs[-1]["z_L_next"], "e": feeds["e"]}
    return outputs
