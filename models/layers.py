"""The layers that blocks are made of: projection, norm, SwiGLU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def truncated_lecun_normal_(weight: Tensor, std: float | None = None) -> Tensor:
    """Fill with a normal cut at two sigma whose *own* std is ``std`` (default 1/sqrt(fan_in)), as jax does."""
    std = weight.shape[-1] ** -0.5 if std is None else std
    # Cutting a unit normal at +-2 leaves a std of 0.8796; undo that.
    sigma = std / 0.87962566103423978
    return nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)


class Linear(nn.Linear):
    """A bias-free projection with the paper's initialisation."""

    def __init__(self, fan_in: int, fan_out: int):
        super().__init__(fan_in, fan_out, bias=False)

    def reset_parameters(self) -> None:
        truncated_lecun_normal_(self.weight.data)


class RMSNorm(nn.Module):
    """Root-mean-square norm over ``width`` values without gain, computed in float32."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def swiglu_width(width: int, expansion: float) -> int:
    """I of a SwiGLU over ``width`` values: 2/3 of the expansion, up to the next multiple of 256."""
    return -(-round(expansion * width * 2 / 3) // 256) * 256


class SwiGLU(nn.Module):
    def __init__(self, width: int, expansion: float):
        super().__init__()
        intermediate = swiglu_width(width, expansion)
        self.gate_up_proj = Linear(width, 2 * intermediate)
        self.down_proj = Linear(intermediate, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """What is made meanwhile has types and shapes, no memory and no values, and takes no random numbers."""
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    """Leaves out what `nn.Embedding` begins with: for a tensor without values torch then reads in its compiler,
    which takes most of the time in which a checkpoint is opened."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is nn.init.normal_:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
