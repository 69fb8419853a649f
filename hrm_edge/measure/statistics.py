"""Counting statistics: what n puzzles can show about a proportion, a paired difference or a median."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


def interval(count: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of the rate (0 to 1) behind `count` of `n`; honest at 0 and at n, and for small n.

    Neither needs to be whole, so that one can ask what another n would show at the same rate.
    """
    if not 0 <= count <= n or n <= 0:
        raise ValueError(f"count must be between 0 and n, and n above 0, not {count} of {n}")
    z = _z(confidence)
    rate = count / n
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # Exact where rounding would spoil it: nothing seen does not exclude 0, everything seen does not exclude 1.
    return (0.0 if count == 0 else max(0.0, middle - half)), (1.0 if count == n else min(1.0, middle + half))


def drop_interval(lost: float, won: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a paired drop (lost − won) / n, in points, by Bonett and Price's adjusted Wald method (2012).

    Unlike a bootstrap it stays honest when few or no puzzles changed: 0 of 400 is ±0.69 points. `lost` and
    `won` are the puzzles that only the one and only the other side solves; none needs to be whole.
    """
    if min(lost, won) < 0 or lost + won > n or n <= 0:
        raise ValueError(f"{lost} lost and {won} won do not fit into n={n}")
    a, b = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((a + b - (a - b) ** 2) / (n + 2))
    return 100 * max(-1.0, a - b - half), 100 * min(1.0, a - b + half)


def shift_interval(before: np.ndarray, after: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of mean(after) / mean(before) − 1 over n pairs (number[n], of means above 0), delta method."""
    ratio = after.mean() / before.mean()
    error = (after - ratio * before).std() / (before.mean() * math.sqrt(len(before)))
    return float(ratio - 1 - _z(confidence) * error), float(ratio - 1 + _z(confidence) * error)


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p of McNemar's test: how likely so lopsided a split is if neither side is better.

    `lost` and `won` are the puzzles that only the one and only the other side solves. 1.0 when there are none.
    """
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**changed)  # whole numbers up to here: exact for any counts


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Distribution-free interval of the median from order statistics; the whole range when there are few."""
    ordered, n = sorted(values), len(values)
    inside, total = 0, 2**n
    # Leave out k at each end while the values between still hold the median often enough.
    for k in range(n // 2 + 1):
        inside += math.comb(n, k)
        if 1 - 2 * inside / total < confidence:
            break
    return ordered[max(k - 1, 0)], ordered[n - max(k, 1)]


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def megaflops(flops: float) -> str:
    """Operations in millions: "2,140", "0.0123"."""
    millions = 1e-6 * flops
    return f"{millions:,.0f}" if millions >= 100 else f"{millions:.3g}"


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def upper_bound(count: int, n: int) -> float:
    """One-sided Clopper-Pearson bound: the largest rate at which `count` or fewer of n is still plausible."""
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(count, n, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(count: int, n: int, rate: float) -> float:
    """P(X ≤ count) for X binomial(n, rate), 0 < rate < 1."""
    log_terms = (
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(rate)
        + (n - k) * math.log1p(-rate)
        for k in range(count + 1)
    )
    return math.fsum(math.exp(term) for term in log_terms)
