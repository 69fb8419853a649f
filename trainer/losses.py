"""Token losses over labelled cells, and the ACT losses with their Q targets (paper section 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100  # label of a token that is not learned


def labels_of(answers: Tensor) -> Tensor:
    """Answers as labels: their padding (token 0) is not learned."""
    return answers.where(answers != 0, IGNORE)


def stablemax_log_probabilities(logits: Tensor) -> Tensor:
    """Log of s(x) / sum s(x) with s(x) = x + 1 for x >= 0 and 1 / (1 - x) below, in float64."""
    x = logits.double()
    # Both branches are computed, so each must stay finite (and have a finite gradient) where unused.
    s = torch.where(x < 0, 1 / (1 - x.clamp(max=0)), x.clamp(min=0) + 1)
    return s.log() - s.sum(-1, keepdim=True).log()


# Loss → log-probabilities of the vocabulary, from logits.
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "stablemax": stablemax_log_probabilities,
    "softmax": lambda logits: F.log_softmax(logits.float(), dim=-1),
}


def token_loss(logits: Tensor, labels: Tensor, kind: str, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over each puzzle's labelled tokens: ``[B, S, V], [B, S] -> [B]``, float32.

    ``kind``: a key of :data:`LOSSES`; ``smoothing``: the part of the target spread evenly over the vocabulary.
    """
    logp = LOSSES[kind](logits)
    labelled = labels != IGNORE
    picked = logp.gather(-1, labels.where(labelled, 0).long().unsqueeze(-1)).squeeze(-1)
    if smoothing:
        picked = (1 - smoothing) * picked + smoothing * logp.mean(-1)
    return (-(picked * labelled).sum(-1) / labelled.sum(-1).clamp(min=1)).float()


def solved(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether every labelled token of a puzzle is right: bool ``[B]``."""
    return ((logits.argmax(-1) == labels) | (labels == IGNORE)).all(-1)


def q_continue_target(next_q: Tensor, last_allowed: Tensor) -> Tensor:
    """What going on is worth, ``[B]`` in 0..1: the next segment's value.

    ``next_q[B, 2]``; where this segment was the last allowed only halting can follow.
    """
    return torch.sigmoid(torch.where(last_allowed, next_q[:, 0], next_q.amax(-1)))


class Losses(NamedTuple):
    total: Tensor  # scalar, to differentiate
    token: Tensor  # scalar
    halt: Tensor  # scalar; both Q heads


def act_losses(
    logits: Tensor,
    q: Tensor | None,
    labels: Tensor,
    kind: str,
    halt_weight: float,
    continue_target: Tensor | None,
    smoothing: float = 0.0,
) -> Losses:
    """Token loss plus ``halt_weight`` times the Q losses; ``continue_target`` None trains q_halt alone.

    ``q`` is None where a network has no halting head to train.
    """
    token = token_loss(logits, labels, kind, smoothing).mean()
    if q is None:
        return Losses(token, token, torch.zeros_like(token))
    halt = F.binary_cross_entropy_with_logits(q[:, 0], solved(logits, labels).float())
    if continue_target is not None:
        halt = halt + F.binary_cross_entropy_with_logits(q[:, 1], continue_target)
    return Losses(token + halt_weight * halt, token, halt)
