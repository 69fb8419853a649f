"""Smoothing (see :mod:`models.smoothing`) on a traced segment, where layers are split and weights transposed."""

from __future__ import annotations

import numpy as np
import onnx

from ...bundle.quantization import PARTS
from ...models.smoothing import maker_of
from ..graph.edit import array_of, ensure, initializers, replace_initializers, tensor_of
from ..graph.layers import products
from ..graph.passes import finish


def smooth(segment: onnx.ModelProto, factors: dict[str, np.ndarray]) -> None:
    """Apply the factors to a float segment in place; its results stay the same but for rounding."""
    graph = segment.graph
    products(segment)  # says what is wrong where weights are not stored as they should be
    stored = initializers(graph)
    arrays = {name: array_of(tensor) for name, tensor in stored.items()}
    changed: dict[str, np.ndarray] = {}
    for layer, s in factors.items():
        maker = _maker(layer)
        ensure(maker is not None and maker in arrays, f"smooth: nothing before {layer} can take its factors")
        assert maker is not None
        changed[f"{layer}.weight"] = arrays[f"{layer}.weight"] * s[:, None]
        changed[maker] = arrays[maker] / s
    stored |= {name: tensor_of(array.astype(np.float32), name) for name, array in changed.items()}
    replace_initializers(graph, list(stored.values()))
    finish(segment)


def _maker(layer: str) -> str | None:
    """The stored weight whose columns make the layer's input: the last part of a fused layer."""
    fused = maker_of(layer)
    if fused is None:
        return None
    parent, _, name = fused.rpartition(".")
    return f"{parent}.{PARTS[name][-1]}.weight"
