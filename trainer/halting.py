"""Calibrating when a finished model halts: the halting head learns on noisy weights, and tends to be too sure."""

from __future__ import annotations

import numpy as np
import torch

from ..data.puzzles import PuzzleSet
from ..halting import halting_head
from ..models import HRM
from .losses import solved

MARGINS = np.arange(0, 8.5, 0.5)  # logits


@torch.inference_mode()
def halting_margin(model: HRM, puzzles: PuzzleSet, allowed_loss: float = 0.005, batch: int = 64) -> float:
    """The smallest margin (logits) by which to distrust q_halt, so that halting early costs next to nothing.

    With it, the part of ``puzzles`` solved under learned halting is at most ``allowed_loss`` below the part
    solved when every puzzle gets all ``halt_max_steps`` segments. Use puzzles that nothing else is measured on.
    """
    assert puzzles.answers is not None
    config, device = model.config, model.H_init.device
    wants, right = [], []  # float and bool [segments, batch] per batch
    for start in range(0, len(puzzles), batch):
        tokens = torch.from_numpy(puzzles.questions[start : start + batch]).long().to(device)
        answers = torch.from_numpy(puzzles.answers[start : start + batch]).long().to(device)
        e = model.embed(tokens)
        z_H, z_L = model.initial_state(len(tokens))
        for _ in range(config.halt_max_steps):
            z_H, z_L, logits, q = model.segment(z_H, z_L, e)
            wants.append(halting_head(config.no_ACT_continue).margin(q).cpu().numpy())
            right.append(solved(logits, answers).cpu().numpy())
    rows = [slice(i, i + config.halt_max_steps) for i in range(0, len(wants), config.halt_max_steps)]
    want = np.concatenate([np.stack(wants[row]) for row in rows], axis=1)
    good = np.concatenate([np.stack(right[row]) for row in rows], axis=1)
    for margin in MARGINS:
        halts = want > margin
        halts[-1] = True
        exact = good[halts.argmax(axis=0), np.arange(good.shape[1])].mean()
        if exact >= good[-1].mean() - allowed_loss:
            return float(margin)
    return float(MARGINS[-1])
