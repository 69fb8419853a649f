"""Which matrix product of an exported segment belongs to which layer of the checkpoint, and what feeds it.

The export splits fused layers, and an unrolled segment calls each layer several times. A *site* is one call of
a layer; the products of a fused layer read the same input there, so they share its quantizer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from ...bundle.quantization import BLOCKS, LEVELS, PARTS
from ...errors import InputError
from ...runtimes.loops import NEXT
from .edit import array_of, ensure, initializers, rename
from .passes import finish

_FUSED = {part: fused for fused, parts in PARTS.items() for part in parts}
_SUFFIX = ".weight"
HEAD = "head."  # what the names of another network's products begin with that only make logits or q


@dataclass(frozen=True)
class Product:
    """One call of one stored weight: ``input[B, S', K] @ weight[K, N]``."""

    name: str  # of the node: "L_level.layers.0.mlp.up_proj/3"
    weight: str  # of the stored tensor
    input: str
    layer: str  # of the checkpoint: "L_level.layers.0.mlp.gate_up_proj"
    call: int

    @property
    def site(self) -> str:
        return f"{self.layer}/{self.call}"


def products(segment: onnx.ModelProto) -> list[Product]:
    """Every product inside the blocks of a clean float segment, in the order of execution; the heads left out."""
    stored = initializers(segment.graph)
    found = []
    for node in segment.graph.node:
        weight = node.input[1] if node.op_type == "MatMul" else ""
        if weight in stored and weight.startswith(BLOCKS) and weight.endswith(_SUFFIX):
            stem, _, call = node.name.rpartition("/")
            ensure(stem == node.input[1].removesuffix(".weight"), f"products: {node.name} has another's weight")
            parent, _, part = stem.rpartition(".")
            layer = f"{parent}.{_FUSED.get(part, part)}" if stem.startswith(LEVELS) else stem
            found.append(Product(node.name, node.input[1], node.input[0], layer, int(call)))
    ensure(bool(found), "products: the segment has no product with a stored weight")
    turned = sorted({n.input[0] for n in segment.graph.node if n.op_type == "Transpose" and n.input[0] in stored})
    both = [weight for weight in turned if any(product.weight == weight for product in found)]
    if both:
        raise InputError(
            f"weight {both[0].removesuffix(_SUFFIX)} is multiplied by both as it is and transposed, and int8 has "
            "scales for the channels of one of them; give the network two weights, or export in fp32 or fp16"
        )
    ensure(not turned, f"products: {turned[:3]} are stored transposed, which hides their products")
    inputs: dict[str, str] = {}
    for product in found:
        ensure(
            inputs.setdefault(product.site, product.input) == product.input,
            f"products: the parts of {product.site} read different inputs",
        )
    return found


def weights_of(segment: onnx.ModelProto) -> dict[str, dict[str, np.ndarray]]:
    """Layer → its stored weights by name, each float32[K, N], in the order of the fused weight."""
    stored = initializers(segment.graph)
    layers: dict[str, dict[str, np.ndarray]] = {}
    for product in products(segment):
        layers.setdefault(product.layer, {})[product.weight] = array_of(stored[product.weight])
    return layers


def mark_heads(segment: onnx.ModelProto, block: str, known: Collection[str]) -> list[str]:
    """Rename the weights of products on which no state depends to ``head.…``; returns the other layers' names.

    Where nothing at all changes the state, those are heads that no other product reads. What is none of the
    ``known`` layers is left alone like a head: nobody can tell what it reads.
    """
    graph = segment.graph
    found = [product for product in products(segment) if product.weight.startswith(block)]
    states = [value.name for value in graph.output if value.name.endswith(NEXT)]
    inside = _reach(graph, states, found) or _feed_others(graph, found)
    weights = {product.weight for product in found}
    left = {product.weight for product in found if product.name in inside and product.layer in known}
    rename(graph, {name: HEAD + name.removeprefix(block) for name in weights - left})
    finish(segment)
    return [name.removesuffix(_SUFFIX) for name in sorted(left)]


def _reach(graph: onnx.GraphProto, outputs: list[str], found: list[Product]) -> set[str]:
    """Names of the products that some outputs depend on."""
    made_by = {name: node for node in graph.node for name in node.output}
    seen, todo = set(), list(outputs)
    while todo:
        node = made_by.get(todo.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            todo.extend(node.input)
    return seen & {product.name for product in found}


def _feed_others(graph: onnx.GraphProto, found: list[Product]) -> set[str]:
    """Names of the products that another product depends on."""
    inputs = {node.name: list(node.input) for node in graph.node}
    return {name for product in found for name in _reach(graph, inputs[product.name], found)}
