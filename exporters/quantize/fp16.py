"""FP16 and BF16: weights and matrix products in half precision; what the recurrence leans on stays in float32.

A segment's state feeds back into itself, so its rounding is kept out of half precision: the residual stream
(and with it the carried state), the norms, the softmax and both heads are float32. Types are explicit casts in
the graph, which is the only form that strongly typed TensorRT takes and that no other target reads differently.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from ...errors import InputError
from ...precision import Precision
from ..graph.edit import (
    array_of,
    attribute,
    ensure,
    initializers,
    rename,
    replace_initializers,
    replace_nodes,
    set_opset,
    tensor_of,
    value_types,
)
from ..graph.layers import HEAD
from ..graph.passes import finish

HALF, BRAIN, FULL = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT
_MARK = "half."
_KINDS = {"float16": HALF, "bfloat16": BRAIN}
# These compute in float32 whatever they are given; Gemm is the q head (the only product with a bias).
FULL_OPS = frozenset({"Softmax", "ReduceMean", "Pow", "Sqrt", "Div", "Gemm", "LayerNormalization", "ReduceSum"})
# A convolution over the grid is one too, in all but its name.
PRODUCTS = frozenset({"MatMul", "Conv"})
_OPSET_OF_BRAIN_CONV = 22  # the first whose Conv takes bfloat16
# Part of the network → dtype, for the manifest.
PARTS = {
    "weights": "float16",
    "matrix products": "float16",
    "rotary, swiglu": "float16",
    "residual sums": "float32",
    "norms": "float32",
    "softmax": "float32",
    "lm_head, q_head": "float32",
    "carried state": "float32",
    "input embedding": "float32",
}


def parts(precision: Precision) -> dict[str, str]:
    """Part of the network → dtype in a float precision, for the manifest."""
    return {part: precision.stored if kind == "float16" else kind for part, kind in PARTS.items()}


def convert(model: onnx.ModelProto, precision: Precision) -> None:
    """Convert a clean segment in place to float16 or bfloat16; inputs and outputs stay float32.

    A product computes in the precision's type, `FULL_OPS` and the heads in float32, and everything between in the
    widest type it is given: rotary embedding and SwiGLU follow the products, residual sums follow the state.
    """
    kind = _KINDS[precision.stored]
    _Halving(model, kind).run()
    if kind == BRAIN and any(node.op_type == "Conv" for node in model.graph.node):
        set_opset(model, _OPSET_OF_BRAIN_CONV)
    finish(model)
    _check(model, kind)


def _is_head(name: str) -> bool:
    """Whether a stored tensor is the weight of a head, which stays in float32."""
    return name in ("lm_head.weight", "q_head.weight") or name.startswith(HEAD)


class _Halving:
    def __init__(self, model: onnx.ModelProto, half: int):
        self.graph, self.half = model.graph, half
        graph = model.graph
        self.floating = {name for name, kind in value_types(model).items() if kind == FULL}
        self.stored = initializers(graph)
        # Type of each computed floating-point value; integers and booleans are not in it.
        self.types: dict[str, int] = {v.name: FULL for v in graph.input if v.type.tensor_type.elem_type == FULL}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}

    def run(self) -> None:
        for node in self.graph.node:
            floats = [i for i, name in enumerate(node.input) if name in self.floating]
            kind = self._compute_type(node, [node.input[i] for i in floats])
            for i, name in enumerate(node.input):
                if i in floats:
                    node.input[i] = self._as(name, kind)
                elif name in self.stored:
                    self.tensors[name] = self.stored[name]
            self.nodes.append(node)
            narrows = node.op_type == "Cast" and floats and attribute(node, "to") != FULL
            ensure(not narrows, "convert: the graph has casts already")
            made = FULL if node.op_type == "Cast" else kind
            self.types.update({name: made for name in node.output if name in self.floating})
        half = [value.name for value in self.graph.output if self.types[value.name] == self.half]
        ensure(not half, f"convert: outputs computed in half precision: {half}")
        replace_nodes(self.graph, self.nodes)
        replace_initializers(self.graph, list(self.tensors.values()))
        # A weight that is only stored in half precision keeps its own name.
        halves = {name: name.removeprefix(_MARK) for name in self.tensors if name.startswith(_MARK)}
        rename(self.graph, {old: new for old, new in halves.items() if new not in self.tensors})

    def _compute_type(self, node: onnx.NodeProto, floats: list[str]) -> int:
        if node.op_type in FULL_OPS or any(map(_is_head, node.input)):
            return FULL
        if node.op_type in PRODUCTS:
            return self.half
        computed = [self.types[name] for name in floats if name in self.types]
        return FULL if FULL in computed or not computed else self.half

    def _as(self, name: str, kind: int) -> str:
        """The value in the wanted type: the stored tensor converted once, or one shared cast."""
        if name in self.stored:
            return self._stored_as(name, kind)
        if self.types[name] == kind:
            return name
        if (name, kind) not in self.casts:
            cast = f"{name} as {kind}"
            self.nodes.append(helper.make_node("Cast", [name], [cast], to=kind))
            self.casts[name, kind] = cast
            self.types[cast] = kind
        return self.casts[name, kind]

    def _stored_as(self, name: str, kind: int) -> str:
        if kind == FULL:
            self.tensors[name] = self.stored[name]
            return name
        half = _MARK + name
        if half not in self.tensors:
            array = array_of(self.stored[name])
            dtype = helper.tensor_dtype_to_np_dtype(self.half)
            largest = float(ml_dtypes.finfo(dtype).max)
            if not np.abs(array).max(initial=0) <= largest:
                raise InputError(
                    f"weight {name} has values that {dtype.name} cannot hold (above {largest:g}); "
                    "export with --precision fp32"
                )
            self.tensors[half] = tensor_of(array.astype(dtype), half)
        return half


def _check(model: onnx.ModelProto, half: int) -> None:
    """Nothing that must stay float32 was halved, and every other product was."""
    types = value_types(model)
    stored = initializers(model.graph)
    for node in model.graph.node:
        kind = types[node.output[0]]
        if node.op_type in FULL_OPS or any(map(_is_head, node.input)):
            ensure(kind == FULL, f"convert: {node.name} was halved")
        elif node.op_type in PRODUCTS:
            ensure(kind == half, f"convert: {node.name} stayed float32")
    for value in (*model.graph.input, *model.graph.output):
        ensure(types[value.name] == FULL, f"convert: binding {value.name} is not float32")
    read = {name for node in model.graph.node if node.op_type in PRODUCTS for name in node.input}
    wide = [name for name in read if name in stored and stored[name].data_type == FULL and not _is_head(name)]
    ensure(not wide, f"convert: stored in float32: {wide}")
