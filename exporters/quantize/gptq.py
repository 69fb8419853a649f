"""Rounding that makes up for itself: GPTQ (arXiv 2210.17323) over what a layer really reads in a rollout.

Nearest rounding makes every weight's own error small; what matters is the error of the product. Rows are
rounded one after the other, and the error that each makes is spread over the rows still to come, in proportion
to how the inputs go together.
"""

from __future__ import annotations

import numpy as np

_DAMPING = 0.01  # part of the mean diagonal that is added, so that unseen directions stay where they are


def compensated(weight: np.ndarray, gram: np.ndarray, scale: np.ndarray, largest: int) -> np.ndarray:
    """int8[K, N]: steps of ``scale`` (float32, broadcast over [K, N]), within ±``largest``.

    ``gram`` float[K, K] is the sum of x xᵀ over the layer's inputs x, all its calls together.
    """
    K = len(weight)
    left = weight.astype(np.float64)
    scale = np.broadcast_to(scale, weight.shape)
    factor = inverse_factor(gram, K)
    steps = np.empty(weight.shape, np.int8)
    for k in range(K):
        steps[k] = np.clip(np.rint(left[k] / scale[k]), -largest, largest)
        error = (left[k] - steps[k] * scale[k]) / factor[k, k]
        left[k + 1 :] -= np.outer(factor[k, k + 1 :], error)
    return steps


def inverse_factor(gram: np.ndarray, K: int) -> np.ndarray:
    """Upper triangular U with UᵀU = (gram + damping)⁻¹: row k says how row k's error spreads."""
    damped = gram.astype(np.float64) + np.eye(K) * max(_DAMPING * float(np.trace(gram)) / K, 1e-12)
    return np.linalg.cholesky(np.linalg.inv(damped)).T
