"""Weight-only INT8 and INT4: the weights are stored in few bits and widened where a product reads them.

Smaller, and on a CPU seldom faster: the arithmetic stays in float. As inputs are not rounded, the rounding of the
weights is all the error there is, so it is made to make up for itself (see gptq). Two forms, as each backend
is sure to compile one: a standard DequantizeLinear (OpenVINO), and onnxruntime's
own MatMulNBits, which at its accuracy level 4 also rounds each input to int8 as it goes, block by block.
"""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from ...errors import InputError
from ..graph.edit import array_of, ensure, initializers, replace_initializers, replace_nodes, set_opset, tensor_of
from ..graph.layers import Product, products
from ..graph.passes import FOREIGN, finish
from .base import Algorithm
from .gptq import compensated
from .int8 import stored_steps, weight_scale

BLOCK = 32  # rows of an output channel that share a scale
_OPSET_OF_BLOCKS = 21  # the first with int4 and with a scale for every block
_ACCURACY_LEVEL = 4


def compress_weights(
    segment: onnx.ModelProto, bits: int, packed: bool, grams: Mapping[str, np.ndarray]
) -> list[str]:
    """Store the block weights of a float segment in ``bits`` (8 or 4), in place; ``packed``: as MatMulNBits."""
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
        if product.weight not in done:
            steps, scale = in_few_bits(weight, bits, packed, grams[product.layer], product.weight)
            scale_name = f"{product.weight}_scale"
            if packed:
                tensors[product.weight] = tensor_of(_packed(steps, bits), product.weight)
                tensors[scale_name] = tensor_of(scale.T.reshape(-1), scale_name)
            else:
                axes = {"axis": 1} if scale.ndim == 1 else {"axis": 0, "block_size": BLOCK}
                few = steps if bits == 8 else steps.astype(ml_dtypes.int4)
                nodes.append(stored_steps(tensors, product.weight, few, scale, **axes))
        done.add(product.weight)
        if packed:
            node = _packed_product(node, product, weight.shape, bits)
        else:
            node.input[1] = f"{product.weight}.dequantized"
        nodes.append(node)
    if packed:
        segment.opset_import.append(helper.make_opsetid(FOREIGN, 1))
    elif bits == 4:
        set_opset(segment, _OPSET_OF_BLOCKS)
    replace_nodes(graph, nodes)
    replace_initializers(graph, list(tensors.values()))
    finish(segment)
    names = {node.name for node in graph.node}
    ensure(set(chosen) <= names, "compress_weights: a product was lost")
    return list(chosen)


def in_few_bits(
    weight: np.ndarray, bits: int, packed: bool, gram: np.ndarray, name: str = "weight"
) -> tuple[np.ndarray, np.ndarray]:
    """(int8[K, N] steps, their scales): float32[N], one an output channel, or float32[K/BLOCK, N].

    Standard int8 has a scale for each output channel; everything else one for each block of it.
    """
    largest = 2 ** (bits - 1) - 1
    if bits == 8 and not packed:
        scale = weight_scale(weight)
        return compensated(weight, gram, scale, largest), scale
    K, N = weight.shape
    if K % BLOCK:
        raise InputError(
            f"weight {name} has {K} rows, which is no multiple of {BLOCK}; export with --precision int8 or fp16"
        )
    top = np.abs(weight.reshape(K // BLOCK, BLOCK, N)).max(axis=1)
    scale = np.where(top > 0, top / np.float32(largest), np.float32(1)).astype(np.float32)
    return compensated(weight, gram, np.repeat(scale, BLOCK, axis=0), largest), scale


def compressed_weight(weight: np.ndarray, bits: int, packed: bool, gram: np.ndarray) -> np.ndarray:
    """float32[K, N]: what a product really multiplies with."""
    steps, scale = in_few_bits(weight, bits, packed, gram)
    if scale.ndim == 2:
        scale = np.repeat(scale, BLOCK, axis=0)
    return (steps * scale).astype(np.float32)


def _packed(steps: np.ndarray, bits: int) -> np.ndarray:
    """uint8[N, K/BLOCK, BLOCK·bits/8], steps offset to be unsigned, two 4-bit ones in a byte, the earlier low."""
    K, N = steps.shape
    blocks = steps.T.reshape(N, K // BLOCK, BLOCK).astype(np.int16)
    unsigned = (blocks + 2 ** (bits - 1)).astype(np.uint8)
    if bits == 4:
        unsigned = unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)
    return unsigned


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


ALGORITHM = Algorithm(
    "weights",
    lambda segment, plan, target: compress_weights(segment, plan.record.bits, target.packs_weights, plan.grams),
    lambda weight, gram, plan, target: compressed_weight(weight, plan.record.bits, target.packs_weights, gram),
)
