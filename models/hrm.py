"""The Hierarchical Reasoning Model (arXiv 2506.21734): two modules that take N x T steps in a segment."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .config import HRMConfig, Kind
from .flops import count_flops
from .layers import Linear, RMSNorm, SwiGLU, truncated_lecun_normal_
from .mixers import rotary_tables

# The tables cos, sin [S', head_dim] that attention turns queries and keys by; none where positions are not rotary.
Rope = tuple[Tensor, ...]
Gradient = Literal["one_step", "last_cycle", "full"]


class Block(nn.Module):
    """Post-norm transformer block: the norm follows the residual sum, so the state keeps RMS 1.

    Tokens are mixed by attention, or by what the config puts in its place (see :mod:`models.mixers`).
    """

    def __init__(self, config: HRMConfig, position_ids: np.ndarray | None):
        super().__init__()
        self.mixer = config.mixer
        self.add_module(self.mixer.name, self.mixer(config, position_ids))
        if self.mixer.transposed:
            self.norm_t = RMSNorm(config.sequence_len, config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, h: Tensor, rope: Rope) -> Tensor:
        mix = getattr(self, self.mixer.name)
        if self.mixer.transposed:
            features = h.transpose(1, 2)
            h = self.norm_t(features + mix(features, *rope)).transpose(1, 2)
        else:
            h = self.norm(h + mix(h, *rope))
        return self.norm(h + self.mlp(h))


class Module(nn.Module):
    """One level, f_H or f_L: the other level's state (and the input) is added, then the blocks run."""

    def __init__(self, config: HRMConfig, layers: int, position_ids: np.ndarray | None = None):
        super().__init__()
        self.layers = nn.ModuleList(Block(config, position_ids) for _ in range(layers))

    def forward(self, z: Tensor, inject: Tensor, rope: Rope) -> Tensor:
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
    state = ("z_H", "z_L")  # names of the tensors that a segment hands to the next
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
        if config.placed_by and not placed:
            raise InputError(f"{config.placed_by} needs the task's position_ids, one column per token")
        if config.pos_encodings == "learned":
            self.embed_pos = nn.Embedding(config.sequence_len, D)
        elif config.on_grid:
            assert position_ids is not None
            self.embed_pos = nn.Embedding(int(position_ids.max()) + 1, D)
            self.register_buffer("position_ids", torch.as_tensor(position_ids).long(), persistent=False)
        if config.rotary:
            cos, sin = rotary_tables(config, position_ids)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
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
    def rope(self) -> Rope:
        return (self.cos, self.sin) if self.config.rotary else ()

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

    def start(
        self, tokens: Tensor, puzzle_identifiers: Tensor | None = None, puzzle_rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """``(e, z_H, z_L)``: what the first segment of tokens ``[B, S]`` begins with; see :meth:`embed`."""
        return self.embed(tokens, puzzle_identifiers, puzzle_rows), *self.initial_state(len(tokens))

    def distrust(self, margin: float) -> None:
        """Lower what says halt by so many logits."""
        self.q_head.bias.data[0] -= margin

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
        self, z_H: Tensor, z_L: Tensor, e: Tensor, *, gradient: Gradient = "full"
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

    @property
    def segment_flops(self) -> int:
        """Operations of the products of one segment, one puzzle (:func:`count_flops`); runs one to count them."""
        tokens = torch.ones(1, self.config.seq_len, dtype=torch.int64, device=self.H_init.device)
        with torch.no_grad():
            e, *state = self.start(tokens)
        return count_flops(self.segment, (*state, e))

    def heads(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        """``logits[B, S, V], q[B, 2]``; the first token, of the prefix where there is one, carries q."""
        return self.lm_head(z_H)[:, self.config.prefix_len :], self.q_head(z_H[:, 0]).float()
