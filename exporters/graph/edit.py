"""Small helpers over ONNX graphs that the stages share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

array_of = numpy_helper.to_array


class PassFailed(RuntimeError):
    """A pass met a graph it does not understand, or left one that breaks its promise: a bug, not bad input."""


def ensure(holds: bool, message: str) -> None:
    if not holds:
        raise PassFailed(message)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies a control-flow node carries."""
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every body inside it, outermost first."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from all_graphs(body)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of bodies included."""
    for inner in all_graphs(graph):
        yield from inner.node


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def tensor_of(array: np.ndarray, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, order="C"), name)  # ascontiguousarray would lift scalars


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """A node attribute's value, or ``default``."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def replace_initializers(graph: onnx.GraphProto, tensors: list[onnx.TensorProto]) -> None:
    # Copied first: the new list may hold the very messages that are about to be deleted.
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def set_opset(model: onnx.ModelProto, version: int) -> None:
    """Let the model's standard operators be those of ``version``."""
    next(item for item in model.opset_import if item.domain in ("", "ai.onnx")).version = version


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename values everywhere they are made or used, bodies and the graph's own inputs and outputs included.

    All at once: one value's new name may be another's old one.
    """
    for inner in all_graphs(graph):
        for value in (*inner.input, *inner.output, *inner.value_info, *inner.initializer):
            value.name = names.get(value.name, value.name)
    for node in all_nodes(graph):
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = names.get(name, name)


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value of the main graph, by shape inference."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}
