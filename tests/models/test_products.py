"""Products of other networks are found wherever their weights lie, and exchanging them changes what is computed."""

import pytest
import torch
import torch.nn.functional as F
from foreign_networks import Attending
from torch import nn

from hrm_edge.models.network import Wrapped
from hrm_edge.models.products import Products, both_ways, find_layers
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")


class Multiplying(nn.Module):
    """One parameter, read as the test says."""

    def __init__(self, *shape):
        super().__init__()
        self.w = nn.Parameter(torch.randn(*shape))
        self.head = nn.Linear(4, 4)


X = torch.randn(3, 5, 4)


@pytest.mark.parametrize(
    ("shape", "compute", "names", "by_hand"),
    [
        ((6, 4), lambda x, w: F.linear(x, w), ["w"], lambda w: [w]),
        ((6, 4), lambda x, w: F.linear(input=x, weight=w), ["w"], lambda w: [w]),
        ((4, 6), lambda x, w: x @ w, ["w"], lambda w: [w.T]),
        ((6, 4), lambda x, w: torch.matmul(x, w.t().contiguous().T.T), [], lambda w: []),  # a copy is no weight
        ((4, 6), lambda x, w: torch.addmm(torch.zeros(6), x[0], w), ["w"], lambda w: [w.T]),
        ((6, 4), lambda x, w: F.linear(x, w[:2]) + F.linear(x, w[2:4]), ["w.0", "w.1"], lambda w: [w[:2], w[2:4]]),
        ((6, 4), lambda x, w: F.linear(x[..., :2], w[:, 2:]), ["w.0"], lambda w: [w[:, 2:]]),
        ((2, 6, 4), lambda x, w: F.linear(x, w[1]), ["w.0"], lambda w: [w[1]]),
        ((6, 4), lambda x, w: F.linear(F.linear(x, w), w.T), ["w", "w.1"], lambda w: [w, w.T]),
        ((4, 4), lambda x, w: x * w[0], [], lambda w: []),
    ],
)
def test_a_weight_is_known_by_where_it_lies(shape, compute, names, by_hand):
    torch.manual_seed(0)
    network = Multiplying(*shape)
    layers = find_layers(network, "", lambda: (compute(X, network.w),), 1)
    assert list(layers.places) == list(layers.inside) == names
    for place, weight in zip(layers.places.values(), by_hand(network.w), strict=True):
        assert torch.equal(place.of(network.state_dict()), weight)
    seen = []

    def nothing(layer, x, weight):
        seen.append(layer)
        return x, torch.zeros_like(weight)

    with Products(network, layers.places, nothing):
        made = compute(X, network.w)
    assert seen == names
    assert bool(made.any()) == (not names)


def written_into(x):
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, 1:]
    return y


@pytest.mark.parametrize(
    ("through", "inside"),
    [
        (lambda x: x.detach().clone(), True),
        (lambda x: torch.stack([x, x]).sum(0), True),
        (lambda x: F.layer_norm(x, (4,)), True),
        (lambda x: torch.zeros_like(x).add_(x), True),
        (written_into, True),
        (lambda x: torch.zeros(x.shape), False),
    ],
)
def test_heads_are_what_no_state_comes_from(through, inside):
    network = Multiplying(4, 4)

    def segment():
        z = through(F.linear(X, network.w))
        return z * 1, network.head(z)

    layers = find_layers(network, "n.", segment, 1)
    assert set(layers.places) == {"n.w", "n.head"}
    assert layers.inside == (("n.w",) if inside else ())


def test_attention_as_torch_has_it():
    torch.manual_seed(0)
    network = Attending(TASK)
    model = Wrapped(network, TASK)
    attention = ["itself.in_proj_weight", "itself.out_proj", "asking.in_proj_weight.0", "asking.in_proj_weight.1"]
    attention += ["asking.out_proj", "layer.self_attn.in_proj_weight", "layer.self_attn.out_proj"]
    others = ["layer.linear1", "layer.linear2", "both.0", "both.1", "turned"]
    assert list(model.quantized_layers) == [f"network.{name}" for name in (*attention, *others)]
    assert set(model.layers) - set(model.quantized_layers) == {"network.out", "network.q"}
    weights = model.layer_weights()
    assert torch.equal(weights["network.asking.in_proj_weight.1"], network.asking.in_proj_weight[32:])
    e, *state = model.start(torch.randint(0, 6, (2, 16)))
    calls = []
    with torch.no_grad(), model.products(lambda layer, x, weight: calls.append((layer, x.shape[-1], weight.shape))):
        watched = model.segment(*state, e)
    assert [layer for layer, _, _ in calls] == list(model.layers)
    assert all(width == shape[1] for _, width, shape in calls)
    for ours, theirs in zip(watched, model.segment(*state, e), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)  # torch has a fused form where nobody looks


def test_gradients_flow_through_what_was_exchanged():
    torch.manual_seed(0)
    model = Wrapped(Attending(TASK), TASK).train()
    e, *state = model.start(torch.randint(0, 6, (2, 16)))
    with model.products(lambda layer, x, weight: (2 * x, weight * 3)):
        model.segment(*state, e)[1].sum().backward()
    for name in ("itself.in_proj_weight", "both", "turned", "layer.linear1.weight"):
        assert model.network.get_parameter(name).grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("shape", "compute", "tied"),
    [
        ((6, 4), lambda x, w: F.linear(F.linear(x, w), w.T), ["w"]),
        ((4, 4), lambda x, w: x @ w + F.linear(x, w), ["w"]),
        ((6, 4), lambda x, w: F.linear(x, w) + F.linear(2 * x, w), []),
        ((6, 4), lambda x, w: F.linear(x, w[:2]) + F.linear(x, w[2:4]), []),
    ],
)
def test_a_weight_that_is_used_as_it_is_and_transposed_is_told(shape, compute, tied):
    network = Multiplying(*shape)
    assert both_ways(find_layers(network, "", lambda: (compute(X, network.w),), 1).places) == tied
