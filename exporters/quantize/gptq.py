"""Rounding that makes up for itself: GPTQ (arXiv 2210.17323) over what a layer really reads in a rollout.

Nearest rounding makes every weight's own error small; what matters is the error of the product. Rows are
rounded one after the other, and the error that each makes is spread over the rows still to come, in proportion
to how the inputs go together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

_TOGETHER = 128  # rows whose errors reach the rows after them in one product
_DAMPING = 0.01  # part of the mean diagonal that is added, so that unseen directions stay where they are

# Rounded weights by all that they depend on: every target, trial and table of errors asks for them again.
_KEPT = 96
_rounded: dict[bytes, np.ndarray] = {}


def compensated(weight: np.ndarray, gram: np.ndarray, scale: np.ndarray, largest: int) -> np.ndarray:
    """int8[K, N]: steps of ``scale`` (float32, broadcast over [K, N]), within ±``largest``.

    ``gram`` float[K, K] is the sum of x xᵀ over the layer's inputs x, all its calls together.
    """
    scale = np.broadcast_to(scale, weight.shape)
    key = hashlib.sha256(f"{weight.shape} {largest} {scale.strides}".encode())
    for array in (weight, gram, scale):
        key.update(np.ascontiguousarray(array).data)
    if (kept := _rounded.get(key.digest())) is not None:
        return kept
    steps = np.empty(weight.shape, np.int8)

    def nearest(row: np.ndarray, k: int) -> np.ndarray:
        steps[k] = np.clip(np.rint(row / scale[k]), -largest, largest)
        return steps[k] * scale[k]

    in_turn(weight, gram, nearest)
    steps.flags.writeable = False
    if len(_rounded) >= _KEPT:
        del _rounded[next(iter(_rounded))]
    _rounded[key.digest()] = steps
    return steps


def in_turn(weight: np.ndarray, gram: np.ndarray, nearest: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """float32[K, N]: ``nearest(row float64[N], k)`` of every row, each error spread over the rows still to come."""
    left, factor = weight.astype(np.float64), _inverse_factor(gram, len(weight))
    chosen = np.empty(weight.shape, np.float32)
    errors = np.empty((_TOGETHER, weight.shape[1]))
    for first in range(0, len(weight), _TOGETHER):
        last = min(first + _TOGETHER, len(weight))
        for k in range(first, last):
            chosen[k] = nearest(left[k], k)
            errors[k - first] = (left[k] - chosen[k]) / factor[k, k]
            left[k + 1 : last] -= np.outer(factor[k, k + 1 : last], errors[k - first])
        # Rows further down are read only when their turn comes: one product for all errors of these.
        left[last:] -= factor[first:last, last:].T @ errors[: last - first]
    return chosen


def _inverse_factor(gram: np.ndarray, K: int) -> np.ndarray:
    """Upper triangular U with UᵀU = (gram + damping)⁻¹: row k says how row k's error spreads."""
    damped = gram.astype(np.float64) + np.eye(K) * max(_DAMPING * float(np.trace(gram)) / K, 1e-12)
    return np.linalg.cholesky(np.linalg.inv(damped)).T
