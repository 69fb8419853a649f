"""What may mix the tokens in a block, one class each: attention, a SwiGLU over the sequence, the grid's structure.

A new mixer is a class here, listed in :data:`MIXERS`, and the fields of :class:`HRMConfig` that ask for it. One
made of :class:`SwiGLU`, of :class:`Linear` under names that end in ``_proj`` and of plain tensor operations is
exported and quantized without more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Linear, SwiGLU, truncated_lecun_normal_

if TYPE_CHECKING:
    from .config import HRMConfig

# Field, whether its value is right, what it must be instead; raises where it is not right.
Require = Callable[[str, bool, str], None]


class Mixer(nn.Module):
    """Mixes the tokens ``x[B, S', D]`` of a block, which adds the result to ``x`` and takes the norm.

    Made from a config and the task's position_ids (int ``[K, S]``, None where nothing needs them).
    """

    name: ClassVar[str]  # of the block's sub-module, and so of every weight in a checkpoint
    transposed: ClassVar[bool] = False  # works on x[B, D, S'], and so does the norm that follows
    rotary: ClassVar[bool] = False  # is also given the rotary tables, where positions are rotary
    placed_by: ClassVar[str | None] = None  # the config field for which it needs position_ids
    residual: ClassVar[tuple[str, ...]] = ()  # parameters that make it add nothing where they are zero

    @staticmethod
    def wanted(config: HRMConfig) -> bool:
        """Whether the config asks for it."""
        raise NotImplementedError

    @staticmethod
    def check(config: HRMConfig, require: Require) -> None:
        """Require its fields to fit the others, whether it is wanted or not."""

    @staticmethod
    def title(config: HRMConfig) -> str:
        """What a checkpoint's card calls it."""
        raise NotImplementedError


# -- attention -----------------------------------------------------------------------------------------


def rotary_angles(config: HRMConfig, position_ids: np.ndarray | None) -> Tensor:
    """Angles ``[S', head_dim / 2]`` by which queries and keys are turned.

    Along the sequence, prefix included (RoPE); or, "axial", half of the frequencies by the row and half by the
    column, where the prefix stands beside the first row and column.
    """
    theta, width = config.rope_theta, config.head_dim
    if config.pos_encodings != "axial" or position_ids is None:
        frequencies = theta ** -(torch.arange(0, width, 2).float() / width)
        return torch.outer(torch.arange(config.sequence_len).float(), frequencies)
    frequencies = theta ** -(torch.arange(0, width // 2, 2).float() / (width // 2))
    places = torch.as_tensor(position_ids[:2] - position_ids[:2].min(axis=1, keepdims=True)).float() + 1
    angles = torch.cat([torch.outer(axis, frequencies) for axis in places], dim=1)
    return F.pad(angles, (0, 0, config.prefix_len, 0))


def rotary_tables(config: HRMConfig, position_ids: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """The cosines and sines ``[S', head_dim]`` of :func:`rotary_angles`, the same for both halves of a head."""
    if torch.get_default_device().type == "meta":  # shapes are enough; to compute, torch would read in its compiler
        shape = config.sequence_len, config.head_dim
        return torch.empty(shape), torch.empty(shape)
    angles = rotary_angles(config, position_ids).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate_half(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a mask, ``[B, heads, S', head_dim]`` each."""
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1).to(v.dtype) @ v


class Attention(Mixer):
    """Multi-head attention over the whole sequence, without a mask; RoPE where tables are given."""

    name = "self_attn"
    rotary = True
    residual = ("o_proj.weight",)

    def __init__(self, config: HRMConfig, position_ids: np.ndarray | None = None):
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.qkv_proj = Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, *rope: Tensor) -> Tensor:
        B, S, D = x.shape
        heads = self.qkv_proj(x).view(B, S, 3 * self.num_heads, self.head_dim).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=1)
        if rope:
            cos, sin = rope
            q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        # Written out where a CPU trains: the fused kernel's backward pass takes most of a step there.
        attend = _attention if self.training and x.device.type == "cpu" else F.scaled_dot_product_attention
        y = attend(q, k, v)
        return self.o_proj(y.transpose(1, 2).reshape(B, S, D))

    @staticmethod
    def wanted(config: HRMConfig) -> bool:
        return True  # where no other is

    @staticmethod
    def title(config: HRMConfig) -> str:
        return f"{config.num_heads} heads"


# -- a SwiGLU over the sequence ------------------------------------------------------------------------


class SequenceMLP(SwiGLU, Mixer):
    """A SwiGLU over the sequence, of every feature by itself (TRM)."""

    name = "mlp_t"
    transposed = True

    def __init__(self, config: HRMConfig, position_ids: np.ndarray | None = None):
        super().__init__(config.sequence_len, config.expansion)

    @staticmethod
    def wanted(config: HRMConfig) -> bool:
        return config.mlp_t

    @staticmethod
    def title(config: HRMConfig) -> str:
        return "SwiGLU over the sequence"


# -- the grid's own structure --------------------------------------------------------------------------


def grid_of(position_ids: np.ndarray) -> tuple[int, int]:
    """(rows, columns) of a task's grid, whose tokens stand row by row."""
    row, column = position_ids[:2] - position_ids[:2].min(axis=1, keepdims=True)
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    assert np.array_equal(row * columns + column, np.arange(rows * columns)), "tokens do not fill a grid row by row"
    return rows, columns


class GridMixer(Mixer):
    """Mixes the tokens of a grid by what the grid is: every feature by itself, alike in all places.

    A cell takes a depthwise K x K convolution of its neighbourhood (zeros around the grid), a share of the prefix
    and, with ``unit_means``, a share of the mean over each unit it stands in: its row, its column, its box.
    The prefix takes the mean over the grid, so that q sees all cells. The weights fit every size of grid.
    """

    name = "grid"
    placed_by = "conv_kernel"
    residual = ("weight", "gain", "unit_gains")

    pool: Tensor
    spread: Tensor
    kinds: Tensor

    def __init__(self, config: HRMConfig, position_ids: np.ndarray | None):
        super().__init__()
        assert position_ids is not None
        self.prefix_len, self.grid, self.unit_means = config.prefix_len, grid_of(position_ids), config.unit_means
        D, K = config.hidden_size, config.conv_kernel
        self.weight = nn.Parameter(truncated_lecun_normal_(torch.empty(D, 1, K, K), std=1 / K))
        self.gain = nn.Parameter(torch.zeros(D))
        if config.unit_means:
            self.unit_gains = nn.Parameter(truncated_lecun_normal_(torch.empty(len(position_ids), D), std=1.0))
            units, kinds = np.unique(position_ids, return_index=True)
            member = (position_ids[:, :, None] == units).any(0).astype(np.float32)  # [S, U]
            pool = np.ascontiguousarray((member / member.sum(0)).T)
            self.register_buffer("spread", torch.as_tensor(member), persistent=False)
            self.register_buffer("pool", torch.as_tensor(pool), persistent=False)
            self.register_buffer("kinds", torch.as_tensor(kinds // position_ids.shape[1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        prefix, cells = x[:, : self.prefix_len], x[:, self.prefix_len :]
        planes = cells.transpose(1, 2).unflatten(2, self.grid)
        D, _, K, _ = self.weight.shape
        mixed = F.conv2d(planes, self.weight.to(x.dtype), padding=K // 2, groups=D).flatten(2).transpose(1, 2)
        if self.unit_means:
            mixed = mixed + self.spread @ (self.pool @ cells * self.unit_gains[self.kinds])
        mixed = mixed + self.gain * prefix.mean(1, keepdim=True)
        return torch.cat((cells.mean(1, keepdim=True).expand_as(prefix), mixed.to(x.dtype)), dim=1)

    @staticmethod
    def wanted(config: HRMConfig) -> bool:
        return config.conv_kernel != 0

    @staticmethod
    def check(config: HRMConfig, require: Require) -> None:
        if K := config.conv_kernel:
            require("conv_kernel", K > 0 and K % 2 == 1, "odd, or 0 for none")
            require("mlp_t", not config.mlp_t, "false where conv_kernel mixes the tokens")
            # A cell sees its neighbours only; the prefix sees the whole grid, and its first token carries q.
            require("puzzle_emb_ndim", config.puzzle_emb_ndim > 0, "above 0 where conv_kernel is")
        require("unit_means", not config.unit_means or K > 0, "false where conv_kernel is 0")

    @staticmethod
    def title(config: HRMConfig) -> str:
        convolution = f"depthwise {config.conv_kernel}x{config.conv_kernel} convolution"
        means = "means over rows, columns and boxes"
        # A kernel of 1 mixes nothing: it scales channels.
        mixers = [convolution] * (config.conv_kernel > 1) + [means] * config.unit_means
        return " and ".join(mixers) or convolution


# A config asks for the first of these that it wants; attention is what it gets otherwise, as in the papers.
MIXERS: tuple[type[Mixer], ...] = (SequenceMLP, GridMixer, Attention)
