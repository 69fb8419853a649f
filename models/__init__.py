"""The networks (torch), their configs and checkpoints, and the trained weights that ship."""

from .calibration import Ranges, collect_ranges, quantized_layers
from .checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
)
from .config import HRMConfig
from .hrm import HRM
from .slicing import keep_identifiers
from .source import NetworkSource
from .trained_scales import TrainedScales, quantization_of

__all__ = [
    "HRM",
    "Checkpoint",
    "HRMConfig",
    "NetworkSource",
    "Ranges",
    "TrainedScales",
    "build_model",
    "collect_ranges",
    "keep_identifiers",
    "load_checkpoint",
    "quantization_of",
    "quantized_layers",
    "resolve_checkpoint",
    "save_checkpoint",
]
