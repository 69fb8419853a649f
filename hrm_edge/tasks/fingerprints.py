"""Hashes of boards that tell most of them apart: 64-bit arithmetic on whole arrays, equal on every machine."""

from __future__ import annotations

import numpy as np


def mix(numbers: np.ndarray) -> np.ndarray:
    """uint64 to uint64, one to one, every bit of the result depending on every bit given (splitmix64's step)."""
    x = numbers + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_hashes(tokens: np.ndarray) -> np.ndarray:
    """uint64[N] of int[N, S]: equal rows have equal hashes, others hardly ever."""
    cells = np.arange(tokens.shape[1], dtype=np.uint64) << np.uint64(32)
    return mix(mix(cells + tokens.astype(np.uint64)).sum(axis=1, dtype=np.uint64))
