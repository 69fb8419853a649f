"""Weight-only INT8 and INT4: the weights are stored in few bits and widened where a product reads them.

Smaller, and on a CPU seldom faster: the arithmetic stays in float. Two forms, as each backend compiles one and
unpacks the other anew in every call: a standard DequantizeLinear (OpenVINO), and onnxruntime's own MatMulNBits,
which at its accuracy level 4 also rounds each input to int8 as it goes, block by block.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from ..errors import InputError
from .graph import array_of, ensure, initializers, replace_initializers, replace_nodes, tensor_of
from .int8 import rounded, weight_scale
from .layers import Product, products
from .passes import FOREIGN, finish

BLOCK = 32  # rows of an output channel that share a scale
_OPSET_OF_BLOCKS = 21  # the first with int4 and with a scale for every block
_ACCURACY_LEVEL = 4


def compress_weights(segment: onnx.ModelProto, bits: int, packed: bool) -> list[str]:
    """Store the block weights of a float segment in ``bits`` (8 or 4), in place; ``packed``: as MatMulNBits.

    Returns the names of the products that read them.
    """
    graph = segment.graph
    chosen = {product.name: product for product in products(segment)}
    stored = initializers(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    done: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        product = chosen.get(node.name)
        if product is None:
            nodes.append(node)
            continue
        weight = array_of(stored[product.weight])
        if product.weight not in done and packed:
            _store_packed(weight, product.weight, bits, tensors)
        elif product.weight not in done:
            nodes.append(_store_standard(weight, product.weight, bits, tensors))
        done.add(product.weight)
        nodes.append(_packed_product(node, product, weight.shape, bits) if packed else _widened(node, product))
    if packed:
        segment.opset_import.append(helper.make_opsetid(FOREIGN, 1))
    elif bits == 4:
        next(item for item in segment.opset_import if not item.domain).version = _OPSET_OF_BLOCKS
    replace_nodes(graph, nodes)
    replace_initializers(graph, list(tensors.values()))
    finish(segment)
    names = {node.name for node in graph.node}
    ensure(set(chosen) <= names, "compress_weights: a product was lost")
    return list(chosen)


def compressed_weight(weight: np.ndarray, bits: int, packed: bool) -> np.ndarray:
    """float32[K, N]: what a product really multiplies with."""
    if bits == 8 and not packed:
        scale = weight_scale(weight)
        return rounded(weight, scale) * scale
    steps, scale = _blocks(weight, bits, "weight")
    return (steps * scale[:, None]).reshape(weight.shape).astype(np.float32)


def _blocks(weight: np.ndarray, bits: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(int8[K/BLOCK, BLOCK, N] steps, float32[K/BLOCK, N] scales)"""
    K, N = weight.shape
    if K % BLOCK:
        raise InputError(
            f"weight {name} has {K} rows, which is no multiple of {BLOCK}; export with --precision int8 or fp16"
        )
    largest_step = 2 ** (bits - 1) - 1
    blocks = weight.reshape(K // BLOCK, BLOCK, N)
    largest = np.abs(blocks).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(largest_step), np.float32(1)).astype(np.float32)
    steps = np.clip(np.rint(blocks / scale[:, None]), -largest_step, largest_step).astype(np.int8)
    return steps, scale


def _store_standard(
    weight: np.ndarray, name: str, bits: int, tensors: dict[str, onnx.TensorProto]
) -> onnx.NodeProto:
    """int8 with a scale for each output channel, or int4 with one for each block of it."""
    attributes = {"axis": 1}
    if bits == 8:
        scale = weight_scale(weight)
        steps = rounded(weight, scale)
    else:
        blocks, scale = _blocks(weight, bits, name)
        steps = blocks.reshape(weight.shape).astype(ml_dtypes.int4)
        attributes = {"axis": 0, "block_size": BLOCK}
    for kind, array in {"": steps, "_scale": scale, "_zero_point": np.zeros(scale.shape, steps.dtype)}.items():
        tensors[name + kind] = tensor_of(array, name + kind)
    inputs = [name, f"{name}_scale", f"{name}_zero_point"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], **attributes)


def _widened(node: onnx.NodeProto, product: Product) -> onnx.NodeProto:
    node.input[1] = f"{product.weight}.dequantized"
    return node


def _store_packed(weight: np.ndarray, name: str, bits: int, tensors: dict[str, onnx.TensorProto]) -> None:
    """uint8[N, K/BLOCK, BLOCK·bits/8], steps offset to be unsigned, two 4-bit ones in a byte, the earlier low."""
    steps, scale = _blocks(weight, bits, name)
    unsigned = (steps.transpose(2, 0, 1).astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    if bits == 4:
        unsigned = unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)
    tensors[name] = tensor_of(unsigned, name)
    tensors[f"{name}_scale"] = tensor_of(scale.T.reshape(-1), f"{name}_scale")


def _packed_product(node: onnx.NodeProto, product: Product, shape: tuple[int, ...], bits: int) -> onnx.NodeProto:
    return helper.make_node(
        "MatMulNBits",
        [product.input, product.weight, f"{product.weight}_scale"],
        list(node.output),
        domain=FOREIGN,
        K=shape[0],
        N=shape[1],
        bits=bits,
        block_size=BLOCK,
        accuracy_level=_ACCURACY_LEVEL,
    )
