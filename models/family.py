"""The rest of the family, each by what it does unlike HRM: TRM, and the paper's two plain transformers."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .config import Kind
from .hrm import HRM, Gradient, Module


class TRM(HRM):
    """The Tiny Recursive Model (arXiv 2510.04871): one level serves both updates."""

    kind: Kind = "trm"

    def add_levels(self, position_ids: np.ndarray | None) -> None:
        self.L_level = Module(self.config, self.config.L_layers, position_ids)

    def steps(self, z_H: Tensor, z_L: Tensor, e: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        for i in range(first, last):
            z_L = self.L_level(z_L, z_H + e, self.rope)
            if (i + 1) % self.config.L_cycles == 0:
                z_H = self.L_level(z_H, z_L, self.rope)
        return z_H, z_L


class Recurrent(HRM):
    """A plain recurrent transformer of an HRM's size: all its blocks as one level, the input added at each step.

    It has one state, z_H; z_L is handed through unread, so that a segment is called as every other's.
    """

    kind: Kind = "recurrent"

    def add_levels(self, position_ids: np.ndarray | None) -> None:
        self.L_level = Module(self.config, self.config.H_layers + self.config.L_layers, position_ids)

    def steps(self, z_H: Tensor, z_L: Tensor, e: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        for _ in range(first, last):
            z_H = self.L_level(z_H, e, self.rope)
        return z_H, z_L


class Direct(Recurrent):
    """A plain transformer of an HRM's size that answers in one pass over the input.

    Its states never change: they are a constant beside the input, so that a second segment says the same as the
    first. (They are read at all because some backends drop an input that is not, and with it the shared interface.)
    """

    kind: Kind = "direct"

    def segment(
        self, z_H: Tensor, z_L: Tensor, e: Tensor, *, gradient: Gradient = "full"
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return z_H, z_L, *self.heads(self.L_level(z_H + z_L, e, self.rope))

    forward = segment


NETWORKS: dict[str, type[HRM]] = {network.kind: network for network in (HRM, TRM, Recurrent, Direct)}
