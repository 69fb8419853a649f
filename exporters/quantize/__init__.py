"""Precisions: which numbers a segment gets, and how they are written into its graph.

A family of precisions is found by its algorithm: the module here that offers it as ``ALGORITHM``.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Algorithm


def algorithm_of(family: str) -> Algorithm:
    """How precisions of a family are written into a float segment."""
    for found in pkgutil.iter_modules(__path__):
        algorithm: Algorithm | None = getattr(
            importlib.import_module(f".{found.name}", __name__), "ALGORITHM", None
        )
        if algorithm is not None and algorithm.family == family:
            return algorithm
    raise LookupError(f"no module here offers the algorithm of {family}")
