"""Palettized weights: each product's weight is one of 2^bits levels, a table of its own for every stored weight.

The levels come from k-means in one dimension, where a value counts as much as the inputs that meet it are large.
They need not be evenly spaced, so they follow a weight's distribution where few integer steps could not. Which
level a value then gets is not simply the nearest: a column's errors are made to make up for each other (see gptq).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from ..graph.edit import array_of, ensure, initializers, replace_initializers, tensor_of
from ..graph.layers import products
from .base import Algorithm
from .gptq import in_turn

_ROUNDS = 200  # a bound: the levels mostly stand still after some dozens
_DAMPING = 0.01  # part of the mean importance that every value has at least, as inputs never seen may come


def palettize_weights(segment: onnx.ModelProto, bits: int, grams: Mapping[str, np.ndarray]) -> list[str]:
    """Give the block weights of a float segment 2^bits different values each, in place; they stay float32."""
    chosen = products(segment)
    tensors = initializers(segment.graph)
    for product in {product.weight: product for product in chosen}.values():
        weight = array_of(tensors[product.weight])
        levels = palettized_weight(weight, bits, grams[product.layer])
        tensors[product.weight] = tensor_of(levels, product.weight)
    replace_initializers(segment.graph, list(tensors.values()))
    stored = initializers(segment.graph)
    many = [p.weight for p in chosen if len(np.unique(array_of(stored[p.weight]))) > 2**bits]
    ensure(not many, f"palettize_weights: more than {2**bits} levels in {many[:3]}")
    return [product.name for product in chosen]


def palettized_weight(weight: np.ndarray, bits: int, gram: np.ndarray) -> np.ndarray:
    """float32[K, N]: ``weight`` float32[K, N] with every value at one of 2^bits levels."""
    importance = np.diag(gram).astype(np.float64)
    importance = importance + max(_DAMPING * float(importance.mean()), 1e-12)
    levels = best_levels(weight, np.broadcast_to(importance[:, None], weight.shape), 2**bits)
    middles = _middles(levels)
    return in_turn(weight, gram, lambda row, k: levels[np.searchsorted(middles, row)])


def best_levels(values: np.ndarray, importance: np.ndarray, count: int) -> np.ndarray:
    """float32[count], rising: levels with the least importance-weighted squared error that Lloyd's rounds find.

    They start at the values' quantiles. Fewer different values than levels are all met exactly.
    """
    order = np.argsort(values, axis=None, kind="stable")
    ranked = values.reshape(-1)[order].astype(np.float64)
    distinct = np.unique(ranked)
    if len(distinct) <= count:
        return np.pad(distinct, (0, count - len(distinct)), mode="edge").astype(np.float32)
    weights = importance.reshape(-1)[order].astype(np.float64)
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    moment = np.concatenate([[0.0], np.cumsum(weights * ranked)])
    levels = np.quantile(ranked, (np.arange(count) + 0.5) / count)
    for _ in range(_ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(ranked, _middles(levels)), [len(ranked)]])
        held = np.diff(mass[edges])
        # A level that nothing is nearest to stays where it is.
        means = np.divide(np.diff(moment[edges]), held, out=levels.copy(), where=held > 0)
        if np.allclose(means, levels, rtol=1e-6, atol=0):
            break
        levels = np.sort(means)
    return levels.astype(np.float32)


def _middles(levels: np.ndarray) -> np.ndarray:
    """Where the nearest level changes."""
    return (levels[1:] + levels[:-1]) / 2


ALGORITHM = Algorithm(
    "palette",
    lambda segment, plan, target: palettize_weights(segment, plan.record.bits, plan.grams),
    lambda weight, gram, plan, target: palettized_weight(weight, plan.record.bits, gram),
)
