"""SmoothQuant (arXiv 2211.10438): move the spread of an input's channels into the weight that reads it.

Dividing channel j of a layer's input by s_j and multiplying column j of its weight by s_j changes nothing in float,
and the input is then easier to round. Only done where it is free: o reads what v made and down what up made, so
there the rows of the earlier weight are divided. For the inputs of qkv and gate_up a multiplication would have to
be inserted in every call; as measured, it bought nothing on top.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch

from ..bundle.quantization import LEVELS
from .calibration import Model, quantized_layers
from .hrm import HRM
from .network import Wrapped

SomeModel = TypeVar("SomeModel", HRM, Wrapped, HRM | Wrapped)
# The best of those compared after re-rolling (README, "Quantize").
STRENGTH = 0.85
# Layer → the fused layer beside it whose last rows make its input: v of q, k, v; up of gate, up.
_MAKERS = {"o_proj": "qkv_proj", "down_proj": "gate_up_proj"}
_SMALLEST = 1e-5


def smoothing_factors(
    model: Model, channel_absmax: Mapping[str, np.ndarray], strength: float
) -> dict[str, np.ndarray]:
    """Layer → s float32[K], for the layers that can be smoothed for free; see :func:`balance`.

    ``channel_absmax`` float32[K]: the largest magnitude in each channel of a layer's input.
    """
    factors = {}
    for layer in quantized_layers(model):
        if maker_of(layer) is not None:
            columns = model.get_parameter(f"{layer}.weight").detach().abs().amax(0).cpu().numpy()
            factors[layer] = balance(columns, channel_absmax[layer], strength)
    return factors


def balance(weight_absmax: np.ndarray, input_absmax: np.ndarray, strength: float) -> np.ndarray:
    """s float32[K] = max|x_j|^strength / max|w_j|^(1 - strength), scaled to a geometric mean of one."""
    x, w = (np.maximum(each.astype(np.float64), _SMALLEST) for each in (input_absmax, weight_absmax))
    s = x**strength / w ** (1 - strength)
    return (s / np.exp(np.log(s).mean())).astype(np.float32)


def smoothed(model: SomeModel, factors: Mapping[str, np.ndarray]) -> SomeModel:
    """A copy of the model with the factors in its weights; it computes the same but for rounding."""
    model = copy.deepcopy(model)
    for layer, s in factors.items():
        maker = maker_of(layer)
        assert maker is not None
        reads, makes = (model.get_parameter(f"{name}.weight").detach() for name in (layer, maker))
        divisors = torch.from_numpy(s).to(reads)
        reads.mul_(divisors)
        makes[-len(s) :].div_(divisors[:, None])
    return model


def maker_of(layer: str) -> str | None:
    """The layer whose last rows make this one's input, where nothing but sums of them lies between."""
    parent, _, name = layer.rpartition(".")
    return f"{parent}.{_MAKERS[name]}" if name in _MAKERS and layer.startswith(LEVELS) else None
