"""The Hierarchical Reasoning Model (arXiv 2506.21734): two modules that take N x T steps in a segment."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .config import HRMConfig, Kind, swiglu_width

Gradient = Literal["one_step", "last_cycle", "full"]


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


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm without gain, computed in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


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
    places = torch.from_numpy(position_ids[:2] - position_ids[:2].min(axis=1, keepdims=True)).float() + 1
    angles = torch.cat([torch.outer(axis, frequencies) for axis in places], dim=1)
    return F.pad(angles, (0, 0, config.prefix_len, 0))


def rotate_half(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a mask, ``[B, heads, S', head_dim]`` each."""
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head attention over the whole sequence, without a mask; RoPE where tables are given."""

    def __init__(self, config: HRMConfig):
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.qkv_proj = Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        B, S, D = x.shape
        heads = self.qkv_proj(x).view(B, S, 3 * self.num_heads, self.head_dim).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=1)
        if rope is not None:
            cos, sin = rope
            q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        # Written out where a CPU trains: the fused kernel's backward pass takes most of a step there.
        attend = _attention if self.training and x.device.type == "cpu" else F.scaled_dot_product_attention
        y = attend(q, k, v)
        return self.o_proj(y.transpose(1, 2).reshape(B, S, D))


class SwiGLU(nn.Module):
    def __init__(self, width: int, expansion: float):
        super().__init__()
        intermediate = swiglu_width(width, expansion)
        self.gate_up_proj = Linear(width, 2 * intermediate)
        self.down_proj = Linear(intermediate, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


def grid_of(position_ids: np.ndarray) -> tuple[int, int]:
    """(rows, columns) of a task's grid, whose tokens stand row by row."""
    row, column = position_ids[:2] - position_ids[:2].min(axis=1, keepdims=True)
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    assert np.array_equal(row * columns + column, np.arange(rows * columns)), "tokens do not fill a grid row by row"
    return rows, columns


class GridMixer(nn.Module):
    """Mixes the tokens of a grid by what the grid is: every feature by itself, alike in all places.

    A cell takes a depthwise K x K convolution of its neighbourhood (zeros around the grid), a share of the prefix
    and, with ``unit_means``, a share of the mean over each unit it stands in: its row, its column, its box.
    The prefix takes the mean over the grid, so that q sees all cells. The weights fit every size of grid.
    """

    pool: Tensor
    spread: Tensor
    kinds: Tensor

    def __init__(self, config: HRMConfig, position_ids: np.ndarray):
        super().__init__()
        self.prefix_len, self.grid, self.unit_means = config.prefix_len, grid_of(position_ids), config.unit_means
        D, K = config.hidden_size, config.conv_kernel
        self.weight = nn.Parameter(truncated_lecun_normal_(torch.empty(D, 1, K, K), std=1 / K))
        self.gain = nn.Parameter(torch.zeros(D))
        if config.unit_means:
            self.unit_gains = nn.Parameter(truncated_lecun_normal_(torch.empty(len(position_ids), D), std=1.0))
            units, kinds = np.unique(position_ids, return_index=True)
            member = torch.from_numpy((position_ids[:, :, None] == units).any(0)).float()  # [S, U]
            self.register_buffer("spread", member, persistent=False)
            self.register_buffer("pool", (member / member.sum(0)).T.contiguous(), persistent=False)
            self.register_buffer("kinds", torch.from_numpy(kinds // position_ids.shape[1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        prefix, cells = x[:, : self.prefix_len], x[:, self.prefix_len :]
        planes = cells.transpose(1, 2).unflatten(2, self.grid)
        D, _, K, _ = self.weight.shape
        mixed = F.conv2d(planes, self.weight.to(x.dtype), padding=K // 2, groups=D).flatten(2).transpose(1, 2)
        if self.unit_means:
            mixed = mixed + self.spread @ (self.pool @ cells * self.unit_gains[self.kinds])
        mixed = mixed + self.gain * prefix.mean(1, keepdim=True)
        return torch.cat((cells.mean(1, keepdim=True).expand_as(prefix), mixed.to(x.dtype)), dim=1)


class Block(nn.Module):
    """Post-norm transformer block: the norm follows the residual sum, so the state keeps RMS 1.

    In attention's place the tokens may be mixed by a SwiGLU over the sequence (``mlp_t``), which its norm then
    goes along too (TRM), or by a :class:`GridMixer`.
    """

    def __init__(self, config: HRMConfig, position_ids: np.ndarray | None):
        super().__init__()
        self.eps = config.rms_norm_eps
        if config.mlp_t:
            self.mlp_t = SwiGLU(config.sequence_len, config.expansion)
        elif config.conv_kernel:
            assert position_ids is not None
            self.grid = GridMixer(config, position_ids)
        else:
            self.self_attn = Attention(config)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def forward(self, h: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        if hasattr(self, "mlp_t"):
            features = h.transpose(1, 2)
            h = rms_norm(features + self.mlp_t(features), self.eps).transpose(1, 2)
        elif hasattr(self, "grid"):
            h = rms_norm(h + self.grid(h), self.eps)
        else:
            h = rms_norm(h + self.self_attn(h, rope), self.eps)
        return rms_norm(h + self.mlp(h), self.eps)


class Module(nn.Module):
    """One level, f_H or f_L: the other level's state (and the input) is added, then the blocks run."""

    def __init__(self, config: HRMConfig, layers: int, position_ids: np.ndarray | None = None):
        super().__init__()
        self.layers = nn.ModuleList(Block(config, position_ids) for _ in range(layers))

    def forward(self, z: Tensor, inject: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        h = z + inject
        for layer in self.layers:
            h = layer(h, rope)
        return h


class HRM(nn.Module):
    """Maps tokens ``x[B, S]`` to logits ``[B, S, V]`` through as many segments as it takes.

    Args:
        config: the architecture.
        position_ids: int ``[K, S]``, for ``pos_encodings`` "grid" and "axial": each token's row, column (and box)
            as indices into one table of learned embeddings, which are added to the input beside RoPE; and for
            ``conv_kernel``, which takes the grid and its units from them. A task provides them.

    The rest of the family (:mod:`models.family`) differs in its levels and in how a step uses them.
    """

    kind: Kind = "hrm"
    cos: Tensor
    sin: Tensor
    position_ids: Tensor
    H_init: Tensor
    L_init: Tensor

    def __init__(self, config: HRMConfig, position_ids: np.ndarray | None = None):
        super().__init__()
        assert config.kind == self.kind, f"a config of kind {config.kind} for the network {self.kind}"
        self.config = config
        D, P = config.hidden_size, config.prefix_len
        self.embed_tokens = nn.Embedding(config.vocab_size, D)
        self.lm_head = Linear(D, config.vocab_size)
        self.q_head = nn.Linear(D, 2)
        if P:
            self.puzzle_emb = nn.Embedding(config.num_puzzle_identifiers, config.puzzle_emb_ndim)
            nn.init.zeros_(self.puzzle_emb.weight)
        placed = position_ids is not None and position_ids.shape[-1] == config.seq_len
        if (config.on_grid or config.conv_kernel) and not placed:
            who = "conv_kernel" if config.conv_kernel else f"pos_encodings {config.pos_encodings!r}"
            raise InputError(f"{who} needs the task's position_ids, one column per token")
        if config.pos_encodings == "learned":
            self.embed_pos = nn.Embedding(config.sequence_len, D)
        elif config.on_grid:
            assert position_ids is not None
            self.embed_pos = nn.Embedding(int(position_ids.max()) + 1, D)
            self.register_buffer("position_ids", torch.from_numpy(position_ids).long(), persistent=False)
        if config.rotary:
            angles = rotary_angles(config, position_ids).repeat(1, 2)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)
        self.add_levels(position_ids)
        for name in ("H_init", "L_init"):
            self.register_buffer(name, truncated_lecun_normal_(torch.empty(D), std=1.0))
        for table in (self.embed_tokens, getattr(self, "embed_pos", None)):
            if table is not None:
                truncated_lecun_normal_(table.weight.data, std=D**-0.5)
        # Starts sure of "not yet right", so that early training explores (paper section 2, ACT).
        nn.init.zeros_(self.q_head.weight)
        nn.init.constant_(self.q_head.bias, -5.0)

    def add_levels(self, position_ids: np.ndarray | None) -> None:
        self.H_level = Module(self.config, self.config.H_layers, position_ids)
        self.L_level = Module(self.config, self.config.L_layers, position_ids)

    @property
    def rope(self) -> tuple[Tensor, Tensor] | None:
        """The rotary tables ``cos, sin [S', head_dim]``, where attention uses them."""
        return (self.cos, self.sin) if self.config.rotary else None

    def embed(
        self, tokens: Tensor, puzzle_identifiers: Tensor | None = None, puzzle_rows: Tensor | None = None
    ) -> Tensor:
        """The input embedding ``e[B, S', D]`` of tokens ``[B, S]``; the same in every segment.

        ``puzzle_identifiers[B]`` choose the prefix; left out, every row is puzzle 0. Training gives the rows that
        they choose, ``puzzle_rows[B, puzzle_emb_ndim]``, so that only these get a gradient.
        """
        config = self.config
        D, P = config.hidden_size, config.prefix_len
        e = self.embed_tokens(tokens)
        if config.on_grid:
            positions = self.embed_pos(self.position_ids)  # [K, S, D]
            e = (e + positions.sum(0)) / math.sqrt(1 + len(positions))
        if P:
            if puzzle_rows is not None:
                prefix = puzzle_rows
            elif puzzle_identifiers is None:
                prefix = self.puzzle_emb.weight[:1].expand(len(tokens), -1)
            else:
                prefix = self.puzzle_emb(puzzle_identifiers)
            prefix = F.pad(prefix, (0, P * D - config.puzzle_emb_ndim)).view(-1, P, D)
            e = torch.cat((prefix.to(e.dtype), e), dim=1)
        if config.pos_encodings == "learned":
            e = (e + self.embed_pos.weight) / math.sqrt(2)
        return math.sqrt(D) * e

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Fresh ``(z_H, z_L)``, each ``[B, S', D]``: the same vector at every position."""
        shape = (batch, self.config.sequence_len, self.config.hidden_size)
        return self.H_init.expand(shape), self.L_init.expand(shape)

    def steps(self, z_H: Tensor, z_L: Tensor, e: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """L steps ``first..last-1`` of a segment's N x T, with the H step that follows every T-th."""
        for i in range(first, last):
            z_L = self.L_level(z_L, z_H + e, self.rope)
            if (i + 1) % self.config.L_cycles == 0:
                z_H = self.H_level(z_H, z_L, self.rope)
        return z_H, z_L

    def segment(
        self, z_H: Tensor, z_L: Tensor, e: Tensor, gradient: Gradient = "full"
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One ACT step: ``(z_H, z_L, e) -> (z_H, z_L, logits[B, S, V], q[B, 2])``, q float32 (halt, continue).

        ``gradient`` says how far back it flows: through the last L and H step (the paper's one-step
        approximation), through the last of the N cycles, or through all of them.
        """
        N, T = self.config.H_cycles, self.config.L_cycles
        first = {"one_step": N * T - 1, "last_cycle": (N - 1) * T, "full": 0}[gradient]
        if first:
            with torch.no_grad():
                z_H, z_L = self.steps(z_H, z_L, e, 0, first)
        z_H, z_L = self.steps(z_H, z_L, e, first, N * T)
        return z_H, z_L, *self.heads(z_H)

    forward = segment

    def heads(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        """``logits[B, S, V], q[B, 2]``; the first token, of the prefix where there is one, carries q."""
        return self.lm_head(z_H)[:, self.config.prefix_len :], self.q_head(z_H[:, 0]).float()
