"""Any dataset as a task: a folder in the public layout, and what a `task.toml` beside it says."""

from .definition import SymmetryDefinition, TaskDefinition
from .reading import DESCRIPTION, TASK_TOML, read_definition, read_sizes, set_folder, toml_of
from .task import DatasetTask

__all__ = [
    "DESCRIPTION",
    "TASK_TOML",
    "DatasetTask",
    "SymmetryDefinition",
    "TaskDefinition",
    "read_definition",
    "read_sizes",
    "set_folder",
    "toml_of",
]
