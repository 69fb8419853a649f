"""A device's numerics without the device: ONNX graphs in onnxruntime, operator by operator as they are written.

TensorRT needs its GPU and Core ML its Mac. What can be computed anywhere is what their graphs *say*: products of
rounded operands, casts where they stand. onnxruntime would fuse quantizers into integer products that clip and
round in ways of its own, so it is told not to. A backend may still sum in another order than the one here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..bundle.self_contained import check_self_contained
from ..errors import InputError
from ..packages import install
from ..runtimes.base import Graph, first_line
from ..runtimes.onnx import as_graph, imported, open_session
from .graph.edit import (
    all_graphs,
    array_of,
    attribute,
    initializers,
    replace_initializers,
    replace_nodes,
    subgraphs,
    tensor_of,
)

NAME = "stand-in (onnxruntime)"
RUNS_ON = "onnx"  # the backend that lends its kernels
_BRAIN, _FULL = TensorProto.BFLOAT16, TensorProto.FLOAT
# These only move values.
_AS_THEY_ARE = {"Reshape", "Transpose", "Concat", "Slice", "Shape", "Expand", "Unsqueeze", "Squeeze", "Where"}


def load_graph(path: Path, threads: int | None) -> Graph:
    """An ONNX file as a function from arrays by input name to arrays by output name; thread-safe."""
    try:
        imported()
    except ImportError as error:
        raise InputError(
            "comparing answers without the device needs onnxruntime, which is not installed; "
            f"run: {install('onnx')}"
        ) from error
    check_self_contained(path)
    model = onnx.load(path)
    _widen_bfloat16(model)
    try:
        return as_graph(open_session(model.SerializeToString(), threads, {"session.disable_quant_qdq": "1"}))
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise InputError(f"{path}: onnxruntime can not load it ({first_line(error)}); export again") from error


def _widen_bfloat16(model: onnx.ModelProto) -> None:
    """Compute bfloat16 operators in float32 and round, in place: what onnxruntime does itself with float16.

    It has no CPU kernel for a bfloat16 product. Values between operators stay bfloat16, so nothing else changes.
    """
    narrow = {tensor.name for tensor in model.graph.initializer if tensor.data_type == _BRAIN}
    if not narrow:
        return
    tensors = initializers(model.graph)
    tensors |= {name: tensor_of(array_of(tensors[name]).astype(np.float32), name) for name in narrow}
    replace_initializers(model.graph, list(tensors.values()))
    for graph in all_graphs(model.graph):
        _widen(graph, narrow)


def _widen(graph: onnx.GraphProto, narrow: set[str]) -> None:
    """``narrow``: values that the graph takes for bfloat16; from now on float32 holding bfloat16's values."""
    nodes = []
    for node in graph.node:
        rounds = any(name in narrow for name in node.input) and not subgraphs(node)
        if node.op_type == "Cast":
            kind = attribute(node, "to")
            rounds = kind == _BRAIN
            if node.input[0] in narrow and kind == _FULL:
                node.op_type = "Identity"
                del node.attribute[:]
        if not rounds:
            nodes.append(node)
            continue
        narrow.update(node.output)
        if node.op_type in _AS_THEY_ARE:
            nodes.append(node)
            continue
        (output,) = node.output
        exact, rounded = f"{output} exact", f"{output} rounded"
        if node.op_type == "Cast":
            nodes.append(helper.make_node("Cast", list(node.input), [rounded], to=_BRAIN))
        else:
            node.output[0] = exact
            nodes += [node, helper.make_node("Cast", [exact], [rounded], to=_BRAIN)]
        nodes.append(helper.make_node("Cast", [rounded], [output], to=_FULL))
    replace_nodes(graph, nodes)
