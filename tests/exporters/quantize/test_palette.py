"""Palettized weights: few levels, chosen well, and errors that make up for each other where inputs go together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from run_onnx import run
from traced_networks import expected_products, feeds, float_weights, weight_plan

from hrm_edge.exporters.graph.edit import array_of, initializers
from hrm_edge.exporters.graph.layers import weights_of
from hrm_edge.exporters.quantize.palette import best_levels, palettize_weights, palettized_weight


def cost(values: np.ndarray, importance: np.ndarray, levels: np.ndarray) -> float:
    return float((importance * (values[:, None] - levels).__abs__().min(1) ** 2).sum())


@given(
    values=st.lists(st.integers(-30, 30), min_size=4, max_size=9, unique=True),
    importance=st.lists(st.integers(1, 5), min_size=9, max_size=9),
)
def test_levels_are_a_best_choice_that_no_single_move_improves(values, importance):
    """Each level is the weighted mean of what is nearest to it: written out, value by value."""
    x, w = np.array(sorted(values), np.float32), np.array(importance[: len(values)], np.float64)
    levels = best_levels(x, w, 3)
    assert (levels.dtype, levels.shape) == (np.float32, (3,))
    nearest = np.abs(x[:, None] - levels).argmin(1)
    for i, level in enumerate(levels):
        gaps = np.sort(np.abs(x[:, None] - levels), axis=1)
        if (nearest == i).any() and (gaps[:, 1] - gaps[:, 0] > 1e-4).all():
            assert level == pytest.approx(np.average(x[nearest == i], weights=w[nearest == i]), abs=1e-4)


def test_levels_are_near_the_best_of_all():
    """Against every way to cut some values in three."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, w = np.sort(rng.normal(size=12)), rng.uniform(0.5, 2, 12)
        cuts = itertools.combinations(range(1, 12), 2)
        parts = ([(0, a), (a, b), (b, 12)] for a, b in cuts)
        best = min(cost(x, w, np.array([np.average(x[a:b], weights=w[a:b]) for a, b in part])) for part in parts)
        assert cost(x, w, best_levels(x, w, 3)) <= 1.6 * best + 1e-12


def test_few_different_values_are_met_exactly():
    values = np.array([[0.5, -1.25], [0.5, 3.0]], np.float32)
    assert set(best_levels(values, np.ones((2, 2)), 4).tolist()) == {-1.25, 0.5, 3.0}


def test_what_matters_more_is_met_better():
    values = np.array([0.0, 1.0, 2.0], np.float32)
    for heavy in (0, 1, 2):
        levels = best_levels(values, np.where(np.arange(3) == heavy, 1000.0, 1.0), 2)
        assert np.abs(levels - values[heavy]).min() < 0.01


@given(weight=arrays(np.float32, (12, 5), elements=st.floats(-4, 4, width=32)), bits=st.sampled_from([2, 4]))
def test_inputs_that_do_not_go_together_give_nearest_levels(weight, bits):
    made = palettized_weight(weight, bits, np.eye(12))
    levels = np.unique(made)
    assert made.dtype == np.float32
    assert len(levels) <= 2**bits
    # Of the levels that are used none is nearer than the one taken.
    assert (np.abs(made - weight) <= np.abs(weight[..., None] - levels).min(-1) + 1e-6).all()


def test_errors_make_up_for_each_other_where_inputs_go_together():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 32)) + 0.1 * rng.normal(size=(500, 32))
    weight = rng.normal(size=(32, 16)).astype(np.float32)
    together, apart = (palettized_weight(weight, 3, gram) for gram in (x.T @ x, np.diag(np.diag(x.T @ x))))
    lost = [np.linalg.norm(x @ (weight - made)) for made in (together, apart)]
    assert lost[0] < 0.75 * lost[1]


@pytest.mark.parametrize("bits", [4, 6])
def test_every_weight_of_a_block_gets_few_values_and_nothing_else_changes(traced, bits):
    model, _, segment = traced("learned")
    before = {name: array_of(tensor) for name, tensor in initializers(segment.graph).items()}
    values = feeds(model)
    exact = run("onnx", segment, values)
    grams = weight_plan("learned", "int8-weights").ranges.grams
    names = palettize_weights(segment, bits, grams)
    assert sorted(names) == sorted(expected_products(model))
    after = {name: array_of(tensor) for name, tensor in initializers(segment.graph).items()}
    assert before.keys() == after.keys()
    for name, array in after.items():
        if name not in float_weights(model):
            np.testing.assert_array_equal(array, before[name])
            continue
        assert (array.dtype, array.shape) == (np.float32, before[name].shape)
        assert 2 ** (bits - 1) < len(np.unique(array)) <= 2**bits
        assert 0 < np.linalg.norm(array - before[name]) < {4: 0.3, 6: 0.1}[bits] * np.linalg.norm(before[name])
    for layer, weights in weights_of(traced("learned")[2]).items():
        for name, weight in weights.items():
            np.testing.assert_array_equal(after[name], palettized_weight(weight, bits, grams[layer]))
    error = np.abs(run("onnx", segment, values)["logits"] - exact["logits"]).max()
    assert 0 < error < 0.5 * np.abs(exact["logits"]).max()
