"""The network against the public implementation's own outputs, and against what the paper says of it."""

import numpy as np
import pytest
import torch

from hrm_edge.halting import halting_head
from hrm_edge.models import HRM, HRMConfig, build_model
from hrm_edge.models.layers import truncated_lecun_normal_
from hrm_edge.models.mixers import rotary_angles, rotate_half
from hrm_edge.models.public import import_public
from hrm_edge.tasks import get_task


def small(**changes) -> HRMConfig:
    settings = {"hidden_size": 32, "num_heads": 2, "H_layers": 1, "L_layers": 1, "puzzle_emb_ndim": 32}
    return HRMConfig(vocab_size=6, seq_len=16, **{**settings, **changes})


@pytest.mark.parametrize("name", ["hrm-rope", "trm-att"])
def test_public_checkpoint_gives_the_public_outputs(shared_data, name):
    """Six segments from a fresh state, as the public code computed them."""
    model, task = import_public(shared_data / "parity" / name)
    expected = np.load(shared_data / "parity" / name / "expected.npz")
    assert task.name == "sudoku-9x9"
    with torch.inference_mode():
        tokens = torch.from_numpy(expected["inputs"]).long()
        e = model.embed(tokens, torch.from_numpy(expected["puzzle_identifiers"]).long())
        z_H, z_L = model.initial_state(len(tokens))
        for logits, q in zip(expected["logits"], expected["q"], strict=True):
            z_H, z_L, ours, our_q = model.segment(z_H, z_L, e)
            np.testing.assert_allclose(ours, logits, atol=1e-4)
            np.testing.assert_allclose(our_q, q, atol=1e-4)
    np.testing.assert_allclose(z_H, expected["z_H"], atol=2e-4)
    np.testing.assert_allclose(z_L, expected["z_L"], atol=2e-4)


def test_paper_size():
    config = HRMConfig.paper()
    with torch.device("meta"):
        model = HRM(config)
    assert 26e6 < sum(p.numel() for p in model.parameters()) < 28e6
    assert (config.prefix_len, config.sequence_len) == (1, 82)
    assert model.H_level.layers[0].mlp.down_proj.weight.shape == (512, 1536)


@pytest.mark.parametrize("pos_encodings", ["rope", "learned", "grid", "axial"])
def test_gradient_modes_compute_the_same_values(pos_encodings):
    torch.manual_seed(0)
    model = build_model(small(pos_encodings=pos_encodings, H_cycles=2, L_cycles=3), get_task("sudoku-4x4"))
    tokens = torch.randint(1, 6, (3, 16))
    gradients = {}
    outputs = []
    for mode in ("one_step", "last_cycle", "full"):
        model.zero_grad()
        out = model.segment(*model.initial_state(3), model.embed(tokens), gradient=mode)
        out[2].square().sum().backward()
        outputs.append(out[2].detach())
        gradients[mode] = model.L_level.layers[0].mlp.down_proj.weight.grad.clone()
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], outputs[2])
    assert not torch.allclose(gradients["one_step"], gradients["last_cycle"])
    assert not torch.allclose(gradients["last_cycle"], gradients["full"])


def test_one_step_gradient_is_the_last_step_alone():
    """Against a segment written out by hand, with everything before the last two updates held constant."""
    torch.manual_seed(1)
    model = HRM(small(H_cycles=2, L_cycles=2))
    e = model.embed(torch.randint(1, 6, (2, 16))).detach()
    z_H, z_L = (z.clone() for z in model.initial_state(2))
    with torch.no_grad():
        z_L = model.L_level(z_L, z_H + e, model.rope)
        z_L = model.L_level(z_L, z_H + e, model.rope)
        z_H = model.H_level(z_H, z_L, model.rope)
        z_L = model.L_level(z_L, z_H + e, model.rope)
    z_L = model.L_level(z_L, z_H + e, model.rope)
    model.lm_head(model.H_level(z_H, z_L, model.rope)).square().mean().backward()
    weight = model.L_level.layers[0].self_attn.qkv_proj.weight
    by_hand = weight.grad.clone()
    model.zero_grad()
    state = model.segment(*model.initial_state(2), e, gradient="one_step")[0]
    model.lm_head(state).square().mean().backward()
    torch.testing.assert_close(weight.grad, by_hand)


@pytest.mark.parametrize("layers", [1, 2])
def test_state_keeps_rms_one(layers):
    """Post-norm without gain: what makes the recurrence friendly to quantization."""
    model = HRM(small(H_layers=layers, L_layers=layers))
    with torch.no_grad():
        z_H, z_L, _, _ = model.segment(*model.initial_state(2), model.embed(torch.randint(1, 6, (2, 16))))
    for z in (z_H, z_L):
        torch.testing.assert_close(z.square().mean(-1), torch.ones(2, 17), atol=1e-3, rtol=0)


def test_permuting_cells_permutes_answers_without_positions():
    """Attention has no order of its own: equal position embeddings make the model equivariant."""
    torch.manual_seed(2)
    model = HRM(small(pos_encodings="learned"))
    with torch.no_grad():
        model.embed_pos.weight.zero_()
        tokens, order = torch.randint(1, 6, (2, 16)), torch.randperm(16)
        first = model.segment(*model.initial_state(2), model.embed(tokens))[2]
        second = model.segment(*model.initial_state(2), model.embed(tokens[:, order]))[2]
    torch.testing.assert_close(first[:, order], second, atol=1e-5, rtol=1e-4)


def test_wide_puzzle_embeddings_fill_several_prefix_tokens():
    config = small(puzzle_emb_ndim=40, num_puzzle_identifiers=5)
    model = HRM(config)
    torch.nn.init.normal_(model.puzzle_emb.weight)
    e = model.embed(torch.ones(2, 16, dtype=torch.long), torch.tensor([1, 4]))
    assert config.prefix_len == 2
    assert e.shape == (2, 18, 32)
    scale = 32**0.5
    torch.testing.assert_close(e[:, 0], scale * model.puzzle_emb.weight[[1, 4], :32])
    torch.testing.assert_close(e[:, 1, :8], scale * model.puzzle_emb.weight[[1, 4], 32:])
    assert not e[:, 1, 8:].any()


def test_initialisation_has_the_std_it_names():
    weight = truncated_lecun_normal_(torch.empty(400, 256))
    assert abs(weight.std().item() * 16 - 1) < 0.02
    assert weight.abs().max() <= 2 / 0.8796 / 16 + 1e-6


def test_untrained_model_does_not_halt():
    model = HRM(small())
    q = model.segment(*model.initial_state(4), model.embed(torch.ones(4, 16, dtype=torch.long)))[3]
    assert q.tolist() == [[-5.0, -5.0]] * 4
    assert not halting_head(False).says_stop(q).any()
    assert not halting_head(True).says_stop(q).any()
    assert halting_head(False).says_stop(torch.tensor([[1.0, 2.0], [2.0, 1.0]])).tolist() == [False, True]
    assert halting_head(True).says_stop(torch.tensor([[1.0, 2.0], [-2.0, -3.0]])).tolist() == [True, False]


def test_attention_as_a_cpu_trains_is_attention_as_it_answers():
    """Written out for training, fused otherwise: same results, same gradients."""
    model = HRM(small(pos_encodings="rope"))
    tokens = torch.randint(1, 6, (3, 16))

    def run(train: bool) -> list[torch.Tensor]:
        model.train(train).zero_grad()
        z_H, z_L, logits, q = model.segment(*model.initial_state(3), model.embed(tokens))
        (logits.square().mean() + q.mean()).backward()
        return [z_H, z_L, logits, q, *(p.grad.clone() for p in model.parameters())]

    for written_out, fused in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(written_out, fused, atol=1e-5, rtol=1e-4)


def test_axial_positions_see_only_how_far_apart_rows_and_columns_are():
    """Turned query times turned key depends on the two differences alone, and tells the four neighbours apart."""
    task = get_task("maze-6x7")
    config = HRMConfig(6, task.seq_len, hidden_size=32, num_heads=2, pos_encodings="axial", puzzle_emb_ndim=32)
    angles = rotary_angles(config, task.position_ids).repeat(1, 2)
    q, k = torch.randn(2, config.head_dim)
    turned = [x * angles.cos() + rotate_half(x.expand(len(angles), -1)) * angles.sin() for x in (q, k)]
    scores = (turned[0] @ turned[1].T)[1:, 1:].view(6, 7, 6, 7)
    found = {}
    for r, c, r2, c2 in np.ndindex(6, 7, 6, 7):
        found.setdefault((r2 - r, c2 - c), []).append(float(scores[r, c, r2, c2]))
    assert max(np.ptp(same) for same in found.values()) < 1e-4
    around = [np.mean(found[step]) for step in ((0, 1), (0, -1), (1, 0), (-1, 0), (0, 0))]
    assert min(abs(a - b) for i, a in enumerate(around) for b in around[:i]) > 1e-3
