"""Data, losses, ACT slots, optimizers and the training loop."""

from .config import PRESETS, TrainConfig, load_recipe
from .loop import TrainingDiverged, train

__all__ = ["PRESETS", "TrainConfig", "TrainingDiverged", "load_recipe", "train"]
