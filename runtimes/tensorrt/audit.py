"""What TensorRT made of a graph, without a GPU: read from the parsed network and from the builder's own log.

Types that were asked for prove nothing: a pair that is not fused leaves a product in float32, a cast that was
inserted doubles the traffic, and a shape that was computed in int64 moves to the host. The builder's verbose log
describes every layer it compiled, loop bodies included, with its operands' types and the ONNX nodes it came from.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from ...errors import GateFailed
from ..base import CompiledProduct
from .build import NetworkFacts, SerializedEngine

_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], TacticName"
)
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_OPERAND = re.compile(r"Dimensions: \[(?P<shape>[-\d,]*)\].*?Datatype: (?P<type>\w+)")
_NAMES = {"Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "BF16": "bfloat16"}
# Compiled layers that a product's node may also be noted on, though they only move or convert its operands.
_NO_PRODUCT = {"kgen", "cast", "reshape", "copy", "transpose", "shuffle", "memset", "shape_call", "constant"}
# TensorRT's weights may be this many times the stored ones: padding, and no more.
WEIGHTS_TOLERANCE = 1.1


def products(built: SerializedEngine) -> list[CompiledProduct]:
    """The matrix products of an engine as they were compiled, by the names they have in the ONNX graph."""
    nodes = {layer.name for layer in built.network.layers if layer.kind == "MATRIX_MULTIPLY"}
    found: dict[str, CompiledProduct] = {}
    for line in built.compiled_layers:
        match = _LINE.match(line)
        if match is None or match["kind"] in _NO_PRODUCT:
            continue
        inputs, constants = (_OPERAND.findall(match[side]) for side in ("inputs", "constants"))
        if constants:
            # A residual sum that was fused with the product is an input too, and may be named first.
            rows = constants[0][0].partition(",")[0]
            inputs = [item for item in inputs if item[0].rpartition(",")[2] == rows] or inputs
        operands = [kind for _, kind in (*inputs[:1], *(constants[:1] or inputs[1:2]))]
        for node in _NODE.findall(line):
            if node in nodes and len(operands) == 2:
                found.setdefault(node, CompiledProduct(node, *(_NAMES.get(k, k.lower()) for k in operands)))
    return list(found.values())


def describe(built: SerializedEngine) -> dict[str, Any]:
    """The audit as the bundle keeps it: JSON values."""
    network = built.network
    kinds = Counter(f"{product.left} × {product.right}" for product in products(built))
    matches = (_LINE.match(line) for line in built.compiled_layers)
    return {
        "bindings": {item.name: item.dtype for item in (*network.inputs, *network.outputs)},
        "network_layers": dict(sorted(Counter(layer.kind for layer in network.layers).items())),
        "casts": dict(sorted(_casts(network).items())),
        "loops": loops(network),
        "compiled_layers": dict(sorted(Counter(match["kind"] for match in matches if match).items())),
        "products": dict(sorted(kinds.items())),
    }


def loops(network: NetworkFacts) -> int:
    """Loops of a parsed network: each of ours has a limit that counts trips and one that asks a condition."""
    return sum(layer.kind == "TRIP_LIMIT" for layer in network.layers) // 2


def _casts(network: NetworkFacts) -> Counter[str]:
    """Conversions by their types; those between equal types are the parser's own and cost nothing."""
    return Counter(
        f"{layer.inputs[0]} → {layer.outputs[0]}"
        for layer in network.layers
        if layer.kind == "CAST" and layer.inputs[:1] != layer.outputs[:1]
    )


def raise_unless_sound(
    built: SerializedEngine, graph: str, stored_bytes: int, wants_loop: bool, folded_bytes: int = 0
) -> None:
    """GateFailed when weights were multiplied or widened, or when the halting loop was unrolled or lost.

    ``stored_bytes``: of all tensors that the ONNX graph stores; ``folded_bytes``: of what may be computed from
    them once and for all, as the initial state of a fixed number of rows is.
    """
    weights = built.weights_bytes
    if weights is not None and weights > WEIGHTS_TOLERANCE * stored_bytes + folded_bytes:
        raise GateFailed(
            f"{graph}: TensorRT keeps {weights / 1e6:.2f} MB of weights for the {stored_bytes / 1e6:.2f} MB that "
            "are stored: they were widened, or copied for every cycle; nothing was published"
        )
    if wants_loop != bool(loops(built.network)):
        had = "no loop" if wants_loop else "a loop"
        raise GateFailed(f"{graph}: TensorRT's network has {had}; nothing was published")
    if not built.compiled_layers:
        raise GateFailed(f"{graph}: TensorRT's log names no compiled layer to audit; nothing was published")
