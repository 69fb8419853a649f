"""TRM and the two plain transformers against what the papers say of them, written out by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from published import LATER, NAMED, published, sudoku_trm

from hrm_edge.errors import InputError
from hrm_edge.models import HRMConfig, build_model, load_checkpoint, quantized_layers, save_checkpoint
from hrm_edge.models.public import import_public
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
KINDS = {
    "hrm": {"H_layers": 1, "L_layers": 2, "mlp_t": True},
    "trm": {"H_layers": 0, "L_layers": 2, "H_cycles": 3, "L_cycles": 2, "puzzle_emb_len": 3},
    "trm mlp_t": {"H_layers": 0, "L_layers": 1, "mlp_t": True, "pos_encodings": "none", "no_ACT_continue": True},
    "hrm conv": {"H_layers": 1, "L_layers": 2, "conv_kernel": 3},
    "hrm units": {"H_layers": 1, "L_layers": 1, "conv_kernel": 3, "unit_means": True},
    "recurrent": {"H_layers": 1, "L_layers": 1, "H_cycles": 2, "L_cycles": 3},
    "direct": {"H_layers": 1, "L_layers": 2, "H_cycles": 1, "L_cycles": 1, "halt_max_steps": 1},
}


def network(name: str, **changes):
    torch.manual_seed(3)
    settings = {"hidden_size": 32, "num_heads": 2, "puzzle_emb_ndim": 32, "kind": name.split()[0]}
    config = HRMConfig(vocab_size=6, seq_len=16, **{**settings, **KINDS[name], **changes})
    model = build_model(config, TASK)
    torch.nn.init.normal_(model.q_head.weight, std=0.3)
    if config.puzzle_emb_ndim:
        torch.nn.init.normal_(model.puzzle_emb.weight, std=0.3)
    for name, parameter in model.named_parameters():
        if name.endswith("grid.gain"):
            torch.nn.init.normal_(parameter)
    return model


def question(rows: int = 2) -> torch.Tensor:
    return torch.from_numpy(TASK.generate(rows, np.random.default_rng(5))[0]).long()


def thought(model, segments: int = 1, **how):
    """(z_H, z_L, logits, q) after some segments."""
    e, state = model.embed(question()), model.initial_state(2)
    for _ in range(segments):
        *state, logits, q = model.segment(*state, e, **how)
    return *state, logits, q


# -- by hand, in numpy and float64 ---------------------------------------------------------------------


def norm(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def swiglu(x, weights, name):
    gate, up = np.split(x @ weights[f"{name}.gate_up_proj.weight"].T, 2, axis=-1)
    return (gate / (1 + np.exp(-gate)) * up) @ weights[f"{name}.down_proj.weight"].T


def attention(x, weights, name, heads=2):
    B, S, D = x.shape
    parts = np.split(x @ weights[f"{name}.qkv_proj.weight"].T, 3, axis=-1)
    q, k, v = (part.reshape(B, S, heads, -1).transpose(0, 2, 1, 3) for part in parts)
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(D // heads))
    y = (scores / scores.sum(-1, keepdims=True)) @ v
    return y.transpose(0, 2, 1, 3).reshape(B, S, D) @ weights[f"{name}.o_proj.weight"].T


def grid_mixer(x, weights, name, prefix, side=4):
    """Cell by cell."""
    weight = weights[f"{name}.weight"]
    D, _, K, _ = weight.shape
    padded = np.zeros((len(x), side + K - 1, side + K - 1, D))
    padded[:, K // 2 : K // 2 + side, K // 2 : K // 2 + side] = x[:, prefix:].reshape(-1, side, side, D)
    y = np.empty_like(x)
    y[:, :prefix] = x[:, prefix:].mean(axis=1, keepdims=True)
    for row in range(side):
        for column in range(side):
            near = padded[:, row : row + K, column : column + K]
            y[:, prefix + row * side + column] = (near * weight[:, 0].transpose(1, 2, 0)).sum(axis=(1, 2))
    if f"{name}.unit_gains" in weights:
        row, column = np.divmod(np.arange(side * side), side)
        for gain, unit in zip(
            weights[f"{name}.unit_gains"], (row, column, row // 2 * 2 + column // 2), strict=True
        ):
            for cell in range(side * side):
                y[:, prefix + cell] += gain * x[:, prefix:][:, unit == unit[cell]].mean(axis=1)
    y[:, prefix:] += weights[f"{name}.gain"] * x[:, :prefix].mean(axis=1, keepdims=True)
    return y


def block(h, weights, name, prefix):
    if f"{name}.mlp_t.down_proj.weight" in weights:
        turned = h.swapaxes(1, 2)
        h = norm(turned + swiglu(turned, weights, f"{name}.mlp_t")).swapaxes(1, 2)
    elif f"{name}.grid.weight" in weights:
        h = norm(h + grid_mixer(h, weights, f"{name}.grid", prefix))
    else:
        h = norm(h + attention(h, weights, f"{name}.self_attn"))
    return norm(h + swiglu(h, weights, f"{name}.mlp"))


def by_hand(model, z_H, z_L):
    """The segment that follows a state, for networks without rotary positions."""
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    config = model.config
    prefix = np.zeros(config.prefix_len * config.hidden_size)
    prefix[: config.puzzle_emb_ndim] = weights["puzzle_emb.weight"][0]
    prefix = np.broadcast_to(prefix.reshape(1, config.prefix_len, -1), (2, config.prefix_len, config.hidden_size))
    e = np.sqrt(config.hidden_size) * np.concatenate((prefix, weights["embed_tokens.weight"][question()]), axis=1)

    def level(h):
        for i in range(len(model.L_level.layers)):
            h = block(h, weights, f"L_level.layers.{i}", config.prefix_len)
        return h

    read = None
    if config.kind == "direct":
        read = level(z_H + z_L + e)
    elif config.kind == "recurrent":
        for _ in range(config.H_cycles * config.L_cycles):
            z_H = level(z_H + e)
    else:
        for _ in range(config.H_cycles):
            for _ in range(config.L_cycles):
                z_L = level(z_L + z_H + e)
            z_H = level(z_H + z_L)
    read = z_H if read is None else read
    q = read[:, 0] @ weights["q_head.weight"].T + weights["q_head.bias"]
    return z_H, z_L, (read @ weights["lm_head.weight"].T)[:, config.prefix_len :], q


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mlp_t": True, "puzzle_emb_len": 2},
        {"puzzle_emb_ndim": 40},
        {"conv_kernel": 5, "puzzle_emb_len": 2},
        {"conv_kernel": 1, "unit_means": True},
    ],
)
@pytest.mark.parametrize("name", ["trm", "recurrent", "direct"])
def test_segments_are_what_the_definition_gives(name, changes):
    """Each from the state before it: with random weights, mlp_t makes differences grow tenfold a segment."""
    model = network(name, **{"pos_encodings": "none", **changes}).requires_grad_(False)
    e, state = model.embed(question()), model.initial_state(2)
    for _ in range(2):
        outputs = model.segment(*state, e)
        for mine, theirs in zip(outputs, by_hand(model, *(z.double().numpy() for z in state)), strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-4)
        state = outputs[:2]


# -- what each promises --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(KINDS))
def test_gradient_modes_compute_the_same_values(name):
    model = network(name)
    outputs, gradients = [], []
    for mode in ("one_step", "last_cycle", "full"):
        model.zero_grad()
        logits = thought(model, gradient=mode)[2]
        logits.square().sum().backward()
        outputs.append(logits.detach())
        gradients.append(model.L_level.layers[0].mlp.down_proj.weight.grad.clone())
    torch.testing.assert_close(outputs[0], outputs[2])
    torch.testing.assert_close(outputs[1], outputs[2])
    steps, cycles = model.config.H_cycles * model.config.L_cycles, model.config.H_cycles
    assert torch.allclose(gradients[0], gradients[2]) == (steps == 1)
    assert torch.allclose(gradients[1], gradients[2]) == (cycles == 1)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_checkpoint_of_each_is_read_back(name, tmp_path):
    model = network(name).eval()
    checkpoint = load_checkpoint(save_checkpoint(tmp_path / "m", model, TASK.name, ""))
    assert checkpoint.config == model.config
    assert type(checkpoint.model) is type(model)
    for mine, theirs in zip(thought(checkpoint.model), thought(model), strict=True):
        assert torch.equal(mine, theirs)
    parameters = [name for name, _ in model.named_parameters() if "_proj" in name]
    assert sorted(quantized_layers(model)) == sorted(name.removesuffix(".weight") for name in parameters)


def test_direct_answers_in_one_pass():
    model = network("direct").requires_grad_(False)
    assert torch.equal(thought(model, 1)[2], thought(model, 3)[2])


def test_the_plain_transformers_are_of_the_hrms_size():
    def size(kind, **changes):
        with torch.device("meta"):
            config = HRMConfig.paper(kind=kind, **changes)
            return sum(p.numel() for p in build_model(config, get_task("sudoku-9x9")).parameters())

    assert size("hrm") == size("recurrent") == size("direct", H_cycles=1, L_cycles=1, halt_max_steps=1)
    # As TRM is published for Sudoku: "5M" with the mlp and "7M" with attention, embeddings aside.
    published = {"H_layers": 0, "L_layers": 2, "H_cycles": 3, "L_cycles": 6, "puzzle_emb_len": 16}
    assert 6.5e6 < size("trm", **published) < 7e6
    assert 4.5e6 < size("trm", mlp_t=True, pos_encodings="none", **published) < 5.5e6


# -- public checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"mlp_t": True, "pos_encodings": "none", "puzzle_emb_len": 16, "no_ACT_continue": True},
        {"mlp_t": True, "pos_encodings": "rope", "puzzle_emb_ndim": 0, "puzzle_emb_len": 0},
        {"pos_encodings": "learned", "puzzle_emb_ndim": 20, "puzzle_emb_len": 0, "num_puzzle_identifiers": 3},
        {"puzzle_emb_len": 5, "no_ACT_continue": False, "H_cycles": 3},
    ],
)
def test_public_trm_checkpoints_of_any_configuration_are_imported(tmp_path, changes):
    model = sudoku_trm(**changes)
    values = model.config.to_dict()
    folder = published(tmp_path / "public", model, {name: values[name] for name in (*NAMED, *LATER)})
    imported, task = import_public(folder)
    assert task.name == "sudoku-9x9"
    assert imported.config == dataclasses.replace(model.config)
    for name, tensor in model.state_dict().items():
        assert torch.equal(imported.state_dict()[name], tensor)


def test_what_a_trm_config_leaves_out_is_what_the_public_code_takes(tmp_path):
    model = sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
    arch = {name: model.config.to_dict()[name] for name in NAMED}
    folder = published(tmp_path / "public", model, {**arch, "H_layers": 4})  # which it ignores
    assert import_public(folder)[0].config == model.config


@pytest.mark.parametrize("name", ["recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1", "gpt@GPT"])
def test_a_variant_is_refused_by_its_name(tmp_path, name):
    folder = published(tmp_path / "public", sudoku_trm(), {"hidden_size": 16}, name=name)
    with pytest.raises(InputError, match=name) as caught:
        import_public(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_sequence_length_are_refused(tmp_path):
    model = sudoku_trm(mlp_t=True, puzzle_emb_len=16)
    arch = {name: model.config.to_dict()[name] for name in (*NAMED, *LATER)}
    folder = published(tmp_path / "public", model, {**arch, "puzzle_emb_len": 12})
    with pytest.raises(InputError, match=r"mlp_t.*has shape"):
        import_public(folder)
