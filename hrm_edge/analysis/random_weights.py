"""Sizes of networks that are measured with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from ..tasks import Task, get_task

if TYPE_CHECKING:
    from ..models import HRMConfig


def random_config(size: str) -> tuple[HRMConfig, Task]:
    """The configuration and the task of a named size. InputError for an unknown one."""
    if size != "paper":
        raise InputError(f"--random-weights {size}: unknown size; choose paper")
    from ..models import HRMConfig

    return HRMConfig.paper(), get_task("sudoku-9x9")
