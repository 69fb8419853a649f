"""ONNX graphs as TensorFlow Lite models, run by LiteRT from what was saved."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from hrm_edge.exporters.targets.litert.lowering import LiteRTLowering
from hrm_edge.runtimes import backend


def lowered(model: onnx.ModelProto, half: bool = False) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """A graph with fixed shapes, ready to run; made once a process."""
    return _lowered(model.SerializeToString(deterministic=True), half)


@functools.cache
def _lowered(content: bytes, half: bool) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        return backend("litert").load_graph(write(onnx.ModelProto.FromString(content), Path(folder), half), 1)


def write(model: onnx.ModelProto, folder: Path, half: bool = False) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(LiteRTLowering(model, half).serialized("a test's"))
    return path
