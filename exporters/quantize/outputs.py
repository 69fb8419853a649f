"""The steps of products' results, for backends whose int8 kernels give int8: a rounding that others have not.

Calibration looked at inputs alone, but the sums of x xᵀ that it keeps tell how large a product's results are: those
of an output channel with weights w have the mean square wᵀ E[x xᵀ] w, over all calls of the layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from ...errors import InputError
from ...models.calibration import Ranges
from ...models.ranges import STEPS, Histogram
from ..graph.edit import array_of, initializers
from ..graph.layers import products

# Root mean squares of a channel that 127 steps reach.
REACH = 5.0
_LEAST = 1e-3  # of the widest channel's size


def rests(weight: str) -> str:
    """What the steps are called of products with what a wide site's first rounding left."""
    return f"{weight} of rests"


def output_steps(
    segment: onnx.ModelProto, ranges: Ranges | None, inputs: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """By stored weight of a float segment (smoothed as it will be): float32[N], a step of each channel's results.

    And by :func:`rests` of it. ``inputs``: by site, the value of a (coarse) step of the input.

    Raises:
        InputError: nothing was calibrated that would tell.
    """
    if ranges is None or not ranges.grams:
        raise InputError("--precision int8: this target rounds results too, which takes calibration; none was done")
    stored, steps = initializers(segment.graph), {}
    for product in products(segment):
        if product.weight not in steps:
            weight = array_of(stored[product.weight]).astype(np.float64)
            steps[product.weight] = _reaching(np.sqrt(_mean_squares(weight, product.layer, ranges)))
            # What rounding leaves lies anywhere within half a step either way.
            coarse = max(step for site, step in inputs.items() if site.rpartition("/")[0] == product.layer)
            steps[rests(product.weight)] = _reaching(coarse / np.sqrt(12) * np.linalg.norm(weight, axis=0))
    return steps


def _reaching(sizes: np.ndarray) -> np.ndarray:
    """float32[N]: steps for channels of these root mean squares; one that is always 0 has a step as well."""
    return (REACH * np.maximum(sizes, _LEAST * (sizes.max() or 1.0)) / STEPS).astype(np.float32)


def _mean_squares(weight: np.ndarray, layer: str, ranges: Ranges) -> np.ndarray:
    """float64[N]: of the results of each output channel of ``weight`` [K, N]."""
    gram = ranges.grams[layer]
    histograms = _of(layer, ranges.histograms)
    # The gram is of some tokens only; all values' mean square says of how many.
    energy = sum(float((each.counts * each.centres**2).sum()) for each in histograms)
    mean_square = energy / sum(int(each.counts.sum()) for each in histograms)
    tokens = np.trace(gram) / (len(weight) * mean_square) if mean_square else 1.0
    return np.einsum("kn,kl,ln->n", weight, gram, weight, optimize=True).clip(0) / max(tokens, 1.0)


def _of(layer: str, by_site: Mapping[str, Histogram]) -> list[Histogram]:
    return [each for site, each in by_site.items() if site.rpartition("/")[0] == layer]
