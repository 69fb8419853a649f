"""Calibrating when a finished model halts: the halting head learns on noisy weights, and tends to be too sure."""

from __future__ import annotations

import numpy as np
import torch

from ..data.puzzles import PuzzleSet
from ..halting import halting_head
from ..models import HRM
from ..models.network import Wrapped
from .measure import solved_by_segment

MARGINS = np.arange(0, 8.5, 0.5)  # logits
_ALLOWED_LOSS = 0.005


def halting_margin(model: HRM | Wrapped, puzzles: PuzzleSet) -> float:
    """The smallest margin (logits) by which to distrust q_halt, so that halting early costs next to nothing.

    With it, the part of ``puzzles`` solved under learned halting is at most half a point below the part
    solved when every puzzle gets all ``halt_max_steps`` segments. Use puzzles that nothing else is measured on.
    """
    head, segments = halting_head(model.config.no_ACT_continue), range(model.config.halt_max_steps)
    wants, right = ([list[torch.Tensor]() for _ in segments] for _ in range(2))
    for k, exact, q in solved_by_segment(model, puzzles, len(segments)):
        wants[k - 1].append(head.margin(q))
        right[k - 1].append(exact)
    # float and bool [segments, puzzles]
    want, good = (torch.stack([torch.cat(parts) for parts in each]).cpu().numpy() for each in (wants, right))
    for margin in MARGINS:
        halts = want > margin
        halts[-1] = True
        exact = good[halts.argmax(axis=0), np.arange(good.shape[1])].mean()
        if exact >= good[-1].mean() - _ALLOWED_LOSS:
            return float(margin)
    return float(MARGINS[-1])
