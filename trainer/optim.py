"""Optimizers, the learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from adam_atan2_pytorch import AdamAtan2
from torch import Tensor, nn

from ..models import HRM
from ..models.fake_quant import scale_parameters
from .config import TrainConfig

SCALE_LR = 10.0  # learning rate of learned scales (their logarithms), times the weights'


class SignSGD(torch.optim.Optimizer):
    """Sign descent with decoupled decay for an embedding table, on the rows that the batch touched.

    A puzzle's embedding is seen rarely; the sign makes every visit count the same, and rows whose
    puzzles were not in the batch (zero gradient) neither move nor decay.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                if table.grad.is_sparse:
                    _update_rows(table, table.grad.coalesce(), group["lr"], group["weight_decay"])
                    continue
                touched = (table.grad != 0).any(-1, keepdim=True)
                decay = torch.where(touched, 1 - group["lr"] * group["weight_decay"], 1.0)
                table.mul_(decay).sub_(table.grad.sign(), alpha=group["lr"])


def _update_rows(table: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
    """The same for a sparse gradient, at the cost of the rows it has and not of the whole table."""
    touched = (gradient.values() != 0).any(-1)
    rows, signs = gradient.indices()[0][touched], gradient.values()[touched].sign()
    table[rows] = table[rows] * (1 - lr * weight_decay) - lr * signs


def make_optimizers(model: HRM, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The main optimizer, Muon for the levels' matrices if asked for, SignSGD for the puzzle embeddings if any.

    Learned scales are a group of their own in the main one: decay would pull them to one, and what is a small
    step for a weight is too small for the one number that all of a layer's inputs share.
    """
    matrices = _matrices(model) if config.optimizer == "muon" else []
    puzzles = [p for name, p in model.named_parameters() if name.startswith("puzzle_emb.")]
    scales = scale_parameters(model)
    apart = {id(p) for p in (*puzzles, *scales, *matrices)}
    rest: list[Any] = [p for p in model.parameters() if id(p) not in apart]
    if scales:
        rest = [{"params": rest}, {"params": scales, "lr": config.lr * SCALE_LR, "weight_decay": 0.0}]
    betas = (config.beta1, config.beta2)
    main: torch.optim.Optimizer
    if config.optimizer == "adam_atan2":
        # a = 1: the update is atan2(m, sqrt v) itself, as published with HRM.
        main = AdamAtan2(rest, lr=config.lr, betas=betas, weight_decay=config.weight_decay, a=1.0)
    else:
        main = torch.optim.AdamW(rest, lr=config.lr, betas=betas, weight_decay=config.weight_decay)
    optimizers = [main]
    if matrices:
        # Updates as large as AdamW's on average, so that one learning rate and one decay serve both.
        same: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
        optimizers.append(torch.optim.Muon(matrices, **same, adjust_lr_fn="match_rms_adamw"))
    if puzzles:
        optimizers.append(SignSGD(puzzles, config.puzzle_emb_lr, config.puzzle_emb_weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def _matrices(model: HRM) -> list[nn.Parameter]:
    """The weights of the levels' products: what Muon is made for, unlike embeddings, heads and scales."""
    return [p for name, p in model.named_parameters() if "_level." in name and p.ndim == 2]


def lr_factor(config: TrainConfig, step: int, progress: float) -> float:
    """What the base rates are multiplied by at ``step`` (from 0) with ``progress`` (0 to 1) of the run done."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    low = config.lr_min_ratio
    decay = {
        "constant": 1.0,
        "linear": 1 - (1 - low) * progress,
        "cosine": low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)),
    }[config.schedule]
    return warm * decay


class Average:
    """Exponential moving average of a model's weights; early on it follows faster, so it has no bias."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = model.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [state[k] for k in self.weights], 1 - decay)
