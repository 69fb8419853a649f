"""One case for each operator that targets lower, and the small graphs they are: nodes, inputs, constants."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
INT, FLOAT = TensorProto.INT32, TensorProto.FLOAT


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*shape: int, top: int = 4) -> np.ndarray:
    return RNG.integers(0, top, shape).astype(np.int32)


def long(*values) -> np.ndarray:
    return np.array(values, np.int64)


def node(op: str, inputs: str, output: str = "y", **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def model(nodes: list[onnx.NodeProto], inputs: dict, constants: dict, opset: int = 20) -> onnx.ModelProto:
    """A graph whose output is "y"; inputs of any type that our bindings have."""
    kinds = {np.dtype(np.float32): FLOAT, np.dtype(np.int32): INT}
    given_ = [helper.make_tensor_value_info(name, kinds[x.dtype], x.shape) for name, x in inputs.items()]
    stored = [numpy_helper.from_array(x, name) for name, x in constants.items()]
    graph = helper.make_graph(nodes, "one", given_, [onnx.ValueInfoProto(name="y")], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)


def as_number(name: str = "flag") -> onnx.NodeProto:
    return node("Cast", name, to=INT)


X, Y, N = floats(2, 3, 8), floats(2, 3, 8), ints(2, 5)
F = {"f": np.array([[True], [False]])}
CASES = {
    "add": (node("Add", "x z"), {"x": X, "z": Y}, {}),
    "add a number": (node("Add", "x n"), {"x": X}, {"n": np.float32(2.5)}),
    "sub": (node("Sub", "x z"), {"x": X, "z": floats(8)}, {}),
    "mul": (node("Mul", "x z"), {"x": X, "z": floats(3, 1)}, {}),
    "mul by ones": (node("Mul", "n x"), {"x": X}, {"n": np.ones(8, np.float32)}),
    "silu": ([node("Sigmoid", "x", "s"), node("Mul", "x s")], {"x": X}, {}),
    "silu, other order": ([node("Sigmoid", "x", "s"), node("Mul", "s x")], {"x": X}, {}),
    "gate of another": ([node("Sigmoid", "x", "s"), node("Mul", "s z")], {"x": X, "z": Y}, {}),
    "div": (node("Div", "x n"), {"x": X}, {"n": np.float32(3)}),
    "div by a root": ([node("Sqrt", "z", "s"), node("Div", "x s")], {"x": X, "z": np.abs(Y)}, {}),
    "square": (node("Pow", "x n"), {"x": X}, {"n": np.float32(2)}),
    "cube": (node("Pow", "x n"), {"x": X}, {"n": np.float32(3)}),
    "neg": (node("Neg", "x"), {"x": X}, {}),
    "stored product": (node("MatMul", "x w"), {"x": X}, {"w": floats(8, 5)}),
    "computed product": (node("MatMul", "x z"), {"x": X, "z": floats(2, 8, 4)}, {}),
    "gemm": (node("Gemm", "x w b", transB=1), {"x": floats(2, 8)}, {"w": floats(3, 8), "b": floats(3)}),
    "gemm as it is": (node("Gemm", "x w b"), {"x": floats(2, 8)}, {"w": floats(8, 3), "b": floats(3)}),
    "convolution": (
        node("Conv", "x w", kernel_shape=[3, 1], pads=[2, 0, 0, 0]),
        {"x": floats(2, 4, 5, 6)},
        {"w": floats(6, 4, 3, 1)},
    ),
    "convolution by channel": (
        node("Conv", "x w", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=4),
        {"x": floats(2, 4, 5, 6)},
        {"w": floats(4, 1, 3, 3)},
    ),
    "reshape": (node("Reshape", "x s", allowzero=1), {"x": X}, {"s": long(2, -1, 4)}),
    "reshape, 0 keeps": (node("Reshape", "x s"), {"x": X}, {"s": long(0, 6, -1)}),
    "transpose": (node("Transpose", "x", perm=[1, 2, 0]), {"x": X}, {}),
    "transpose of a product": (
        [node("Transpose", "z", "t", perm=[0, 2, 1]), node("MatMul", "x t")],
        {"x": X, "z": Y},
        {},
    ),
    "concat": (node("Concat", "x z x", axis=-1), {"x": X, "z": floats(2, 3, 1)}, {}),
    "concat ints": (node("Concat", "x z", axis=0), {"x": N, "z": ints(1, 5)}, {}),
    "embedding": (node("Gather", "t x", axis=0), {"x": N}, {"t": floats(4, 6)}),
    "one of an axis": (node("Gather", "x i", axis=1), {"x": X}, {"i": np.array(2)}),
    "one from the end": (node("Gather", "x i", axis=-1), {"x": X}, {"i": np.array(-1)}),
    "groups of cells": (node("Gather", "x i", axis=1), {"x": N}, {"i": long([0, 4], [3, 3], [1, 2])}),
    "expand a vector": (node("Expand", "v s"), {"v": floats(8)}, {"s": long(2, 3, 8)}),
    "expand by less": (node("Expand", "v s"), {"v": X}, {"s": long(1, 3, 1)}),
    "expand one": (node("Expand", "v s"), {"v": floats(1)}, {"s": long(4)}),
    "a shape that is computed": (
        [
            node("Shape", "x", "rows", start=0, end=1),
            node("Concat", "rows two", "s", axis=0),
            node("Expand", "n s"),
        ],
        {"x": N},
        {"two": long(3), "n": floats(1, 3)},
    ),
    "unsqueeze": (node("Unsqueeze", "x a"), {"x": X}, {"a": long(1, 3)}),
    "softmax": (node("Softmax", "x", axis=-1), {"x": X * 4}, {}),
    "softmax inside": (node("Softmax", "x", axis=1), {"x": X}, {}),
    "argmax": (
        [node("ArgMax", "x", "a", axis=-1, keepdims=0), node("Cast", "a", to=INT)],
        {"x": X},
        {},
    ),
    "mean": (node("ReduceMean", "x a", keepdims=1), {"x": X}, {"a": long(-1)}),
    "least of all": (node("ReduceMin", "x", keepdims=0), {"x": N}, {}),
    "largest of two axes": (node("ReduceMax", "x a", keepdims=0), {"x": X}, {"a": long(1, 2)}),
    "less of one": ([node("ReduceMin", "x a", keepdims=0)], {"x": X}, {"a": long(2)}),
    "greater": ([node("Greater", "x n", "flag"), as_number()], {"x": X}, {"n": np.float32(0.1)}),
    "larger": (node("Max", "x n"), {"x": N}, {"n": np.int32(2)}),
    "clip ints": (node("Clip", "x low high"), {"x": N}, {"low": np.int32(1), "high": np.int32(2)}),
    "equal": ([node("Equal", "x n", "flag"), as_number()], {"x": N}, {"n": np.array([[1], [2]], np.int32)}),
    "and": (
        [node("Greater", "x n", "a"), node("And", "a f", "flag"), as_number()],
        {"x": floats(2, 5)},
        {"n": np.float32(0), **F},
    ),
    "or": (
        [node("Greater", "x n", "a"), node("Or", "a f", "flag"), as_number()],
        {"x": floats(2, 5)},
        {"n": np.float32(0), **F},
    ),
    "not": (
        [node("Greater", "x n", "a"), node("Not", "a", "flag"), as_number()],
        {"x": X},
        {"n": np.float32(0)},
    ),
    "where": (
        [node("Greater", "c n", "flag"), node("Where", "flag x z")],
        {"x": X, "z": Y, "c": floats(2, 1, 1)},
        {"n": np.float32(0)},
    ),
    "where ints": (
        [node("Greater", "c n", "flag"), node("Where", "flag x z")],
        {"x": N, "z": ints(2, 5), "c": floats(2, 1)},
        {"n": np.float32(0)},
    ),
    "cast to a float": (
        [node("Equal", "x n", "flag"), node("Cast", "flag", to=FLOAT)],
        {"x": N},
        {"n": np.int32(2)},
    ),
    "cast of ints": (node("Cast", "x", to=FLOAT), {"x": N}, {}),
    "identity": (node("Identity", "x"), {"x": X}, {}),
    "the same twice": ([node("Identity", "x", "z"), node("Identity", "z")], {"x": N}, {}),
    **{
        name: (node(op, "x"), {"x": X}, {})
        for name, op in {
            "size": "Abs",
            "cosine": "Cos",
            "sine": "Sin",
            "error function": "Erf",
            "exponential": "Exp",
            "rectifier": "Relu",
            "tangent": "Tanh",
            "gelu": "Gelu",
        }.items()
    },
    "gelu by tanh": (node("Gelu", "x", approximate="tanh"), {"x": X}, {}),
    "reciprocal": (node("Reciprocal", "x"), {"x": np.abs(X) + np.float32(1e-3)}, {}),
    "smaller": (node("Min", "x n"), {"x": N}, {"n": np.int32(2)}),
    "less": ([node("Less", "x n", "flag"), as_number()], {"x": X}, {"n": np.float32(0.1)}),
    "at most": ([node("LessOrEqual", "x n", "flag"), as_number()], {"x": N}, {"n": np.int32(2)}),
    "at least": ([node("GreaterOrEqual", "x n", "flag"), as_number()], {"x": N}, {"n": np.int32(2)}),
    "sum": (node("ReduceSum", "x a", keepdims=0), {"x": X}, {"a": long(1)}),
    "flatten": (node("Flatten", "x", axis=2), {"x": X}, {}),
    "squeeze": (node("Squeeze", "x a"), {"x": floats(2, 1, 3)}, {"a": long(1)}),
    "split": ([node("Split", "x s", "p r", axis=-1), node("Mul", "p r")], {"x": X}, {"s": long(4, 4)}),
    "split evenly": (
        [node("Split", "x", "p r", axis=1, num_outputs=2), node("Concat", "r p", axis=1)],
        {"x": X},
        {},
    ),
    "layer norm": (node("LayerNormalization", "x g b"), {"x": X}, {"g": floats(8), "b": floats(8)}),
    "layer norm of two axes": (
        node("LayerNormalization", "x g", axis=1, epsilon=0.1),
        {"x": X},
        {"g": floats(3, 8)},
    ),
    "product and bias": (
        [node("MatMul", "x w", "p"), node("Add", "p b")],
        {"x": X},
        {"w": floats(8, 5), "b": floats(5)},
    ),
    "product and bias, read twice": (
        [node("MatMul", "x w", "p"), node("Add", "p b", "t"), node("Mul", "p t")],
        {"x": X},
        {"w": floats(8, 5), "b": floats(5)},
    ),
    "convolution of a sequence, with a bias": (
        node("Conv", "x w b", kernel_shape=[3], pads=[1, 1], group=2),
        {"x": floats(2, 4, 7)},
        {"w": floats(6, 2, 3), "b": floats(6)},
    ),
    "a size that is worked with": (
        [
            node("Shape", "x", "rows", start=0, end=1),
            node("Mul", "rows two", "twice"),
            node("Squeeze", "twice zero", "number"),
            node("Unsqueeze", "number zero", "again"),
            node("Concat", "again rest", "s", axis=0),
            node("Reshape", "x s"),
        ],
        {"x": X},
        {"two": long(2), "zero": long(0), "rest": long(-1)},
    ),
    "a norm": (
        [
            node("Pow", "x two", "p"),
            node("ReduceMean", "p a", "m", keepdims=1),
            node("Add", "m eps", "t"),
            node("Sqrt", "t", "r"),
            node("Div", "x r"),
        ],
        {"x": X},
        {"two": np.float32(2), "a": long(-1), "eps": np.float32(0.3)},
    ),
}
