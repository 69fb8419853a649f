"""Run an ONNX model in memory with a backend, arrays by name."""

import numpy as np
import onnx
import pytest


def run(backend: str, model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    return {"onnx": _onnxruntime, "openvino": _openvino}[backend](model.SerializeToString(), feeds)


def _onnxruntime(content, feeds):
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _openvino(content, feeds):
    import openvino

    core = openvino.Core()
    model = core.read_model(model=content)
    names = [output.any_name for output in model.outputs]
    result = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feeds)
    return {name: result[i] for i, name in enumerate(names)}
