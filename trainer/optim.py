"""Optimizers, the learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from adam_atan2_pytorch import AdamAtan2
from torch import Tensor, nn

from ..models import HRM
from ..models.fake_quant import scale_parameters
from ..models.network import WRAPPED, Wrapped

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
                # At the cost of the rows that the gradient has, not of the whole table.
                gradient = (table.grad if table.grad.is_sparse else table.grad.to_sparse(1)).coalesce()
                touched = (gradient.values() != 0).any(-1)
                rows, signs = gradient.indices()[0][touched], gradient.values()[touched].sign()
                table[rows] = table[rows] * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * signs


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


# What `train.optimizer` may name → (makes the main optimizer, that of the levels' matrices where it is another).
OPTIMIZERS: dict[str, tuple[Maker, Maker | None]] = {
    "adam_atan2": (adam_atan2, None),
    "adamw": (adamw, None),
    "muon": (adamw, muon),
}


def make_optimizers(model: HRM | Wrapped, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The chosen optimizer, another for the levels' matrices if it has one, SignSGD for puzzle embeddings if any.

    Learned scales are a group of their own in the main one: decay would pull them to one, and what is a small
    step for a weight is too small for the one number that all of a layer's inputs share.
    """
    make, make_for_matrices = OPTIMIZERS[config.optimizer]
    matrices, named = [], list(model.named_parameters())
    if make_for_matrices is not None:
        # The weights of the levels' products: what Muon is made for, unlike embeddings, heads and scales.
        matrices = [p for name, p in named if "_level." in name and p.ndim == 2]
        if isinstance(model, Wrapped):
            inner = {f"{WRAPPED}.{model.layers[layer].tensor}" for layer in model.quantized_layers}
            matrices = [p for name, p in named if name in inner and p.ndim == 2]
    puzzles = [p for name, p in named if name.startswith("puzzle_emb.")]
    scales = scale_parameters(model)
    apart = {id(p) for p in (*puzzles, *scales, *matrices)}
    rest: Parameters = [p for p in model.parameters() if id(p) not in apart]
    if scales:
        rest = [{"params": rest}, {"params": scales, "lr": config.lr * SCALE_LR, "weight_decay": 0.0}]
    optimizers = [make(rest, config)]
    if make_for_matrices is not None:
        optimizers.append(make_for_matrices(matrices, config))
    if puzzles:
        optimizers.append(SignSGD(puzzles, config.puzzle_emb_lr, config.puzzle_emb_weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


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
        floats = [name for name, weight in self.weights.items() if weight.is_floating_point()]
        torch._foreach_lerp_([self.weights[k] for k in floats], [state[k] for k in floats], 1 - decay)
        for name in self.weights.keys() - set(floats):  # what another's network counts
            self.weights[name].copy_(state[name])
