"""Lowering: a clean ONNX graph of fixed shapes as one TensorFlow Lite subgraph (see ``ops`` for each operator).

Products with a stored weight become FULLY_CONNECTED and keep their names; int8 pairs of the one quantization plan
become int8 tensors with its scales. Whole numbers are int32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from ...graph.edit import ensure
from ...graph.lowering import Few, Lowering
from .flatbuffer import Model
from .ops import EMIT

_DTYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.INT64: "int32",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.BOOL: "bool",
}


def _sizes(name: str, kind: onnx.TypeProto.Tensor) -> tuple[int, ...]:
    dims = kind.shape.dim
    ensure(all(dim.HasField("dim_value") for dim in dims), f"lower: the shape of {name} is not fixed")
    return tuple(dim.dim_value for dim in dims)


class LiteRTLowering(Lowering):
    """One graph as operators of ``model``; a value is the number of its tensor. ``half``: floats are stored so."""

    target, format = "litert", "TensorFlow Lite"
    table = "exporters/targets/litert/ops.py"
    emit = EMIT

    def __init__(self, onnx_model: onnx.ModelProto, half: bool = False) -> None:
        inferred = onnx.shape_inference.infer_shapes(onnx_model, strict_mode=True, data_prop=True)
        graph, self.half = inferred.graph, half
        self.model = Model()
        bindings = (*graph.value_info, *graph.output, *graph.input)
        self._types = {value.name: value.type.tensor_type for value in bindings}
        self._made: dict[Any, int] = {}  # constants, and what is made of them
        self._turned: dict[str, np.ndarray] = {}  # by int8 weight: its steps as they are stored, once
        self.inputs = {
            name: self.model.tensor(name, _sizes(name, self._types[name]), self.dtype(name))
            for name in (value.name for value in graph.input)
        }
        super().__init__(graph, self.inputs)

    def serialized(self, description: str) -> bytes:
        """The file's bytes."""
        self.walk()
        outputs: dict[str, int] = {}
        for value in self.graph.output:
            tensor = self.var(value.name)
            if isinstance(self.values[value.name], np.ndarray) or tensor in (
                *self.inputs.values(),
                *outputs.values(),
            ):
                # A binding of its own: neither a stored tensor nor another binding.
                shape = self.shape(value.name)
                tensor = self.reshaped(tensor, shape, self.new(value.name, shape, self.dtype(value.name)))
            outputs[value.name] = tensor
        return self.model.serialized(self.inputs, outputs, description)

    # -- what operators ask for -----------------------------------------------------------------------------

    def shape(self, name: str) -> tuple[int, ...]:
        """A value's sizes."""
        known = self.known(name) if name in self.values else None
        return _sizes(name, self._types[name]) if known is None else known.shape

    def dtype(self, name: str) -> str:
        return _DTYPES[self._types[name].elem_type]

    def var(self, name: str) -> int:
        """A value's tensor; what is known becomes a stored one, once."""
        value = self.values[name]
        if isinstance(value, Few):
            return self._once(name, lambda: self.dequantized(self.steps(name), name))
        if isinstance(value, np.ndarray):
            return self.constant(value, name)
        return int(value)

    def constant(self, array: np.ndarray, name: str) -> int:
        """A stored tensor; of a table of floats, in half precision where that is asked for, the widened one."""
        if array.dtype == np.int64:
            array = np.clip(array, -(2**31), 2**31 - 1).astype(np.int32)
        key = (name, array.dtype.name, array.shape)
        if self.half and array.dtype == np.float32 and array.ndim > 1:
            return self._once(key, lambda: self._widened(array, name))
        return self._once(key, lambda: self.model.tensor(name, array.shape, array.dtype.name, array))

    def _widened(self, array: np.ndarray, name: str) -> int:
        half = self.model.tensor(name, array.shape, "float16", array.astype(np.float16))
        return self.op("DEQUANTIZE", [half], self.new(f"{name}.widened", array.shape))

    def ints(self, values: Sequence[int]) -> int:
        """A stored vector of whole numbers: an axis, a shape, an order."""
        array = np.array(values, np.int32)
        return self._once(
            array.tobytes(), lambda: self.model.tensor(f"ints/{len(self._made)}", array.shape, "int32", array)
        )

    def number(self, value: float) -> int:
        """A stored float32 without dimensions."""
        array = np.array(value, np.float32)
        return self._once(("number", value), lambda: self.model.tensor(f"number/{value:g}", (), "float32", array))

    def turned(self, name: str, rows: bool = False) -> int:
        """A product's stored weight as FULLY_CONNECTED reads it, [N, K]; ``rows``: it is stored so already."""
        value = self.values[name]
        if isinstance(value, Few):
            return self.steps(name)
        array = np.asarray(value)
        return self.constant(np.ascontiguousarray(array if rows else array.T), name)

    def steps(self, name: str, results: np.ndarray | None = None) -> int:
        """The int8 steps [N, K] of a weight in few bits, with a scale for each output channel.

        ``results`` float32[N]: the steps that its products are told in; the scales are then of those.
        """
        few = self.values[name]
        ensure(few.scale.ndim == 1 and few.steps.dtype == np.int8, f"lower: {name} is not int8 by output channel")
        if few.name not in self._turned:
            self._turned[few.name] = np.ascontiguousarray(few.steps.T)
        steps = self._turned[few.name]
        scale = few.scale if results is None else few.scale / results
        make = lambda: self.model.tensor(few.name, steps.shape, "int8", steps, scale)  # noqa: E731
        return self._once((few.name, scale.tobytes()), make)

    def new(self, name: str, shape: Sequence[int], dtype: str = "float32", scale: Any = None) -> int:
        return self.model.tensor(name, shape, dtype, scale=scale)

    def result(self, node: onnx.NodeProto, index: int = 0) -> int:
        """A new tensor for a node's output."""
        name = node.output[index]
        return self.new(name, self.shape(name), self.dtype(name))

    def op(self, code: str, inputs: Sequence[int], output: int, **options: Any) -> int:
        """Append an operator; returns its output."""
        self.model.operator(code, inputs, [output], **options)
        return output

    def make(self, code: str, node: onnx.NodeProto, *inputs: int, **options: Any) -> int:
        """The operator that gives the node's only output, by its name."""
        return self.op(code, inputs, self.result(node), **options)

    def reshaped(self, tensor: int, shape: Sequence[int], output: int) -> int:
        return self.op("RESHAPE", [tensor, self.ints(shape)], output, newShape=[int(size) for size in shape])

    def dequantized(self, tensor: int, name: str) -> int:
        return self.op("DEQUANTIZE", [tensor], self.new(f"{name}.float", self.model.tensors[tensor].shape))

    def _once(self, key: Any, make: Callable[[], int]) -> int:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
