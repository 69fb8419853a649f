"""What a training step costs, in floating-point operations."""

from __future__ import annotations

from ..models import HRMConfig
from .config import TrainConfig


def step_flops(arch: HRMConfig, config: TrainConfig) -> float:
    """Operations of one step's matrix products, over all slots and processes.

    A segment forward; twice as much again for the blocks that gradient flows through; and one more segment forward
    for q_continue's target, where that is learned.
    """
    H, L, T = arch.H_layers or arch.L_layers, arch.L_layers, arch.L_cycles
    step, cycle = (L + H, T * L + H) if arch.kind in ("hrm", "trm") else (L + H, T * (L + H))
    learned = {"one_step": step, "last_cycle": cycle, "full": arch.block_calls}[config.gradient] / arch.block_calls
    target = 0 if arch.no_ACT_continue else 1
    return config.batch_size * config.rollout * arch.segment_flops * (1 + target + 2 * learned)
