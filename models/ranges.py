"""Ranges of activations, and how a range becomes the scale of a symmetric int8 quantizer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BINS = 4096
STEPS = 127  # magnitudes of symmetric int8
_PERCENTILE = 99.99
_SMALLEST = 1e-30  # below it a bin's width would leave float32; nothing that int8 has to tell from zero


class Histogram:
    """Magnitudes of a tensor over many calls, in equal bins whose width doubles when a larger value comes."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0  # right end of the last bin
        self.absmax = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count float values of any shape."""
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        top = float(magnitudes.max(initial=0.0))
        if not np.isfinite(top):
            raise ValueError("a value is not finite")
        top = top if top >= _SMALLEST else 0.0
        self.absmax = max(self.absmax, top)
        if top == 0 and self.limit == 0:
            self.counts[0] += magnitudes.size  # zeros stay in the first bin, however wide it becomes
            return
        self.limit = self.limit or top
        while top > self.limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        index = np.minimum((magnitudes * (BINS / self.limit)).astype(np.int64), BINS - 1)
        self.counts += np.bincount(index, minlength=BINS)

    @property
    def centres(self) -> np.ndarray:
        return (np.arange(BINS) + 0.5) * (self.limit / BINS)

    def beyond(self, threshold: float) -> float:
        """Part of the values above a threshold, 0 to 1."""
        total = self.counts.sum()
        return float(self.counts[self.centres > threshold].sum() / total) if total else 0.0

    def scale(self, estimator: str) -> float:
        """Value of one int8 step: the estimator's threshold over 127; 1 where nothing but zeros was seen."""
        if self.absmax == 0:
            return 1.0
        threshold = min(ESTIMATORS[estimator](self), self.absmax)
        return float(np.float32(threshold / STEPS))


# -- estimators: how large a magnitude is still told apart; what is larger is clipped -------------------


def _percentile(histogram: Histogram) -> float:
    cumulated = np.cumsum(histogram.counts)
    bin_ = int(np.searchsorted(cumulated, cumulated[-1] * _PERCENTILE / 100))
    return (bin_ + 1) * histogram.limit / BINS


def _mse(histogram: Histogram) -> float:
    """The threshold of the least squared error: clipping beyond it, rounding within."""
    candidates = histogram.absmax * np.linspace(0.05, 1, 96)
    x, n = histogram.centres, histogram.counts
    errors = []
    for threshold in candidates:
        step = threshold / STEPS
        inside = np.round(np.minimum(x, threshold) / step) * step
        errors.append(float((n * (x - inside) ** 2).sum()))
    return float(candidates[int(np.argmin(errors))])


def _entropy(histogram: Histogram) -> float:
    """The threshold whose 128-level rendering of the distribution loses least information (KL divergence)."""
    levels = STEPS + 1
    counts = histogram.counts.astype(np.float64)
    best, threshold = np.inf, histogram.absmax
    last = int(np.ceil(histogram.absmax / histogram.limit * BINS))
    for stop in range(levels, last + 1, 32):
        p = counts[:stop].copy()
        p[-1] += counts[stop:].sum()
        groups = np.minimum(np.arange(stop) * levels // stop, levels - 1)
        filled = (counts[:stop] > 0).astype(np.float64)
        mass = np.bincount(groups, counts[:stop], levels)
        share = np.bincount(groups, filled, levels)
        q = np.where(filled > 0, (mass / np.maximum(share, 1))[groups], 0.0)
        p, q = p / p.sum(), q / max(q.sum(), 1e-30)
        both = (p > 0) & (q > 0)
        # What p has where q has nothing would be infinite; a small floor keeps it a large penalty.
        divergence = float((p[both] * np.log(p[both] / q[both])).sum() + p[(p > 0) & (q == 0)].sum() * 30)
        if divergence < best:
            best, threshold = divergence, stop * histogram.limit / BINS
    return threshold


# The names that --calibration-method takes.
ESTIMATORS: dict[str, Callable[[Histogram], float]] = {
    "minmax": lambda histogram: histogram.absmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
