"""A deeper network that starts from a trained one answers as that one, and can learn beyond it."""

import pytest
import torch
from small_networks import network

from hrm_edge.errors import InputError
from hrm_edge.models.checkpoint import build_model, load_weights
from hrm_edge.models.grow import with_added_blocks
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")


def deepened(model, **layers):
    config = type(model.config)(**{**model.config.to_dict(), **layers})
    torch.manual_seed(5)
    deeper = build_model(config, TASK)
    load_weights(deeper, with_added_blocks(model.state_dict(), deeper), "a test")
    return deeper.eval()


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("hrm", {"H_layers": 3}),
        ("hrm", {"H_layers": 2, "L_layers": 2}),
        ("trm", {"L_layers": 3}),
        ("recurrent", {"L_layers": 2}),
    ],
)
def test_added_blocks_change_nothing_and_learn(kind, layers):
    model = network(kind=kind)
    deeper = deepened(model, **layers)
    assert sum(p.numel() for p in deeper.parameters()) > sum(p.numel() for p in model.parameters())
    tokens = torch.randint(1, 5, (4, TASK.seq_len))
    z, deep_z = model.initial_state(4), deeper.initial_state(4)
    for _ in range(4):
        *z, logits, q = model.segment(*z, model.embed(tokens))
        *deep_z, deep_logits, deep_q = deeper.segment(*deep_z, deeper.embed(tokens))
        torch.testing.assert_close(deep_logits, logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(deep_q, q, atol=1e-4, rtol=1e-4)
    deep_logits.square().mean().backward()
    added = [p for name, p in deeper.named_parameters() if name not in model.state_dict()]
    assert added
    assert sum(float(p.grad.abs().sum()) for p in added) > 0


def test_what_is_no_deeper_network_is_refused():
    with pytest.raises(InputError, match="has shape"):
        deepened(network(), H_layers=2, hidden_size=64)
