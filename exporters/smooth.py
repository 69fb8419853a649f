"""SmoothQuant (arXiv 2211.10438): move the spread of an input's channels into the weight that reads it.

Dividing channel j of a layer's input by s_j and multiplying row j of its weight by s_j changes nothing in float,
and the input is then easier to round. Only done where it is free: o reads what v made and down what up made, so
there the columns of the earlier weight are divided. For the inputs of q, k, v and gate, up a multiplication would
have to be inserted in every call; as measured, it bought nothing on top.
"""

from __future__ import annotations

import numpy as np
import onnx

from .graph import array_of, ensure, initializers, replace_initializers, tensor_of
from .layers import weights_of
from .passes import finish

# Layer → the part of a fused layer, beside it in the block, whose output channels are its input channels.
_MAKERS = {"self_attn.o_proj": "self_attn.v_proj", "mlp.down_proj": "mlp.up_proj"}
_SMALLEST = 1e-5


def smoothing_factors(
    segment: onnx.ModelProto, channel_absmax: dict[str, np.ndarray], strength: float
) -> dict[str, np.ndarray]:
    """Layer → s float32[K] = max|x_j|^strength / max|w_j|^(1 - strength), scaled to a geometric mean of one.

    ``channel_absmax`` float32[K] of every layer's input; only layers that can be smoothed for free get factors.
    """
    factors = {}
    for layer, weights in weights_of(segment).items():
        if _maker(layer) is None:
            continue
        rows = np.max([np.abs(weight).max(axis=1) for weight in weights.values()], axis=0)
        x = np.maximum(channel_absmax[layer], _SMALLEST).astype(np.float64)
        s = x**strength / np.maximum(rows, _SMALLEST) ** (1 - strength)
        factors[layer] = (s / np.exp(np.log(s).mean())).astype(np.float32)
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
    for ending, maker in _MAKERS.items():
        if layer.endswith(ending):
            return f"{layer.removesuffix(ending)}{maker}.weight"
    return None
