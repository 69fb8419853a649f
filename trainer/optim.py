"""Optimizers, the learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from adam_atan2_pytorch import AdamAtan2
from torch import Tensor, nn

from ..models import HRM
from ..models.fake_quant import scale_parameters

if TYPE_CHECKING:
    from .config import TrainConfig

Parameters = list[Any]  # tensors, or groups of them with settings of their own
Maker = Callable[[Parameters, "TrainConfig"], torch.optim.Optimizer]
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


def adam_atan2(parameters: Parameters, config: TrainConfig) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    # a = 1: the update is atan2(m, sqrt v) itself, as published with HRM.
    return AdamAtan2(parameters, lr=config.lr, betas=betas, weight_decay=config.weight_decay, a=1.0)


def adamw(parameters: Parameters, config: TrainConfig) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(parameters, lr=config.lr, betas=betas, weight_decay=config.weight_decay)


def muon(parameters: Parameters, config: TrainConfig) -> torch.optim.Optimizer:
    # Updates as large as AdamW's on average, so that one learning rate and one decay serve both.
    how: dict[str, Any] = {"weight_decay": config.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
    return torch.optim.Muon(parameters, lr=config.lr, **how)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What ``train.optimizer`` may name."""

    main: Maker
    matrices: Maker | None = None  # of the levels' matrices, where they are not left to the main one


OPTIMIZERS = {
    "adam_atan2": Choice(adam_atan2),
    "adamw": Choice(adamw),
    "muon": Choice(adamw, matrices=muon),
}


def make_optimizers(model: HRM, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The chosen optimizer, another for the levels' matrices if it has one, SignSGD for puzzle embeddings if any.

    Learned scales are a group of their own in the main one: decay would pull them to one, and what is a small
    step for a weight is too small for the one number that all of a layer's inputs share.
    """
    choice = OPTIMIZERS[config.optimizer]
    matrices = [] if choice.matrices is None else _matrices(model)
    puzzles = [p for name, p in model.named_parameters() if name.startswith("puzzle_emb.")]
    scales = scale_parameters(model)
    apart = {id(p) for p in (*puzzles, *scales, *matrices)}
    rest: Parameters = [p for p in model.parameters() if id(p) not in apart]
    if scales:
        rest = [{"params": rest}, {"params": scales, "lr": config.lr * SCALE_LR, "weight_decay": 0.0}]
    optimizers = [choice.main(rest, config)]
    if choice.matrices is not None:
        optimizers.append(choice.matrices(matrices, config))
    if puzzles:
        optimizers.append(SignSGD(puzzles, config.puzzle_emb_lr, config.puzzle_emb_weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def _matrices(model: HRM) -> list[nn.Parameter]:
    """The weights of the levels' products: what Muon is made for, unlike embeddings, heads and scales."""
    return [p for name, p in model.named_parameters() if "_level." in name and p.ndim == 2]


# Schedule → what the base rates are multiplied by, from the part of the run that is done and the least factor.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda progress, low: 1.0,
    "linear": lambda progress, low: 1 - (1 - low) * progress,
    "cosine": lambda progress, low: low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)),
}


def lr_factor(config: TrainConfig, step: int, progress: float) -> float:
    """What the base rates are multiplied by at ``step`` (from 0) with ``progress`` (0 to 1) of the run done."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return warm * SCHEDULES[config.schedule](progress, config.lr_min_ratio)


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
