"""Optimizers and schedules against single steps worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.errors import InputError
from hrm_edge.models import HRM, HRMConfig
from hrm_edge.trainer import TrainConfig, load_recipe
from hrm_edge.trainer.optim import Average, SignSGD, lr_factor, make_optimizers

ARCH = HRMConfig(vocab_size=6, seq_len=16, hidden_size=32, num_heads=2, H_layers=1, L_layers=1, puzzle_emb_ndim=32)


def test_adam_atan2_is_scale_free_and_follows_its_formula():
    steps = []
    for scale in (1.0, 1e-12):
        torch.manual_seed(0)
        model = HRM(ARCH)
        config = TrainConfig(steps=1, optimizer="adam_atan2", lr=0.1, weight_decay=0.0)
        optimizer = make_optimizers(model, config)[0]
        weight = model.lm_head.weight
        before = weight.detach().clone()
        first, second = torch.full_like(weight, 2.0 * scale), torch.full_like(weight, -1.0 * scale)
        for gradient in (first, second):
            weight.grad = gradient
            optimizer.step()
        steps.append(before - weight.detach())
    m = (0.1 * 2 * 0.9 + 0.1 * -1) / (1 - 0.9**2)
    v = (0.05 * 4 * 0.95 + 0.05 * 1) / (1 - 0.95**2)
    expected = 0.1 * (math.atan2(1, 1) + math.atan2(m, math.sqrt(v)))
    torch.testing.assert_close(steps[0], torch.full_like(steps[0], expected), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(steps[0], steps[1], atol=1e-6, rtol=1e-4)


def test_sign_sgd_moves_and_decays_only_the_rows_in_the_batch():
    table = torch.nn.Parameter(torch.ones(3, 2))
    table.grad = torch.tensor([[0.3, -7.0], [0.0, 0.0], [0.0, 2.0]])
    SignSGD([table], lr=0.1, weight_decay=0.5).step()
    expected = [[0.95 - 0.1, 0.95 + 0.1], [1.0, 1.0], [0.95, 0.95 - 0.1]]
    torch.testing.assert_close(table.detach(), torch.tensor(expected))


def test_puzzle_embeddings_have_an_optimizer_of_their_own():
    model = HRM(ARCH)
    main, puzzles = make_optimizers(model, TrainConfig(steps=1))
    assert [p is model.puzzle_emb.weight for p in puzzles.param_groups[0]["params"]] == [True]
    counted = len(main.param_groups[0]["params"]) + 1
    assert counted == len(list(model.parameters()))


@given(st.sampled_from(["constant", "linear", "cosine"]), st.integers(1, 500), st.floats(0, 1))
def test_schedules_warm_up_then_end_at_their_minimum(schedule, warmup, low):
    config = TrainConfig(steps=1000, schedule=schedule, warmup_steps=warmup, lr_min_ratio=low)
    factors = [lr_factor(config, step, step / 1000) for step in range(1000)]
    assert factors[0] <= 1 / warmup + 1e-9
    assert all(0 <= f <= 1 + 1e-9 for f in factors)
    after = np.diff(factors[warmup:])
    assert (after <= 1e-9).all()
    end = lr_factor(config, 10_000, 1.0)
    assert end == pytest.approx(1.0 if schedule == "constant" else low)


def test_average_converges_to_a_constant_weight_and_smooths_a_changing_one():
    model = torch.nn.Linear(1, 1)
    average = Average(model, 0.9)
    values = []
    for step in range(200):
        model.weight.data.fill_(1.0 if step < 100 else 3.0)
        average.update(model)
        values.append(average.weights["weight"].item())
    assert values[99] == pytest.approx(1.0, abs=1e-4)
    assert 1.0 < values[101] < 2.0
    assert values[-1] == pytest.approx(3.0, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train.lr=2"], "lr is 2; it must be above 0 and below 1"),
        (["train.lrr=0.1"], "unknown field 'lrr'"),
        (["arch.bananas=1"], "unknown field 'bananas'"),
        (["model.lr=1"], "unknown section 'model'"),
        (["nonsense"], "expected section.field=value"),
        (["train.gradient=two_step"], "one of one_step, last_cycle, full"),
        (["train.batch_size=1.5"], "of type int"),
        ([], "nothing says when to stop"),
    ],
)
def test_recipes_refuse_what_they_do_not_know(settings, said):
    with pytest.raises(InputError, match=said):
        load_recipe("sudoku", "small", None, settings)


GREEDY = [
    ("arch.L_layers=20000", "L_layers is 20000; it must be at most"),
    ("arch.hidden_size=262144", "hidden_size is 262144; it must be at most"),
    ("arch.halt_max_steps=1000000000000", "halt_max_steps is 1000000000000; it must be at most"),
    ("train.batch_size=1000000000000", "batch_size is 1000000000000; it must be at most"),
    ("train.rollout=1000000000000", "rollout is 1000000000000; it must be at most"),
    ("train.weight_decay=1" + "0" * 400, "weight_decay is 1000"),
    ("train.seed=1" + "0" * 400, "seed is 1000"),
    ("train.lr=" + "[" * 3000, r"train field lr is '\[\[\["),
    ("train.lr=1" + "0" * 5000, "train field lr is '1000"),
]


@pytest.mark.parametrize(("setting", "said"), GREEDY)
def test_recipes_that_ask_for_too_much(setting, said):
    with pytest.raises(InputError, match=said) as caught:
        load_recipe("sudoku", "small", None, [setting])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 3000, "a" + ".a" * 3000 + " = 1", "a = 1" + "0" * 5000, "a = \x00"]
)
def test_a_recipe_file_that_no_parser_ends(tmp_path, text):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.toml: (cannot be read as TOML|unknown section)") as caught:
        load_recipe("sudoku", "small", tmp_path / "recipe.toml", None)
    assert "\n" not in str(caught.value)


def test_recipe_file_and_settings_win_over_the_preset(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text("[arch]\nhidden_size = 64\nnum_heads = 2\n[train]\nlr = 1e-3\nsteps = 5\n")
    arch, recipe = load_recipe("sudoku", "small", file, ["train.steps=7", "train.schedule=cosine"])
    assert (arch.hidden_size, recipe.lr, recipe.steps, recipe.schedule) == (64, 1e-3, 7, "cosine")
    assert arch.pos_encodings == "grid"


def test_muon_takes_the_levels_matrices_and_adamw_the_rest():
    model = HRM(ARCH)
    config = TrainConfig(steps=1, optimizer="muon", lr=0.01, weight_decay=0.0)
    adamw, muon, puzzles = make_optimizers(model, config)
    assert isinstance(adamw, torch.optim.AdamW)
    names = {id(p): name for name, p in model.named_parameters()}
    taken = [{names[id(p)] for group in o.param_groups for p in group["params"]} for o in (adamw, muon, puzzles)]
    assert sorted(name for part in taken for name in part) == sorted(names.values())
    assert all("_level." in name for name in taken[1])
    assert {"lm_head.weight", "embed_tokens.weight", "q_head.bias"} <= taken[0]
    # Its update has orthogonal rows or columns, and about the size of one of AdamW's (0.2 on average).
    weight = model.H_level.layers[0].self_attn.o_proj.weight
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    muon.step()
    update = (weight.detach() - before) / config.lr
    assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)
    singular = torch.linalg.svdvals(update)
    assert float(singular.max() / singular.min()) < 3
