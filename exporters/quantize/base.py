"""The contract of a family of precisions: how its numbers are written into a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from ..targets.base import Target
    from .plan import Plan


@dataclass(frozen=True)
class Algorithm:
    """How precisions of one ``family`` (see :mod:`hrm_edge.precision`) are stored: in a graph, and each by itself.

    ``apply(segment, plan, target)`` changes a float segment in place, and returns the names of the products that
    are low-precision from then on. ``stored(weight, gram, plan, target)`` gives float32[K, N], what a product
    multiplies with in the place of ``weight``; ``gram``: sum of x xᵀ over the layer's inputs, if the plan has it.
    """

    family: str
    apply: Callable[[onnx.ModelProto, Plan, Target], list[str]]
    stored: Callable[[np.ndarray, Any, Plan, Target], np.ndarray]
