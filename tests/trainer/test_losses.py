"""Losses against their definitions, written out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm_edge.trainer.losses import (
    IGNORE,
    act_losses,
    q_continue_target,
    solved,
    stablemax_log_probabilities,
    token_loss,
)

LOGITS = arrays(np.float64, (2, 3, 5), elements=st.floats(-50, 50))


@given(LOGITS)
def test_stablemax_is_its_definition(logits):
    s = np.where(logits < 0, 1 / (1 - np.minimum(logits, 0)), logits + 1)
    expected = np.log(s / s.sum(-1, keepdims=True))
    found = stablemax_log_probabilities(torch.from_numpy(logits).float())
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@given(st.floats(-1e30, 1e30))
def test_stablemax_gradient_stays_finite(value):
    logits = torch.tensor([[[value, 0.0, -value]]], requires_grad=True)
    token_loss(logits, torch.tensor([[0]]), "stablemax").sum().backward()
    assert torch.isfinite(logits.grad).all()


@given(LOGITS)
def test_softmax_loss_is_torchs_own_and_skips_unlabelled_tokens(logits):
    logits = torch.from_numpy(logits).float()
    labels = torch.tensor([[0, 4, IGNORE], [IGNORE, IGNORE, 2]])
    for row in range(2):
        expected = F.cross_entropy(logits[row], labels[row], ignore_index=IGNORE)
        torch.testing.assert_close(token_loss(logits, labels, "softmax")[row], expected, atol=1e-4, rtol=1e-4)


def test_solved_ignores_unlabelled_tokens():
    logits = torch.eye(4)[None, [0, 1, 2]]
    assert solved(logits, torch.tensor([[0, 1, 2]])).item()
    assert solved(logits, torch.tensor([[0, IGNORE, 2]])).item()
    assert not solved(logits, torch.tensor([[0, 2, 2]])).item()


def test_continue_target_is_the_next_segments_value():
    next_q = torch.tensor([[-1.0, 2.0], [-1.0, 2.0], [3.0, 2.0]])
    target = q_continue_target(next_q, torch.tensor([False, True, False]))
    torch.testing.assert_close(target, torch.sigmoid(torch.tensor([2.0, -1.0, 3.0])))


def test_total_adds_both_q_losses_with_the_weight():
    logits, q = torch.randn(3, 4, 5), torch.randn(3, 2)
    labels, target = torch.randint(0, 5, (3, 4)), torch.rand(3)
    both = act_losses(logits, q, labels, "softmax", 0.5, target)
    alone = act_losses(logits, q, labels, "softmax", 0.5, None)
    right = solved(logits, labels).float()
    torch.testing.assert_close(alone.halt, F.binary_cross_entropy(torch.sigmoid(q[:, 0]), right))
    torch.testing.assert_close(both.halt - alone.halt, F.binary_cross_entropy(torch.sigmoid(q[:, 1]), target))
    torch.testing.assert_close(both.total, both.token + 0.5 * both.halt)


@pytest.mark.parametrize("kind", ["softmax", "stablemax"])
def test_label_smoothing_spreads_a_part_of_the_target(kind):
    """Against the definition, and PyTorch's own."""
    logits, labels = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    every = torch.stack([token_loss(logits, torch.full_like(labels, v), kind) for v in range(7)])
    expected = 0.9 * token_loss(logits, labels, kind) + 0.1 * every.mean(0)
    torch.testing.assert_close(token_loss(logits, labels, kind, 0.1), expected)
    if kind == "softmax":
        theirs = F.cross_entropy(logits.view(15, 7), labels.view(15), label_smoothing=0.1)
        torch.testing.assert_close(token_loss(logits, labels, kind, 0.1).mean(), theirs)
