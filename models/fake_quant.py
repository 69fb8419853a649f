"""Fake quantization: block linears that compute in float what int8 will, with gradients to train through it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .calibration import quantized_layers
from .hrm import HRM
from .layers import Linear
from .network import Wrapped, device_of
from .ranges import STEPS


def round_ste(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes straight through."""
    return x + (x.round() - x).detach()  # exact: the difference of a float and its nearest integer always is


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` itself, with its gradient multiplied by ``factor``."""
    scaled = x * factor
    return x.detach() + (scaled - scaled.detach())


def fake_quantize(x: Tensor, scale: Tensor) -> Tensor:
    """``x`` on the grid of symmetric int8 with one step worth ``scale``: float32, clipped to −128 … 127 steps.

    Autograd then gives the gradients of LSQ (arXiv 1902.08153, equations 3 and 5): 1 within the range and 0
    beyond it for ``x``; round(x/s) - x/s within, −128 or 127 beyond for ``scale``.
    """
    # As QuantizeLinear clips, in a graph and in every backend: int8 has one step more below zero.
    return round_ste((x.float() / scale).clamp(-STEPS - 1, STEPS)) * scale


def weight_scales(weight: Tensor) -> Tensor:
    """Value of one step per output channel, float32 ``[out, 1]``: max|w| / 127, and 1 for a channel of zeros."""
    absmax = weight.detach().float().abs().amax(1, keepdim=True)
    return torch.where(absmax > 0, absmax / STEPS, 1.0)


def fake_quantize_weight(weight: Tensor) -> Tensor:
    """``weight[out, in]`` on its channels' grids, float32; every weight's gradient passes straight through."""
    scales = weight_scales(weight)
    # No clamp: nothing rounds to more than 127 steps, but rounding puts some largest weights a hair beyond, which
    # a clamp would leave without a gradient.
    return round_ste(weight.float() / scales) * scales


class ActivationScale(nn.Module):
    """The value of one step of a layer's input, one number for all calls.

    It is trained as its logarithm, so that it stays positive and a step of the optimizer changes it by a part of
    itself, or frozen.
    """

    scale: Tensor
    log_scale: nn.Parameter
    learned: bool

    def __init__(self, scale: float, learned: bool, device: torch.device):
        super().__init__()
        self.set_scale(scale, learned, device)

    def set_scale(self, scale: float, learned: bool, device: torch.device) -> None:
        self.learned = learned
        if learned:
            self.log_scale = nn.Parameter(torch.tensor(math.log(scale), device=device))
        else:
            self.register_buffer("scale", torch.tensor(scale, device=device))

    def activation_scale(self) -> Tensor:
        return self.log_scale.exp() if self.learned else self.scale

    def rounded(self, x: Tensor) -> Tensor:
        """The layer's input on its grid."""
        scale = self.activation_scale()
        if self.learned:
            # LSQ section 2.2: the scale hears from every value, and would drown the weights' gradients.
            scale = scale_gradient(scale, (x[0].numel() * STEPS) ** -0.5)
        return fake_quantize(x, scale)


class FakeQuantLinear(Linear, ActivationScale):
    """A bias-free linear whose input and weight are fake-quantized; the weight keeps its name and float values."""

    def __init__(self, linear: nn.Linear, scale: float, learned: bool):
        nn.Module.__init__(self)  # not Linear's: the weight is the one given, not a new one
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.register_parameter("bias", None)
        self.set_scale(scale, learned, linear.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.rounded(x), fake_quantize_weight(self.weight))


class FakeQuantNetwork(Wrapped):
    """Another's network, its segment's products fake-quantized; weights keep their names and float values."""

    scales: nn.ModuleList  # in the order of the quantized layers

    def segment(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        scales: dict[str, Any] = dict(zip(self.quantized_layers, self.scales, strict=True))

        def rounded(layer: str, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor] | None:
            return (scales[layer].rounded(x), fake_quantize_weight(weight)) if layer in scales else None

        with self.products(rounded):
            return super().segment(*tensors)

    forward = segment


Model = TypeVar("Model", HRM, Wrapped, HRM | Wrapped)


def quantize_model(model: Model, scales: Mapping[str, float], learned: bool) -> Model:
    """A copy of a plain model, its inner products fake-quantized; ``scales``: by layer, a step of its input."""
    if not isinstance(model, Wrapped):
        return _with_linears(model, lambda name, linear: FakeQuantLinear(linear, scales[name], learned))
    made, device = copy.deepcopy(model), device_of(model)
    made.__class__ = FakeQuantNetwork
    made.scales = nn.ModuleList(ActivationScale(scales[name], learned, device) for name in made.quantized_layers)
    return made.train(model.training)


def plain_model(model: Model) -> Model:
    """A copy of a fake-quantized model without fake quantization: the float weights that are being tuned."""
    if isinstance(model, Wrapped):
        made = copy.deepcopy(model)
        made.__class__ = Wrapped
        if isinstance(model, FakeQuantNetwork):
            del made.scales
        return made

    def plain(_: str, linear: nn.Linear) -> nn.Module:
        # Without storage: initialising a weight that is replaced at once would move a run's random numbers.
        with torch.device("meta"):
            made = Linear(linear.in_features, linear.out_features)
        made.weight = linear.weight
        return made

    return _with_linears(model, plain)


def scales_of(model: HRM | Wrapped) -> dict[str, float]:
    """The activation scale of every fake-quantized layer, a float32 value."""
    layers = quantized_layers(model)
    if isinstance(model, Wrapped):
        modules = dict(zip(layers, model.scales, strict=True)) if isinstance(model, FakeQuantNetwork) else {}
    else:
        modules = {name: model.get_submodule(name) for name in layers}
    return {
        name: float(module.activation_scale().detach().float())
        for name, module in modules.items()
        if isinstance(module, ActivationScale)
    }


def scale_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The learned scales (as logarithms), which an optimizer treats apart."""
    return [parameter for name, parameter in model.named_parameters() if name.endswith(".log_scale")]


def _with_linears(model: HRM, replacement: Callable[[str, nn.Linear], nn.Module]) -> HRM:
    """A copy of the model in which each block linear is what ``replacement(name, linear)`` makes of it."""
    model = copy.deepcopy(model)
    for name in quantized_layers(model):
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, replacement(name, linear))
    return model.train(model.training)
