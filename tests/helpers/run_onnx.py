"""Run an ONNX model in memory with a backend, arrays by name."""

import functools
from collections.abc import Callable

import numpy as np
import onnx
import pytest


def run(backend: str, model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    return _compiled(backend, model.SerializeToString(deterministic=True))(feeds)


@functools.lru_cache(maxsize=8)
def _compiled(backend: str, content: bytes) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Compiled once for the calls of a test, which often goes from segment to segment."""
    return {"onnx": _onnxruntime, "openvino": _openvino}[backend](content)


def _onnxruntime(content):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _openvino(content):
    from hrm_edge.runtimes.openvino import core

    model = core().read_model(model=content)
    names = [output.any_name for output in model.outputs]
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = core().compile_model(model, "CPU", settings)
    return lambda feeds: {name: value.copy() for name, value in zip(names, compiled(feeds).values(), strict=True)}
