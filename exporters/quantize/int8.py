"""INT8: symmetric QuantizeLinear/DequantizeLinear pairs around the products of a float segment.

Weights are int8 with a scale for every output channel, stored once whatever the number of calls; each call of
a layer has a quantizer of its own for its input, one scale a tensor. Norms, softmax, attention's own products,
both heads and the carried state stay in float32. The scales are given, by calibration or by training: a
library's quantizer would compute its own, and give q, k and v three quantizers instead of the one they share.

A layer can be *wide*: its input is rounded to int8 twice, first coarsely and then what the first rounding left, and
both are multiplied with the one stored weight. That is 16 bits of input for two int8 products, no larger on disk.

The same steps can be written signed (zero point 0) or unsigned (zero point 128). TensorRT takes only the
former; onnxruntime fuses the latter on a CPU, and silently computes most of the former in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from ...models.ranges import STEPS
from ..graph.edit import array_of, ensure, initializers, replace_initializers, replace_nodes, tensor_of
from ..graph.layers import Product, products
from ..graph.passes import finish
from .base import Algorithm
from .gptq import compensated
from .outputs import output_steps, rests
from .smooth import smooth

if TYPE_CHECKING:
    from ..targets.base import Target
    from .plan import Plan


def weight_scale(weight: np.ndarray) -> np.ndarray:
    """float32[N]: value of one step of each output channel of ``weight`` float32[K, N]; 1 for an empty channel."""
    largest = np.abs(weight).max(axis=0)
    return np.where(largest > 0, largest / np.float32(STEPS), np.float32(1)).astype(np.float32)


def rounded(weight: np.ndarray, scale: np.ndarray, gram: np.ndarray | None = None) -> np.ndarray:
    """int8[K, N]: the weight in steps; with ``gram`` such that errors make up for each other, else to nearest.

    Nearest is half to even, as QuantizeLinear rounds: what quantization-aware training trained with.
    """
    if gram is not None:
        return compensated(weight, gram, scale, STEPS)
    return np.clip(np.rint(weight / scale), -STEPS, STEPS).astype(np.int8)


@dataclass(frozen=True)
class Scales:
    """Everything that fixes the numbers of a quantized segment."""

    inputs: Mapping[str, float]  # by site: the value of one step; a wide site's coarse one
    keep: Collection[str] = ()  # layers that stay in float32
    wide: Collection[str] = ()  # layers whose inputs get 16 bits
    grams: Mapping[str, np.ndarray] | None = None  # by layer: sum of x xᵀ, to round the weights by (see gptq)
    # By weight, and by "WEIGHT of rests" for what wide sites leave: a step of each channel's results; None: floats.
    outputs: Mapping[str, np.ndarray] | None = None


def quantize(segment: onnx.ModelProto, scales: Scales, unsigned: bool = False) -> list[str]:
    """Quantize a float segment in place; returns the names of the products that are int8 from now on."""
    graph = segment.graph
    chosen = {product.name: product for product in products(segment) if product.layer not in scales.keep}
    missing = sorted({product.site for product in chosen.values()} - set(scales.inputs))
    ensure(not missing, f"quantize: no scale for {missing[:3]}")
    work = _Quantizing(segment, scales, unsigned)
    for node in list(graph.node):
        if node.name in chosen:
            work.product(node, chosen[node.name])
        else:
            work.nodes.append(node)
    if unsigned:
        work.spell_out_relus(set(chosen))
    replace_nodes(graph, work.nodes)
    replace_initializers(graph, list(work.tensors.values()))
    finish(segment)
    names = quantized_products(segment)
    wanted = sum(2 if product.layer in scales.wide else 1 for product in chosen.values())
    ensure(len(names) == wanted, "quantize: other products than those chosen were quantized")
    return names


def stored_steps(
    tensors: dict[str, onnx.TensorProto], name: str, steps: np.ndarray, scale: np.ndarray, **axes: Any
) -> onnx.NodeProto:
    """Put a weight into ``tensors`` in steps of ``scale`` (symmetric); returns the node that widens it."""
    for kind, array in {"": steps, "_scale": scale, "_zero_point": np.zeros(scale.shape, steps.dtype)}.items():
        tensors[name + kind] = tensor_of(array, name + kind)
    inputs = [name, f"{name}_scale", f"{name}_zero_point"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], **axes)


class _Quantizing:
    """The nodes and tensors of the new graph as they come."""

    def __init__(self, segment: onnx.ModelProto, scales: Scales, unsigned: bool):
        zero = tensor_of(np.array(128, np.uint8) if unsigned else np.array(0, np.int8), "zero_point")
        self.scales, self.stored = scales, initializers(segment.graph)
        self.tensors = {tensor.name: tensor for tensor in segment.graph.initializer} | {zero.name: zero}
        self.nodes: list[onnx.NodeProto] = []
        self._done: set[str] = set()

    def product(self, node: onnx.NodeProto, product: Product) -> None:
        wide = product.layer in self.scales.wide
        if product.weight not in self._done:
            self._done.add(product.weight)
            self._weight(product)
        if product.site not in self._done:
            self._done.add(product.site)
            step = self.scales.inputs[product.site]
            self._input(product.site, product.input, step)
            if wide:
                self._rest(product.site, product.input, step)
        parts = [product.site, f"{product.site}.rest"] if wide else [product.site]
        output = node.output[0]
        outputs = [f"{output} of {part}" for part in parts] if wide else [output]
        for part, made in zip(parts, outputs, strict=True):
            inputs = [f"{part}.dequantized", f"{product.weight}.dequantized"]
            if self.scales.outputs is None:
                self.nodes.append(helper.make_node("MatMul", inputs, [made]))
                continue
            self.nodes.append(helper.make_node("MatMul", inputs, [f"{made} in full"]))
            self._output(product.weight, f"{made} in full", made, coarse=part == product.site)
        if wide:
            self.nodes.append(helper.make_node("Add", outputs, [output]))

    def _weight(self, product: Product) -> None:
        name = product.weight
        weight = array_of(self.stored[name])
        scale = weight_scale(weight)
        steps = rounded(weight, scale, None if self.scales.grams is None else self.scales.grams[product.layer])
        self.nodes.append(stored_steps(self.tensors, name, steps, scale, axis=1))

    def _input(self, site: str, value: str, step: float) -> None:
        name = f"{site}.input_scale"
        self.tensors[name] = tensor_of(np.array(step, np.float32), name)
        quantized = f"{site}.quantized"
        self.nodes += [
            helper.make_node("QuantizeLinear", [value, name, "zero_point"], [quantized]),
            helper.make_node("DequantizeLinear", [quantized, name, "zero_point"], [f"{site}.dequantized"]),
        ]

    def _output(self, weight: str, value: str, made: str, coarse: bool) -> None:
        """Round a product's result to int8 steps; what a wide site's first rounding left gives finer ones."""
        assert self.scales.outputs is not None
        steps = self.scales.outputs[weight if coarse else rests(weight)]
        name = f"{weight.removesuffix('.weight')}{'' if coarse else '.rest'}.output_scale"
        zero = f"{weight.removesuffix('.weight')}.output.zero_point"
        self.tensors[name] = tensor_of(steps, name)
        self.tensors[zero] = tensor_of(np.zeros(steps.shape, np.int8), zero)
        self.nodes += [
            helper.make_node("QuantizeLinear", [value, name, zero], [f"{made} in steps"], axis=-1),
            helper.make_node("DequantizeLinear", [f"{made} in steps", name, zero], [made], axis=-1),
        ]

    def spell_out_relus(self, products: Collection[str]) -> None:
        """Write the Relu of a product as a maximum.

        onnxruntime hopes to drop a Relu before a quantizer, cannot with a zero point of 128, and then computes the
        product in float32.
        """
        zero = tensor_of(np.array(0, np.float32), "nothing")
        for node in self.nodes:
            if node.op_type == "Relu" and node.input[0] in products:
                node.op_type = "Max"
                node.input.append(zero.name)
                self.tensors[zero.name] = zero

    def _rest(self, site: str, value: str, step: float) -> None:
        """What the coarse rounding left, at most half a step either way, in 127 steps of its own each way."""
        rounded_, rest = f"{site}.rounded", f"{site}.rest"
        # A node of its own: backends fuse a pair only with products.
        self.nodes += [
            helper.make_node(
                "DequantizeLinear", [f"{site}.quantized", f"{site}.input_scale", "zero_point"], [rounded_]
            ),
            helper.make_node("Sub", [value, rounded_], [rest]),
        ]
        self._input(rest, rest, step / (2 * STEPS))


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


def _apply(segment: onnx.ModelProto, plan: Plan, target: Target) -> list[str]:
    if plan.factors:
        smooth(segment, plan.factors)
    inputs = plan.input_scales()
    outputs = output_steps(segment, plan.ranges, inputs) if target.quantizes_outputs else None
    grams = None if plan.nearest else plan.grams or None
    scales = Scales(inputs, set(plan.keep), set(plan.wide), grams, outputs)
    return quantize(segment, scales, unsigned=target.unsigned_int8)


def _stored(weight: np.ndarray, gram: np.ndarray | None, plan: Plan, target: Target) -> np.ndarray:
    scale = weight_scale(weight)
    return rounded(weight, scale, None if plan.nearest else gram) * scale


ALGORITHM = Algorithm("products", _apply, _stored)
