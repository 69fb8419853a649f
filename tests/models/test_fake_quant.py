"""Fake quantization against numpy's int8 arithmetic bit for bit, and its gradients against hand-computed ones."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_networks import TASK, network

from hrm_edge.models import collect_ranges, fake_quant, quantized_layers
from hrm_edge.models.fake_quant import (
    FakeQuantLinear,
    fake_quantize,
    fake_quantize_weight,
    plain_model,
    quantize_model,
    scales_of,
)
from hrm_edge.models.layers import Linear

QUESTIONS = TASK.generate(5, np.random.default_rng(1))[0]
VALUES = arrays(np.float32, (4, 6), elements=st.floats(-300, 300, width=32))


def int8(x, scale):
    return np.clip(np.rint(x / scale), -128, 127).astype(np.int8)


def weight_int8(w):
    """(values int8, scales float32 [out, 1]) as an export stores them."""
    scales = np.abs(w).max(1, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    return int8(w, scales), scales


def starting(model):
    ranges = collect_ranges(model, QUESTIONS, per_call=False)
    return {layer: ranges.histograms[layer].scale("minmax") for layer in quantized_layers(model)}


def segment(model, gradient="full"):
    e = model.embed(torch.from_numpy(QUESTIONS))
    return model.segment(*model.initial_state(len(QUESTIONS)), e, gradient=gradient)


@given(VALUES, st.floats(2**-10, 8, width=32))
def test_activations_are_int8_bit_for_bit(x, scale):
    found = fake_quantize(torch.from_numpy(x), torch.tensor(scale)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, int8(x, np.float32(scale)) * np.float32(scale))


def test_halves_round_to_even():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, -200.0])
    assert fake_quantize(x, torch.tensor(1.0)).tolist() == [0, 2, 2, 0, -2, 126, 127, -128]


@given(VALUES)
def test_weights_are_int8_bit_for_bit(w):
    w[np.abs(w) < 1e-30] = 0  # where max|w| / 127 would be a denormal
    w[2] = 0  # a channel of zeros
    values, scales = weight_int8(w)
    np.testing.assert_array_equal(fake_quantize_weight(torch.from_numpy(w)).numpy(), values * scales)


def test_layer_multiplies_what_int8_stands_for():
    torch.manual_seed(0)
    linear, x = Linear(32, 8), 3 * torch.randn(2, 5, 32)
    values, scales = weight_int8(linear.weight.detach().numpy())
    scale = np.float32(0.03)
    expected = F.linear(torch.from_numpy(int8(x.numpy(), scale) * scale), torch.from_numpy(values * scales))
    assert torch.equal(FakeQuantLinear(linear, float(scale), learned=False)(x), expected)
    integers = int8(x.numpy(), scale).astype(np.int64) @ values.T.astype(np.int64)
    np.testing.assert_allclose(expected.detach(), integers * scale * scales.T, rtol=1e-4, atol=1e-5)


def test_gradients_of_input_and_scale_are_lsqs():
    """Within the range 1 and round(v) - v, beyond it 0 and −128 or 127, for v = x / s."""
    x = torch.tensor([0.26, -0.04, 12.69, 13.0, -20.0], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    fake_quantize(x, scale).backward(upstream)
    assert x.grad.tolist() == [1, 2, 4, 0, 0]
    by_hand = 1 * (3 - 2.6) + 2 * (0 + 0.4) + 4 * (127 - 126.9) + 8 * 127 + 16 * -128
    assert scale.grad.item() == pytest.approx(by_hand, rel=1e-5)


def test_layer_passes_gradients_to_weight_and_log_scale():
    torch.manual_seed(0)
    layer, x = FakeQuantLinear(Linear(16, 4), 0.05, learned=True), 3 * torch.randn(3, 7, 16)
    layer(x).sum().backward()
    v = x.numpy() / np.float32(0.05)
    inside = (v >= -128) & (v <= 127)
    quantized = int8(x.numpy(), np.float32(0.05)) * np.float32(0.05)
    # Every weight, the largest of a channel too: its row's gradient is the sum of what it was multiplied with.
    expected = np.broadcast_to(quantized.sum((0, 1)), (4, 16))
    np.testing.assert_allclose(layer.weight.grad, expected, rtol=1e-4)
    values, scales = weight_int8(layer.weight.detach().numpy())
    upstream = (values * scales).sum(0)
    own = np.where(inside, np.rint(v) - v, np.where(v < 0, -128, 127))
    by_hand = 0.05 * (upstream * own).sum() / np.sqrt(7 * 16 * 127)  # d s / d log s = s; LSQ's g
    assert not inside.all()
    assert layer.log_scale.grad.item() == pytest.approx(by_hand, rel=1e-3)


def test_many_levels_are_the_float_model(monkeypatch):
    model = network()
    for scales in (starting(model), {layer: 3 * s for layer, s in starting(model).items()}):
        assert not torch.allclose(segment(quantize_model(model, scales, False))[0], segment(model)[0], atol=1e-2)
    monkeypatch.setattr(fake_quant, "STEPS", 2**20)
    fine = {layer: s * 127 / 2**19 for layer, s in scales.items()}
    for found, expected in zip(segment(quantize_model(model, fine, False)), segment(model), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("learned", [True, False])
def test_to_fake_quantization_and_back(learned):
    model = network(H_layers=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scales = {layer: 0.01 * (i + 1) for i, layer in enumerate(quantized_layers(model))}
    scales = {layer: float(np.float32(scale)) for layer, scale in scales.items()}
    fake = quantize_model(model, scales, learned)
    assert quantized_layers(fake) == quantized_layers(model) == list(scales)
    assert all(isinstance(fake.get_submodule(layer), FakeQuantLinear) for layer in scales)
    assert not isinstance(fake.lm_head, FakeQuantLinear)
    assert not isinstance(fake.q_head, FakeQuantLinear)
    assert scales_of(fake) == (pytest.approx(scales) if learned else scales)
    frozen = quantize_model(fake, scales_of(fake), learned=False)
    assert scales_of(frozen) == scales_of(fake)
    for ours, theirs in zip(segment(fake), segment(frozen), strict=True):
        assert torch.equal(ours, theirs)
    random = torch.get_rng_state()
    plain = plain_model(fake)
    assert torch.equal(torch.get_rng_state(), random)  # making it moved no random numbers
    assert plain.state_dict().keys() == before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert scales_of(plain) == scales_of(model) == {}
    for ours, original in zip(segment(plain), segment(model), strict=True):
        assert torch.equal(ours, original)


@pytest.mark.parametrize("gradient", ["one_step", "last_cycle", "full"])
def test_every_depth_of_gradient_reaches_weights_and_scales(gradient):
    model = network()
    fake = quantize_model(model, starting(model), learned=True).requires_grad_(True)
    values = [out.detach() for out in segment(fake)]
    segment(fake, gradient)[2].square().sum().backward()
    for name in quantized_layers(fake):
        layer = fake.get_submodule(name)
        assert layer.weight.grad.abs().max() > 0
        assert layer.log_scale.grad.abs() > 0
    assert all(torch.equal(a, b) for a, b in zip(values, segment(fake, gradient), strict=True))


def test_training_through_coarse_levels_recovers_the_float_models_answers(monkeypatch):
    """Three levels on each side of zero and a range four times too narrow: both are learned away."""
    monkeypatch.setattr(fake_quant, "STEPS", 3)
    model = network()
    target = segment(model)
    scales = {layer: scale * 127 / 3 / 4 for layer, scale in starting(model).items()}

    def loss(fake):
        return sum((a - b).square().mean() for a, b in zip(segment(fake)[:2], target[:2], strict=True))

    fake = quantize_model(model, scales, learned=True).requires_grad_(True)
    first = loss(fake).item()
    optimizer = torch.optim.Adam(fake.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(fake).backward()
        optimizer.step()
    assert loss(fake).item() < 0.5 * first
    assert scales_of(fake) != scales
    only_scales = quantize_model(model, scales, learned=True)
    optimizer = torch.optim.Adam(fake_quant.scale_parameters(only_scales), lr=3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss(only_scales).backward()
        optimizer.step()
    assert loss(only_scales).item() < 0.9 * first


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_is_the_same_and_learns_the_same():
    """Two layers, one after the other; that segments compile is seen where they train."""
    model = network()
    scales, mlp = starting(model), "L_level.layers.0.mlp"
    fakes = [quantize_model(model, scales, learned=True).requires_grad_(True) for _ in range(2)]
    ours, theirs = (fake.get_submodule(mlp) for fake in fakes)
    e = model.embed(torch.from_numpy(QUESTIONS))
    outs = [ours(e), torch.compile(theirs, dynamic=False)(e)]
    # A sum in another order may put a value on the other side of a half, which is one int8 step.
    torch.testing.assert_close(outs[0], outs[1], atol=0.05, rtol=0.05)
    for out in outs:
        out.square().sum().backward()
    for name in (name for name in quantized_layers(model) if name.startswith(mlp)):
        ours, theirs = (fake.get_submodule(name) for fake in fakes)
        torch.testing.assert_close(ours.log_scale.grad, theirs.log_scale.grad, atol=0.05, rtol=0.2)
        assert F.cosine_similarity(ours.weight.grad.flatten(), theirs.weight.grad.flatten(), dim=0) > 0.99
