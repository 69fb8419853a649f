"""Smoothing (see :mod:`models.smoothing`) on a traced segment, where layers are split and weights transposed."""

from __future__ import annotations

import numpy as np
import onnx

from ...models.smoothing import balance, maker_of
from ..graph.edit import array_of, ensure, initializers, replace_initializers, tensor_of
from ..graph.layers import PARTS, weights_of
from ..graph.passes import finish


def smoothing_factors(
    segment: onnx.ModelProto, channel_absmax: dict[str, np.ndarray], strength: float
) -> dict[str, np.ndarray]:
    """Layer → s float32[K], for the layers that can be smoothed for free.

    ``channel_absmax`` float32[K]: the largest magnitude in each channel of a layer's input.
    """
    factors = {}
    for layer, weights in weights_of(segment).items():
        if _maker(layer) is None:
            continue
        rows = np.max([np.abs(weight).max(axis=1) for weight in weights.values()], axis=0)
        factors[layer] = balance(rows, channel_absmax[layer], strength)
    return factors


def smooth(segment: onnx.ModelProto, factors: dict[str, np.ndarray]) -> None:
    """Apply the factors to a float segment in place; its results stay the same but for rounding."""
    graph = segment.graph
    arrays = {name: array_of(tensor) for name, tensor in initializers(graph).items()}
    changed: dict[str, np.ndarray] = {}
    for layer, s in factors.items():
        maker = _maker(layer)
        ensure(maker is not None and maker in arrays, f"smooth: nothing before {layer} can take its factors")
        assert maker is not None
        changed[f"{layer}.weight"] = arrays[f"{layer}.weight"] * s[:, None]
        changed[maker] = arrays[maker] / s
    tensors = [tensor for tensor in graph.initializer if tensor.name not in changed]
    tensors += [tensor_of(array.astype(np.float32), name) for name, array in changed.items()]
    replace_initializers(graph, tensors)
    finish(segment)


def _maker(layer: str) -> str | None:
    """The stored weight whose columns make the layer's input: the last part of a fused layer."""
    fused = maker_of(layer)
    if fused is None:
        return None
    parent, _, name = fused.rpartition(".")
    return f"{parent}.{PARTS[name][-1]}.weight"
