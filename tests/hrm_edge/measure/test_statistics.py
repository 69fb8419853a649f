"""Intervals and tests against brute force: enumerated binomials and multinomials, never the same formula twice."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.measure.statistics import drop_interval, interval, mcnemar, median_interval, shift_interval


def binomial(n: int, rate: float) -> list[float]:
    """P(X = k) for k = 0 … n, by folding one throw after the other."""
    chances = [1.0]
    for _ in range(n):
        chances = [
            (chances[k] * (1 - rate) if k < len(chances) else 0.0) + (chances[k - 1] * rate if k else 0.0)
            for k in range(len(chances) + 1)
        ]
    return chances


@pytest.mark.parametrize(("lost", "won"), [(lost, won) for lost in range(7) for won in range(7)])
def test_mcnemar_counts_every_way_the_changed_puzzles_could_have_split(lost, won):
    splits = list(itertools.product((0, 1), repeat=lost + won))
    as_lopsided = sum(abs(2 * sum(split) - lost - won) >= abs(lost - won) for split in splits)
    assert mcnemar(lost, won) == pytest.approx(as_lopsided / len(splits), abs=1e-12)


def test_mcnemar_of_known_tables():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(6, 1) == 0.125  # 16 of 128
    assert 0 < mcnemar(2000, 1000) < 1e-60  # far beyond what a sum of float powers could give


def test_wilson_of_a_published_example():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605)}
    published |= {(0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718)}
    for (count, n), expected in published.items():
        assert interval(count, n) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 5000), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_interval_holds_the_rate_and_mirrors(n, data, confidence):
    count = data.draw(st.integers(0, n))
    low, high = interval(count, n, confidence)
    assert 0 <= low <= count / n <= high <= 1
    mirrored = interval(n - count, n, confidence)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)
    assert (low == 0) == (count == 0)
    assert (high == 1) == (count == n)


@pytest.mark.parametrize("n", [30, 100, 400])
def test_the_interval_covers_the_truth_about_as_often_as_it_claims(n):
    rates = np.linspace(0.02, 0.98, 49)
    limits = [interval(k, n) for k in range(n + 1)]
    covered = [
        sum(chance for chance, (low, high) in zip(binomial(n, rate), limits, strict=True) if low <= rate <= high)
        for rate in rates
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.85


@pytest.mark.parametrize(("p", "q"), [(0.0, 0.0), (0.01, 0.01), (0.05, 0.02), (0.2, 0.1), (0.02, 0.0), (0.1, 0.4)])
def test_the_drop_interval_covers_the_truth_where_the_bootstrap_collapses(p, q):
    n = 60
    covered = 0.0
    for lost, won in itertools.product(range(n + 1), repeat=2):
        if lost + won > n:
            continue
        ways = math.comb(n, lost) * math.comb(n - lost, won)
        chance = ways * p**lost * q**won * (1 - p - q) ** (n - lost - won)
        low, high = drop_interval(lost, won, n)
        covered += chance * (low <= 100 * (p - q) <= high)
    assert 0.93 < covered <= 1 + 1e-9


def test_the_drop_interval_is_the_bootstraps_where_that_works():
    rng = np.random.default_rng(0)
    draws = rng.multinomial(400, [30 / 400, 10 / 400, 360 / 400], size=10_000)
    low, high = np.quantile(100 * (draws[:, 0] - draws[:, 1]) / 400, [0.025, 0.975])
    assert drop_interval(30, 10, 400) == pytest.approx((low, high), abs=0.3)
    assert drop_interval(0, 0, 400) == pytest.approx((-0.69, 0.69), abs=0.005)
    low, high = drop_interval(3, 8, 50)
    assert drop_interval(8, 3, 50) == pytest.approx((-high, -low))


@pytest.mark.parametrize("bad", [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(ValueError, match="between 0 and n"):
        interval(*bad)
    with pytest.raises(ValueError, match="do not fit"):
        drop_interval(bad[0], 0, bad[1])


@pytest.mark.parametrize("n", [6, 9, 15, 30])
def test_the_median_interval_holds_the_median_often_enough_and_no_wider(n):
    """By signs alone: between the k-th smallest and largest when at least k values lie on either side."""
    low, high = median_interval(list(range(n)))
    k = int(low) + 1
    assert high == n - k
    chances = binomial(n, 0.5)
    inside = sum(chances[k : n - k + 1])
    assert inside >= 0.95
    assert sum(chances[k + 1 : n - k]) < 0.95


def test_the_median_interval_of_few_values_is_their_range():
    assert median_interval([3.0]) == (3.0, 3.0)
    assert median_interval([2.0, 1.0]) == (1.0, 2.0)
    assert median_interval([5.0, 1.0, 3.0]) == (1.0, 5.0)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_of_a_shift_holds_the_true_one_about_as_often_as_it_claims(confidence):
    """Pairs that go together, as segments of one puzzle do on both sides; the truth by a million of them."""
    rng = np.random.default_rng(5)

    def draw(n):
        before = rng.geometric(0.3, n)
        return before, np.maximum(1, before + rng.integers(-1, 3, n) * (rng.random(n) < 0.4))

    before, after = draw(10**6)
    truth = after.mean() / before.mean() - 1
    found = [shift_interval(*draw(400), confidence) for _ in range(2000)]
    held = np.mean([low <= truth <= high for low, high in found])
    assert abs(held - confidence) < 0.03


def test_a_shift_that_every_pair_has_is_certain():
    before = np.array([1, 2, 5])
    assert shift_interval(before, 2 * before) == (1, 1)
