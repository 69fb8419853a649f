"""What a segment's graph has to compute and to move, counted node by node in the ONNX graph that is run.

Nothing here knows the network: shapes come out of shape inference, operations out of each product's shape. So it
can be compared with what PyTorch counts while the network runs (`models/flops.py`).
"""

from __future__ import annotations

import math
from collections import Counter

import onnx
from onnx import TensorProto

from ...measure.work import Work
from .edit import attribute, copied, initializers

_PRODUCTS = ("MatMul", "Gemm", "Conv", "MatMulInteger", "QLinearMatMul", "QLinearConv", "ConvInteger")
# Positions of what is multiplied, of the operators that take scales and zero points between them.
_RIGHT = {"QLinearMatMul": 3, "QLinearConv": 3}
_INTEGERS = (TensorProto.INT8, TensorProto.UINT8)
_PRECISION: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def work_of(segment: onnx.ModelProto) -> Work:
    """The work of one segment, whose graph is not inside a loop. Weights count as they are stored.

    A product is int8 where both operands are, or come out of a DequantizeLinear of int8 steps.
    """
    model = copied(segment)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.WhichOneof("value") != "dim_value":
                dim.dim_value = 1  # the batch
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = _Sizes(model.graph)
    flops: Counter[str] = Counter()
    weights = rows = 0
    for node in model.graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        left, right = node.input[0], node.input[_RIGHT.get(node.op_type, 1)]
        flops[graph.precision(left, right)] += graph.operations(node, left, right)
        for operand in (left, right):
            if graph.is_stored(operand):
                weights += graph.bytes(operand)
            else:
                rows += graph.bytes(operand)
        rows += graph.bytes(node.output[0])
    return Work(dict(flops), weights, rows)


class _Sizes:
    """Shapes and types of a graph's values."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.stored = initializers(graph)
        self.made_by = {name: node for node in graph.node for name in node.output}
        self.values = {
            value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)
        }

    def shape(self, name: str) -> list[int]:
        if name in self.stored:
            return list(self.stored[name].dims)
        return [dim.dim_value for dim in self.values[name].shape.dim]

    def narrowest(self, name: str) -> tuple[str, int]:
        """The value itself or, where it is only widened on the way to a product, what it was; and its type."""
        node = self.made_by.get(name)
        if node is not None and node.op_type in ("DequantizeLinear", "Cast", "Transpose", "Reshape"):
            source, kind = self.narrowest(node.input[0])
            if node.op_type != "Cast" or source in self.stored:
                return source, kind
        return name, self.stored[name].data_type if name in self.stored else self.values[name].elem_type

    def is_stored(self, name: str) -> bool:
        return self.narrowest(name)[0] in self.stored

    def bytes(self, name: str) -> int:
        source, kind = self.narrowest(name)
        bits = 4 if kind in (TensorProto.INT4, TensorProto.UINT4) else 8 * _width(kind)
        return math.prod(self.shape(source if source in self.stored else name)) * bits // 8

    def precision(self, left: str, right: str) -> str:
        kinds = [self.narrowest(name)[1] for name in (left, right)]
        if all(kind in _INTEGERS for kind in kinds):
            return "int8"
        kind = self.values[left].elem_type if left in self.values else kinds[0]
        return _PRECISION.get(int(kind), "fp32")

    def operations(self, node: onnx.NodeProto, left: str, right: str) -> int:
        """A multiply-add is two."""
        results = math.prod(self.shape(node.output[0]))
        if node.op_type.endswith("Conv") or node.op_type == "ConvInteger":
            return 2 * results * math.prod(self.shape(right)[1:])  # channels of the group, and the kernel
        summed = self.shape(left)[-2 if node.op_type == "Gemm" and attribute(node, "transA", 0) else -1]
        return 2 * results * summed


def _width(kind: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
