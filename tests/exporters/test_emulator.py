"""The emulator of a device computes the graph as it is written: against the same arithmetic in numpy."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from traced_networks import feeds, plan, traced

from hrm_edge.errors import InputError
from hrm_edge.exporters import emulator
from hrm_edge.exporters.graph.edit import tensor_of
from hrm_edge.exporters.quantize.fp16 import convert
from hrm_edge.precision import PRECISIONS

pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)


def run(model: onnx.ModelProto, tmp_path, inputs):
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return emulator.load_graph(path, 1)(inputs)


def graph(nodes, inputs, outputs, tensors, opset=20) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    sides = [[info(name, TensorProto.FLOAT, shape) for name, shape in side.items()] for side in (inputs, outputs)]
    made = helper.make_graph(nodes, "g", *sides, [tensor_of(array, name) for name, array in tensors.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    return model


def bfloat16(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def test_bfloat16_operators_round_once_each(tmp_path):
    x, w = RNG.normal(size=(4, 8)).astype(np.float32), RNG.normal(size=(8, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["narrow", "w"], ["product"]),
        helper.make_node("Mul", ["product", "product"], ["square"]),
        helper.make_node("Transpose", ["square"], ["turned"]),
        helper.make_node("Cast", ["turned"], ["y"], to=TensorProto.FLOAT),
    ]
    model = graph(nodes, {"x": (4, 8)}, {"y": (3, 4)}, {"w": w.astype(ml_dtypes.bfloat16)})
    product = bfloat16(bfloat16(x) @ bfloat16(w))
    expected = bfloat16(product * product).T
    np.testing.assert_array_equal(run(model, tmp_path, {"x": x})["y"], expected)
    assert not np.array_equal(expected, ((x @ w) ** 2).T)


def test_a_quantized_product_is_that_of_rounded_operands(tmp_path):
    """Values beyond the range clip at -128 and 127; the product itself is not rounded again."""
    x = np.array([[-3.0, 0.26, 0.24, 1.27, 9.0]], np.float32)
    steps, scale, step = (
        RNG.integers(-127, 128, (5, 3)).astype(np.int8),
        np.float32([0.1, 0.2, 0.3]),
        np.float32(0.01),
    )
    tensors = {"w": steps, "s": scale, "z": np.zeros(3, np.int8), "step": step, "zero": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["dw"], axis=1),
        helper.make_node("MatMul", ["dq", "dw"], ["y"]),
    ]
    model = graph(nodes, {"x": (1, 5)}, {"y": (1, 3)}, tensors)
    rounded = np.clip(np.rint(x.astype(np.float64) / 0.01), -128, 127) * 0.01
    np.testing.assert_allclose(run(model, tmp_path, {"x": x})["y"], rounded @ (steps * scale), rtol=1e-6)


@pytest.mark.parametrize("name", ["rope", "convolution"])
@pytest.mark.parametrize(("precision", "worst"), [("fp16", 0.02), ("bf16", 0.15)])
def test_a_halved_segment_stays_near_torch(tmp_path, precision, worst, name):
    model, _, segment = traced(name)
    inputs = feeds(model)
    convert(segment, PRECISIONS[precision])
    outputs = run(segment, tmp_path, inputs)
    import torch

    expected = [t.numpy() for t in model.segment(*(torch.from_numpy(inputs[name]) for name in ("z_H", "z_L", "e")))]
    for name, value in zip(("z_H_next", "z_L_next", "logits", "q"), expected, strict=True):
        error = np.abs(outputs[name] - value).max()
        assert 0 < error < worst, name


def test_int8_is_computed_as_written_not_as_onnxruntime_fuses_it(tmp_path):
    """Against a walk of the same graph by onnx's own reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    model, _, segment = traced("grid")
    quantized, _ = plan("grid").apply(segment, "tensorrt")
    inputs = feeds(model, rows=2)
    outputs = run(quantized, tmp_path, inputs)
    expected = dict(
        zip((v.name for v in quantized.graph.output), ReferenceEvaluator(quantized).run(None, inputs), strict=True)
    )
    for name, value in expected.items():
        # A sum in another order may cross a rounding boundary here and there.
        assert np.abs(outputs[name] - value).mean() < 1e-3, name


def test_a_file_that_is_no_graph_is_refused_in_one_line(tmp_path):
    model = graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], {"x": (1,)}, {"y": (1,)}, {})
    with pytest.raises(InputError, match=r"graph\.onnx: onnxruntime can not load it .*; export again") as caught:
        run(model, tmp_path, {})
    assert "\n" not in str(caught.value)
