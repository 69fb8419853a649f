"""Ranges and scales against numpy: what was seen, what a threshold cuts off, and what int8 then makes of it."""

import math
import re
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.cli.export import command
from hrm_edge.models.calibration import SAMPLINGS
from hrm_edge.models.ranges import BINS, ESTIMATORS, STEPS, Histogram

# From far below to far above 1, so that the range has to double again and again.
MAGNITUDES = st.floats(2**-20, 2**20, width=32) | st.just(0.0) | st.floats(0.25, 4, width=32)
VALUES = st.lists(MAGNITUDES.flatmap(lambda m: st.sampled_from([m, -m])), min_size=1, max_size=40)


def histogram(*parts: np.ndarray) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(np.asarray(part, np.float32))
    return made


def int8_error(x: np.ndarray, scale: float) -> float:
    """Sum of squared errors when x goes through symmetric int8, simulated value by value."""
    return float(((x - scale * np.clip(np.rint(x / scale), -STEPS, STEPS)) ** 2).sum())


def bell(n: int = 20_011, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_everything_that_was_added_is_counted(parts):
    parts = [np.array(part, np.float32) for part in parts]
    parts[0][0] = parts[0][0] or 1  # zeros alone have no range yet
    made = histogram(*parts)
    values = np.abs(np.concatenate(parts))
    assert made.absmax == values.max()
    assert made.counts.sum() == len(values)
    assert made.limit >= made.absmax
    # Each value lies within a bin of where it was counted, however often the bins were widened since.
    width = made.limit / BINS
    counted = np.repeat(made.centres, made.counts)
    np.testing.assert_allclose(counted, np.sort(values), rtol=1e-5, atol=1.01 * width)


def test_doubling_keeps_every_count_in_its_place():
    small = np.random.default_rng(0).uniform(0, 1, 5000).astype(np.float32)
    before, after = histogram(small), histogram(small, [7.5])
    assert after.limit == 8 * before.limit
    merged = before.counts.reshape(-1, 8).sum(1)
    merged = np.concatenate([merged, np.zeros(BINS - len(merged), np.int64)])
    merged[math.floor(7.5 / after.limit * BINS)] += 1
    np.testing.assert_array_equal(after.counts, merged)


@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from([(-1,), (2, -1)]))
def test_shape_sign_and_dtype_do_not_matter(parts, shape):
    flat = np.concatenate([np.array(part, np.float32) for part in parts])
    flat = np.concatenate([flat, flat])
    for other in (-flat, flat.astype(np.float64), flat.reshape(shape)):
        plain, changed = Histogram(), Histogram()
        plain.add(flat)
        changed.add(other)
        assert plain.absmax == changed.absmax
        np.testing.assert_array_equal(plain.counts, changed.counts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    made = histogram([1.0, 2.0])
    with pytest.raises(ValueError, match="not finite"):
        made.add(np.array([0.5, bad], np.float32))
    assert made.absmax == 2
    assert made.counts.sum() == 2


@given(VALUES, st.floats(0, 2))
def test_beyond_is_the_part_above_a_threshold(values, part):
    x = np.array([*values, 1.0], np.float32)
    made = histogram(x)
    threshold, width = part * made.absmax, made.limit / BINS
    low, high = (float((np.abs(x) > threshold + sign * 1.01 * width).mean()) for sign in (1, -1))
    assert low <= made.beyond(threshold) <= high


def test_nothing_seen_is_nothing_beyond():
    assert Histogram().beyond(0) == 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_zeros_have_scale_one(estimator):
    assert Histogram().scale(estimator) == 1
    assert histogram(np.zeros((3, 4))).scale(estimator) == 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("least", [1e-45, 1e-40, 1e-36, 1e-31])
def test_what_float32_can_hardly_hold_is_zero(estimator, least):
    made = histogram([least, 0.0, -least])
    assert made.scale(estimator) == 1
    made.add(np.array([least, 0.5], np.float32))
    assert 0 < made.scale(estimator) <= np.float32(0.5 / 127)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("most", [2e38, 3.4e38])
def test_the_largest_float32_still_has_a_scale(estimator, most):
    assert 0 < histogram([2e38], [most]).scale(estimator) <= np.float32(most / 127)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_every_scale_is_a_positive_float32_that_wastes_no_step(estimator, values):
    made = histogram(*values)
    scale = made.scale(estimator)
    assert scale > 0
    assert scale == float(np.float32(scale))
    if made.absmax:
        assert scale <= np.float32(made.absmax / STEPS)
        assert scale >= 0.02 * made.absmax / STEPS


def test_minmax_clips_nothing_at_all():
    x = bell()
    made = histogram(x)
    assert made.scale("minmax") == np.float32(np.abs(x.astype(np.float32)).max() / 127)
    assert made.beyond(STEPS * made.scale("minmax")) == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [101, 30_011, 60_023])
def test_percentile_is_numpys_quantile_within_a_bin(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, n).astype(np.float32)
    made = histogram(*np.array_split(x, 3))
    wanted = np.quantile(np.abs(x), 0.9999, method="inverted_cdf")
    threshold = STEPS * made.scale("percentile")
    assert wanted * (1 - 1e-6) <= threshold <= (wanted + made.limit / BINS) * (1 + 1e-6)
    if n > 10_000:
        assert threshold < 0.95 * made.absmax  # or this would be min-max


@given(VALUES, st.integers(0, 3))
def test_mse_is_never_worse_than_minmax(values, outliers):
    """By direct simulation, up to what bins hide: an error moves by at most half a bin with its value."""
    x = np.array([*values, 1.0, *[9.0] * outliers], np.float32).astype(np.float64)
    made = histogram(x)
    scales = [made.scale("mse"), made.scale("minmax")]
    half = 0.5 * made.limit / BINS * 1.01
    slack = 0.0
    for scale in scales:
        each = np.abs(x - scale * np.clip(np.rint(x / scale), -STEPS, STEPS))
        slack += float((half * (2 * each + half)).sum())
    assert int8_error(x, scales[0]) <= int8_error(x, scales[1]) + slack


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "shape", [lambda x: x, lambda x: x**3, lambda x: np.sign(x) * x**2, lambda x: np.abs(x) + 0.5]
)
def test_mse_finds_the_best_threshold_there_is(shape, seed):
    x = shape(bell(seed=seed)).astype(np.float32).astype(np.float64)
    made = histogram(x)
    errors = [int8_error(x, made.absmax * part / STEPS) for part in np.linspace(0.05, 1, 400)]
    assert int8_error(x, made.scale("mse")) <= 1.02 * min(errors)


def test_mse_leaves_out_a_far_outlier():
    """One value among a million: the rest is worth six times its range, and the best threshold is a sixth of it."""
    x = np.append(bell(1_000_000), 60.0)
    made = histogram(x)
    errors = [int8_error(x, made.absmax * part / STEPS) for part in (0.1, 0.15, 0.2, 0.4, 1)]
    assert errors[1] < 0.8 * errors[3] < 0.3 * errors[4]
    assert int8_error(x, made.scale("mse")) <= 1.02 * min(errors)


def divergence(x: np.ndarray, made: Histogram, threshold: float) -> float:
    """KL(P ‖ Q): P the magnitudes by bin, all beyond the threshold in its last bin; Q the same in 128 levels, each
    spread evenly over its bins that are not empty. Bin by bin, as the calibration literature tells it."""
    width = made.limit / BINS
    stop = round(threshold / width)
    counts = [0.0] * BINS
    for value in np.abs(x):
        counts[min(int(value / width), BINS - 1)] += 1
    p = counts[:stop]
    p[-1] += sum(counts[stop:])
    q = [0.0] * stop
    for level in range(STEPS + 1):
        members = [i for i in range(stop) if i * (STEPS + 1) // stop == level and counts[i]]
        for i in members:
            q[i] = sum(counts[j] for j in members) / len(members)
    total_p, total_q = sum(p), sum(q)
    return sum(
        a / total_p * (math.log(a / total_p * total_q / b) if b else 30) for a, b in zip(p, q, strict=True) if a
    )


@pytest.mark.parametrize("seed", range(2))
def test_entropy_loses_no_more_information_than_other_thresholds(seed):
    x = np.random.default_rng(seed).laplace(size=4001).astype(np.float32)
    made = histogram(x)
    chosen = divergence(x, made, STEPS * made.scale("entropy"))
    # Thresholds as far apart as 16 bins differ little, and the estimator looks at every 32nd.
    for part in (0.1, 0.2, 0.35, 0.5, 0.75, 1.0):
        assert chosen <= divergence(x, made, part * made.limit) * 1.05


def test_entropy_keeps_an_even_spread_and_cuts_far_outliers():
    rng = np.random.default_rng(0)
    even = histogram(rng.uniform(-1, 1, 50_000))
    assert STEPS * even.scale("entropy") > 0.9
    # A thousandth far out would stretch min-max to eight times the rest.
    far = histogram(np.append(bell(50_000), np.full(5, 40.0)))
    assert STEPS * far.scale("entropy") < 20


@pytest.mark.parametrize(
    ("flag", "choices"), [("calibration_method", ESTIMATORS), ("calibration_segments", SAMPLINGS)]
)
def test_help_names_every_choice(flag, choices):
    """Written out there: the command line prints its help without loading any of this."""
    said = get_type_hints(command, include_extras=True)[flag].__metadata__[0].help
    assert set(choices) <= set(re.findall(r"\w+", said))
