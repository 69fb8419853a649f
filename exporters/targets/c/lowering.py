"""An ONNX graph of one row as operations on views: constants are computed here, moves become strides.

What has no form in C is refused in a line that names it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ....errors import InputError
from ...graph.edit import array_of, attribute
from .ir import Buffer, Kind, Loop, Op, Program, Step, View, constant, fresh, whole

_KINDS: dict[Any, Kind] = {np.dtype(np.float32): "float", np.dtype(np.int8): "int8_t"}
_LARGEST_FOLDED = 1 << 22  # elements; a constant is computed only up to this size


class Lowering:
    """A graph under way. Values by name: constants as arrays, all others as views."""

    def __init__(self, model: onnx.ModelProto, given: dict[str, Buffer]) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        graph = inferred.graph
        self.opset = next(item.version for item in model.opset_import if item.domain == "")
        self.nodes = list(graph.node)
        self.types = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.output, *graph.input)}
        self.constants = {tensor.name: array_of(tensor) for tensor in graph.initializer}
        self.views = {
            value.name: whole(given[value.name], [dim.dim_value for dim in value.type.tensor_type.shape.dim])
            for value in graph.input
        }
        self.quantized: dict[str, Quantized] = {}  # by the value that a DequantizeLinear makes
        self.uses = Counter(name for node in self.nodes for name in node.input)
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.ops: list[Op] = []
        self._shared: dict[tuple[Any, ...], View] = {}  # constants that were made a view, by content
        self._outputs = [value.name for value in graph.output]

    def program(self) -> Program:
        from .operators import FORMS

        for node in self.nodes:
            form = FORMS.get(node.op_type)
            if self._fold(node):
                continue
            if form is None or node.domain:
                raise InputError(
                    f"--target c: the operator {node.op_type} ({node.name or node.output[0]}) has no form in C; "
                    "add one to exporters/targets/c/operators.py, or choose another --target"
                )
            form(self, node)
        return Program(self.ops, {name: self.view(name) for name in self._outputs})

    # -- what a node is told -----------------------------------------------------------------------------

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        if name in self.constants:
            return self.constants[name].shape
        if name in self.views:
            return self.views[name].shape
        shape = self.types[name].shape if name in self.types else None
        sizes = [dim.dim_value for dim in shape.dim] if shape is not None else [0]
        if not all(sizes):
            raise InputError(f"--target c: nothing tells the shape of {name}; choose another --target")
        return tuple(sizes)

    def kind(self, name: str) -> Kind:
        """The C type of a value: whole numbers and truth are int32_t."""
        if name in self.views:
            return self.views[name].buffer.kind
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.types[name].elem_type)
        if dtype.kind == "f" and dtype != np.float32:
            raise InputError(f"--target c: {name} is {dtype.name}, and C code is made of float32 and integers")
        return _KINDS.get(dtype, "int32_t")

    def array(self, name: str, why: str) -> np.ndarray:
        """A constant. InputError where it is computed: what shapes depend on must be known."""
        if name not in self.constants:
            raise InputError(f"--target c: {why} depends on the puzzle ({name}); choose another --target")
        return self.constants[name]

    def view(self, name: str) -> View:
        """A value to read; a constant becomes a buffer, equal ones the same."""
        if name in self.views:
            return self.views[name]
        if name in self.quantized:
            self.views[name] = self.quantized[name].widened(self)
            return self.views[name]
        return self.stored(self.constants[name])

    def stored(self, array: np.ndarray | np.float32) -> View:
        """A constant, made a view once whatever reads it."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = constant(array)
        return self._shared[key]

    # -- what a node makes -------------------------------------------------------------------------------

    def emit(self, op: Op) -> View:
        self.ops.append(op)
        return op.output

    def give(self, node: onnx.NodeProto, view: View) -> None:
        self.views[node.output[0]] = view

    def give_as(self, node: onnx.NodeProto, view: View) -> None:
        """Where the output has dimensions of one element more or less, which come and go freely."""
        seen = view.reshaped(self.shape(node.output[0]))
        assert seen is not None
        self.give(node, seen)

    def loop(self, inputs: list[View], shape: tuple[int, ...], *steps: Step, name: str = "") -> View:
        """An elementwise operation, its result laid out as its largest input is."""
        inputs = [view.broadcast(shape) for view in inputs]
        kind = steps[-1].kind if steps else inputs[0].buffer.kind
        return self.emit(Loop(inputs, fresh(shape, kind, _order_of(inputs, shape)), name, steps=steps))

    def dense(self, view: View, stride_1: int = -1) -> View:
        """The same, copied unless the elements of a dimension (the last) lie side by side."""
        if view.strides[stride_1] == 1 or view.shape[stride_1] == 1:
            return view
        return self.emit(Loop([view], fresh(view.shape, view.buffer.kind)))

    def output_order(self, name: str, rank: int) -> list[int] | None:
        """In which order of dimensions a value should lie: as its only reader, a Transpose, turns it."""
        readers = self.readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type != "Transpose" or name in self._outputs:
            return None
        order = list(attribute(readers[0], "perm", list(range(rank))[::-1]))
        return order if order[-1] == rank - 1 else None

    def _fold(self, node: onnx.NodeProto) -> bool:
        """Compute what depends on constants alone, but for the weights that are to stay int8."""
        if node.op_type == "DequantizeLinear" and node.input[0] in self.constants:
            from .products import stored_steps

            return stored_steps(self, node)
        if node.op_type == "Shape":
            shape = self.shape(node.input[0])
            span = slice(attribute(node, "start", 0), attribute(node, "end", None))
            self.constants[node.output[0]] = np.array(shape[span], np.int64)
            return True
        if not all(name in self.constants for name in node.input if name) or any(node.output[1:]):
            return False
        if node.op_type == "Expand" or math.prod(self.shape(node.output[0])) > _LARGEST_FOLDED:
            return False  # what is only repeated is stored once
        values = {name: self.constants[name] for name in node.input if name}
        made = onnx.helper.make_graph(
            [node],
            "constant",
            [onnx.helper.make_tensor_value_info(name, _type_of(a), a.shape) for name, a in values.items()],
            [onnx.ValueInfoProto(name=node.output[0])],
        )
        model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", self.opset)])
        (result,) = ReferenceEvaluator(model).run(None, values)
        self.constants[node.output[0]] = np.asarray(result)
        return True


class Quantized:
    """int8 values and the float value of one step (of each column, where ``axis`` is the last)."""

    def __init__(self, steps: View | np.ndarray, scale: np.ndarray) -> None:
        self.steps, self.scale = steps, scale

    def widened(self, work: Lowering) -> View:
        """As floats, for what does not multiply integers."""
        if isinstance(self.steps, np.ndarray):
            return work.stored(self.steps.astype(np.float32) * self.scale)
        steps = (Step("widen", (0,)), Step("mul", (-1, 1)))
        return work.loop([self.steps, work.stored(self.scale)], self.steps.shape, *steps)


def _type_of(array: np.ndarray) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _order_of(inputs: list[View], shape: tuple[int, ...]) -> list[int]:
    """Dimensions from slowest to fastest, as the first input that is read in full has them."""
    for view in inputs:
        if all(s or n == 1 for n, s in zip(shape, view.strides, strict=True)):
            return sorted(range(len(shape)), key=lambda i: (-view.strides[i] if shape[i] > 1 else 0, i))
    return list(range(len(shape)))


Form = Callable[[Lowering, onnx.NodeProto], None]
