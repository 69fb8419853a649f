"""The networks (torch), their configs and checkpoints, and the trained weights that ship."""

from .checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
)
from .config import HRMConfig
from .hrm import HRM, halts

__all__ = [
    "HRM",
    "Checkpoint",
    "HRMConfig",
    "build_model",
    "halts",
    "load_checkpoint",
    "resolve_checkpoint",
    "save_checkpoint",
]
