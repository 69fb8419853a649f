"""INT8: symmetric QuantizeLinear/DequantizeLinear pairs around the products of a float segment.

Weights are int8 with a scale for every output channel, stored once whatever the number of calls; each call of
a layer has a quantizer of its own for its input, one scale a tensor. Norms, softmax, attention's own products,
both heads and the carried state stay in float32. The scales are given, by calibration or by training: a
library's quantizer would compute its own, and give q, k and v three quantizers instead of the one they share.

The same steps can be written signed (zero point 0) or unsigned (zero point 128). TensorRT takes only the
former; onnxruntime fuses only the latter on a CPU, and silently computes the former in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from ..ranges import STEPS
from .graph import array_of, ensure, initializers, replace_initializers, replace_nodes, tensor_of
from .layers import products
from .passes import finish


def weight_scale(weight: np.ndarray) -> np.ndarray:
    """float32[N]: value of one step of each output channel of ``weight`` float32[K, N]; 1 for an empty channel."""
    largest = np.abs(weight).max(axis=0)
    return np.where(largest > 0, largest / np.float32(STEPS), np.float32(1)).astype(np.float32)


def rounded(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """int8[K, N]: the weight in steps, half to even, as QuantizeLinear rounds."""
    return np.clip(np.rint(weight / scale), -STEPS, STEPS).astype(np.int8)


def quantize(
    segment: onnx.ModelProto,
    scales: dict[str, float],
    keep: frozenset[str] = frozenset(),
    unsigned: bool = False,
) -> list[str]:
    """Quantize a float segment in place; returns the names of the products that are int8 from now on.

    ``scales`` give the step of every site's input; the layers in ``keep`` stay as they are.
    """
    graph = segment.graph
    chosen = {product.name: product for product in products(segment) if product.layer not in keep}
    stored = initializers(graph)
    missing = sorted({p.site for p in chosen.values()} - set(scales))
    ensure(not missing, f"quantize: no scale for {missing[:3]}")
    zero = tensor_of(np.array(128, np.uint8) if unsigned else np.array(0, np.int8), "zero_point")
    tensors = {tensor.name: tensor for tensor in graph.initializer} | {zero.name: zero}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        product = chosen.get(node.name)
        if product is not None:
            if product.weight not in done:
                done.add(product.weight)
                nodes.append(_dequantized_weight(array_of(stored[product.weight]), product.weight, tensors))
            if product.site not in done:
                done.add(product.site)
                nodes += _quantized_input(product.site, product.input, scales[product.site], tensors)
            node.input[0], node.input[1] = f"{product.site}.dequantized", f"{product.weight}.dequantized"
        nodes.append(node)
    replace_nodes(graph, nodes)
    replace_initializers(graph, list(tensors.values()))
    finish(segment)
    names = quantized_products(segment)
    ensure(names == list(chosen), "quantize: other products than those chosen were quantized")
    return names


def _dequantized_weight(weight: np.ndarray, name: str, tensors: dict[str, onnx.TensorProto]) -> onnx.NodeProto:
    scale = weight_scale(weight)
    zeros = f"{name}_zero_point"
    tensors[name] = tensor_of(rounded(weight, scale), name)
    tensors[f"{name}_scale"] = tensor_of(scale, f"{name}_scale")
    tensors[zeros] = tensor_of(np.zeros(len(scale), np.int8), zeros)
    inputs = [name, f"{name}_scale", zeros]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], axis=1)


def _quantized_input(
    site: str, value: str, scale: float, tensors: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    step = f"{site}.input_scale"
    tensors[step] = tensor_of(np.array(scale, np.float32), step)
    quantized, dequantized = f"{site}.quantized", f"{site}.dequantized"
    return [
        helper.make_node("QuantizeLinear", [value, step, "zero_point"], [quantized]),
        helper.make_node("DequantizeLinear", [quantized, step, "zero_point"], [dequantized]),
    ]


def quantized_products(model: onnx.ModelProto) -> list[str]:
    """Names of the products whose input and weight both come out of a DequantizeLinear."""
    made = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and set(node.input) <= made]


def input_scales(model: onnx.ModelProto) -> dict[str, float]:
    """Site → the step its quantizer really has in the graph."""
    suffix = ".input_scale"
    return {
        tensor.name.removesuffix(suffix): float(array_of(tensor))
        for tensor in model.graph.initializer
        if tensor.name.endswith(suffix)
    }
