"""Halting against difficulty, counted by brute force on engines that stop where a script says."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Scripted, puzzle_set

from hrm_edge.analysis.halting import area_under_curve, calibration, halting, quantile_groups, rank_correlation
from hrm_edge.analysis.plots import halting_picture
from hrm_edge.analysis.tables import halting_table
from hrm_edge.runtimes import Answers
from hrm_edge.runtimes.engine import Request


class Knowing(Scripted):
    """A scripted engine whose q_halt is +2 on right guesses and -2 on wrong ones."""

    def _solve(self, request: Request) -> Answers:
        answers = super()._solve(request)
        right = self.task.verify(request.tokens, answers.tokens)
        q = np.stack([np.where(right, 2.0, -2.0), np.zeros(len(right))], axis=1)
        return Answers(answers.tokens, answers.steps, answers.halted, q.astype(np.float32), answers.trace)


def test_halting_is_counted_by_source_and_by_rating() -> None:
    rng = np.random.default_rng(3)
    puzzles = puzzle_set(200, sources=["a", "b"] * 100)
    right_from, halts_at = rng.integers(0, 9, 200), rng.integers(1, 12, 200)
    found = halting(Knowing(puzzles, right_from, halts_at), puzzles, name="scripted")
    ratings = np.array([puzzles.task.rating(q, q) for q in puzzles.questions])
    steps = np.minimum(halts_at, 8)
    right = (right_from > 0) & (right_from <= steps)
    halted = halts_at <= 8
    for row, rows in (
        (found.total, np.ones(200, bool)),
        (found.by_source[0], np.arange(200) % 2 == 0),
        (found.by_source[1], np.arange(200) % 2 == 1),
    ):
        assert row.n == rows.sum()
        assert row.halted == (rows & halted).sum()
        assert row.halted_wrong == (rows & halted & ~right).sum()
        assert row.right == (rows & right).sum()
        assert row.steps == {k: c for k in range(1, 9) if (c := int((rows & (steps == k)).sum()))}
        assert row.steps_mean == pytest.approx(steps[rows].mean())
    assert sum(row.n for row in found.by_rating) == 200
    assert sum(row.right for row in found.by_rating) == right.sum()
    assert (found.correlation is None) == (len(set(ratings.tolist())) == 1)
    assert halting_table(found).rows[-1][1] == "200"
    assert halting_picture(found, "png").startswith(b"\x89PNG")


def test_the_head_that_knows_has_auc_1_and_the_blind_one_a_half() -> None:
    puzzles = puzzle_set(120)
    script = (np.arange(120) % 9, np.full(120, 3))
    knowing, blind = (halting(kind(puzzles, *script), puzzles).head for kind in (Knowing, Scripted))
    assert knowing.auc == 1
    assert knowing.segments == (1, 2, 4, 8)
    assert knowing.n == 480
    assert knowing.error == pytest.approx(1 / (1 + np.exp(2)))
    assert blind.auc == 0.5
    # Its q_halt is 0 always: it states one half, whatever comes of it.
    right = np.mean([(0 < k <= s) for k in script[0] for s in blind.segments])
    assert blind.error == pytest.approx(abs(0.5 - right))


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=40))
def test_auc_is_the_chance_over_all_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, right = np.array([score for score, _ in rows]), np.array([good for _, good in rows])
    pairs = [(a > b) + (a == b) / 2 for a in scores[right] for b in scores[~right]]
    found = area_under_curve(scores, right)
    assert found == (pytest.approx(np.mean(pairs)) if pairs else None)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 6))
def test_quantile_groups_split_all_puzzles_by_rating(values: list[int], bins: int) -> None:
    ratings = np.array(values)
    groups = quantile_groups(ratings, bins)
    assert 1 <= len(groups) <= bins
    assert (np.sum([rows for _, rows in groups], axis=0) == 1).all()
    for (_, easier), (_, harder) in itertools.pairwise(groups):
        assert ratings[easier].max() < ratings[harder].min()
    distinct = quantile_groups(np.arange(10 * bins), bins)
    assert {int(rows.sum()) for _, rows in distinct} <= {10, 11, 9}


def test_rank_correlation_sees_order_alone() -> None:
    a = np.array([1, 5, 2, 9])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.ones(4)) is None


def test_calibration_bins_hold_every_guess_once() -> None:
    predicted = np.array([0.0, 0.05, 0.55, 0.58, 1.0])
    found = calibration(predicted, np.array([False, True, True, False, True]))
    assert [(b.low, b.n, b.right) for b in found] == [(0.0, 2, 0.5), (0.5, 2, 0.5), (0.9, 1, 1.0)]
