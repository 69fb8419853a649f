"""A mixer is one class: what it says of itself is all that the network, its graph and its card need."""

import numpy as np
import pytest
import torch
from run_onnx import run
from small_networks import TASK, network
from traced_networks import feeds

from hrm_edge.exporters.graph.layers import products
from hrm_edge.exporters.graph.trace import trace_segment
from hrm_edge.models import build_model, config, quantized_layers
from hrm_edge.models.checkpoint import load_weights
from hrm_edge.models.grow import with_added_blocks
from hrm_edge.models.layers import Linear
from hrm_edge.models.mixers import Mixer


class Mean(Mixer):
    """Every token gets a projection of the mean of all."""

    name = "mean"
    residual = ("mean_proj.weight",)

    def __init__(self, config, position_ids):
        super().__init__()
        self.mean_proj = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x):
        return self.mean_proj(x.mean(1, keepdim=True)).expand_as(x)

    @staticmethod
    def wanted(config):
        return config.expansion == 3.5  # instead of a field of its own

    @staticmethod
    def title(config):
        return "the mean"


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(config, "MIXERS", (Mean, *config.MIXERS))
    return network(expansion=3.5, pos_encodings="none", H_cycles=1)


def test_the_network_knows_it(model):
    block = model.L_level.layers[0]
    assert isinstance(block.mean, Mean)
    assert "L_level.layers.0.mean.mean_proj" in quantized_layers(model)
    assert (model.config.mixer.title(model.config), model.config.rotary) == ("the mean", False)
    h = torch.randn(2, TASK.seq_len, 32)
    mixed = block.norm(h + block.mean(h))
    torch.testing.assert_close(block(h, ()), block.norm(mixed + block.mlp(mixed)))


@torch.inference_mode()
def test_it_is_exported_and_its_products_are_found(model):
    segment = trace_segment(model)
    assert "L_level.layers.0.mean.mean_proj" in {product.layer for product in products(segment)}
    values = feeds(model)
    z_H, _, logits, _ = model.segment(*(torch.from_numpy(values[name]) for name in ("z_H", "z_L", "e")))
    found = run("onnx", segment, values)
    np.testing.assert_allclose(found["z_H_next"], z_H, atol=1e-4)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)


def test_blocks_of_it_can_be_added(model):
    deeper = build_model(type(model.config)(**{**model.config.to_dict(), "L_layers": 2}), TASK)
    load_weights(deeper, with_added_blocks(model.state_dict(), deeper), "a test")
    assert not deeper.L_level.layers[1].mean.mean_proj.weight.any()
