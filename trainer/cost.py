"""What a training step costs, in floating-point operations."""

from __future__ import annotations

from ..models import HRM, HRMConfig
from ..models.network import Wrapped
from .config import TrainConfig


def step_flops(model: HRM | Wrapped, config: TrainConfig) -> float:
    """Operations of one step's products, over all slots and processes; ``model`` may be a sketch.

    A segment forward; twice as much again for the blocks that gradient flows through; and one more segment forward
    for q_continue's target, where that is learned. Of another's network, as if gradient flowed through all of it.
    """
    target = 0 if model.config.no_ACT_continue else 1
    learned = 1.0 if isinstance(model, Wrapped) else _part_with_gradient(model.config, config)
    return config.batch_size * config.rollout * model.segment_flops * (1 + target + 2 * learned)


def _part_with_gradient(arch: HRMConfig, config: TrainConfig) -> float:
    """Of a segment's calls of blocks, those that gradient flows through."""
    if arch.kind in ("hrm", "trm"):
        L, H, T = arch.L_layers, arch.H_layers or arch.L_layers, arch.L_cycles
        step, cycle = L + H, T * L + H
    else:  # all blocks are one level, which every step runs
        step = arch.H_layers + arch.L_layers
        cycle = arch.L_cycles * step
    return {"one_step": step, "last_cycle": cycle, "full": arch.block_calls}[config.gradient] / arch.block_calls
