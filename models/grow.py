"""Start a deeper network from a trained one, so that training goes on from what it already solves."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .hrm import HRM

_BLOCK = re.compile(r"[HL]_level\.layers\.\d+\.")


def with_added_blocks(tensors: dict[str, Tensor], model: HRM) -> dict[str, Tensor]:
    """``tensors`` of a trained network, and blocks for the layers that ``model`` has beyond it.

    What an added block adds to the state starts at zero. As the state that reaches it has RMS 1, its norms change
    nothing either, so the deeper network answers as the trained one does. Everything else is left to
    :func:`load_weights` to judge; a mixer over the sequence has another norm, and no block is added.
    """
    mixer = model.config.mixer
    if mixer.transposed:
        return tensors
    residual = (*(f"{mixer.name}.{parameter}" for parameter in mixer.residual), "mlp.down_proj.weight")
    own = model.state_dict()
    added = {name: own[name] for name in own if name not in tensors and _BLOCK.match(name)}
    return tensors | {
        name: torch.zeros_like(weight) if name.endswith(residual) else weight for name, weight in added.items()
    }
