"""Checkpoint folders: what is saved is what is read; what is damaged is refused; a kill leaves the old one."""

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import time

import pytest
import torch
from forked import Forked, context, save_for_ever
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hrm_edge.errors import InputError
from hrm_edge.models import (
    HRMConfig,
    TrainedScales,
    build_model,
    load_checkpoint,
    quantization_of,
    quantized_layers,
    save_checkpoint,
)
from hrm_edge.models import checkpoint as checkpoint_module
from hrm_edge.models.public import import_public
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
CONFIG = HRMConfig(
    *(TASK.vocab_size, TASK.seq_len),
    hidden_size=32,
    num_heads=2,
    H_layers=1,
    L_layers=1,
    puzzle_emb_ndim=32,
    pos_encodings="grid",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(CONFIG, TASK)
    return save_checkpoint(tmp_path_factory.mktemp("ck") / "m", model, TASK.name, "# card", {"a": 1}), model


def test_reads_back_what_was_saved(saved):
    path, model = saved
    read = load_checkpoint(path)
    assert (read.config, read.task.name, read.card, read.metadata) == (CONFIG, TASK.name, "# card", {"a": 1})
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, read.model.state_dict()[name])
    assert read.content_hash == load_checkpoint(path).content_hash


def test_hash_follows_weights_and_architecture(saved, tmp_path):
    path, model = saved
    before = load_checkpoint(path).content_hash
    save_checkpoint(tmp_path / "renamed", model, TASK.name, "# another card", {})
    assert load_checkpoint(tmp_path / "renamed").content_hash == before
    other = build_model(CONFIG, TASK)
    save_checkpoint(tmp_path / "other", other, TASK.name, "# card", {"a": 1})
    assert load_checkpoint(tmp_path / "other").content_hash != before


def test_float16_is_half_the_size_and_widened(saved, tmp_path):
    path, model = saved
    half = save_checkpoint(tmp_path / "half", model, TASK.name, "", dtype=torch.float16)
    small, large = ((p / "model.safetensors").stat().st_size for p in (half, path))
    assert small < 0.6 * large
    for name, tensor in load_checkpoint(half).model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].half().float())


def change_config(path, **values):
    config = json.loads((path / "config.json").read_text())
    for key, value in values.items():
        table, _, field = key.partition("__")
        if field:
            config[table][field] = value
        else:
            config[table] = value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: shutil.rmtree(p), "no such checkpoint"),
        (lambda p: (p / "config.json").unlink(), "config.json is missing"),
        (lambda p: (p / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda p: (p / "model.safetensors").write_bytes(pickle.dumps({"a": 1})), "not a safetensors file"),
        (lambda p: os.truncate(p / "model.safetensors", 999), "not a safetensors file, or damaged"),
        (lambda p: change_config(p, format_version=99), "newer than this version"),
        (lambda p: change_config(p, extra=1), "unknown field 'extra'"),
        (lambda p: change_config(p, arch__banana=1), "unknown field 'banana'"),
        (lambda p: change_config(p, arch__hidden_size=64), "has shape"),
        (lambda p: change_config(p, arch__H_layers=2), "is missing"),
        (lambda p: change_config(p, arch__vocab_size=9), "vocab_size is 9, but task sudoku-4x4 has"),
        (lambda p: change_config(p, task="chess"), "chess"),
    ],
)
def test_damage_is_one_clear_line(saved, tmp_path, damage, said):
    path = tmp_path / "m"
    shutil.copytree(saved[0], path)
    damage(path)
    with pytest.raises(InputError, match=said) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def header_changed(change):
    """A damage of the weights' header: the JSON that names types, shapes and places."""

    def damage(path):
        content = (path / "model.safetensors").read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        change(header)
        text = json.dumps(header).encode()
        (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

    return damage


def header_length(length):
    def damage(path):
        with (path / "model.safetensors").open("r+b") as file:
            file.write(length.to_bytes(8, "little"))

    return damage


def nested(text, count=100_000):
    return lambda path: (path / "config.json").write_text(text * count)


GREEDY = [
    (lambda p: change_config(p, arch__L_layers=20_000), "L_layers is 20000; it must be at most"),
    (lambda p: change_config(p, arch__hidden_size=262_144), "hidden_size is 262144; it must be at most"),
    (lambda p: change_config(p, arch__hidden_size=8192, arch__L_layers=8), "weights; at most"),
    (lambda p: change_config(p, arch__hidden_size=4096), "has shape"),
    (lambda p: change_config(p, arch__H_cycles=10**9), "H_cycles is 1000000000; it must be at most"),
    (lambda p: change_config(p, arch__H_cycles=200, arch__L_cycles=200), "at most 8192 blocks, not 40200"),
    (
        lambda p: change_config(p, arch__halt_max_steps=10**12),
        "halt_max_steps is 1000000000000; it must be at most",
    ),
    (lambda p: change_config(p, arch__vocab_size=10**12), "vocab_size is 1000000000000; it must be at most"),
    (lambda p: change_config(p, arch__seq_len=10**12), "seq_len is 1000000000000; it must be at most"),
    (lambda p: change_config(p, arch__num_puzzle_identifiers=10**12), "num_puzzle_identifiers is 1000000000000"),
    (lambda p: change_config(p, arch__num_puzzle_identifiers=10**7, arch__puzzle_emb_ndim=512), "weights; at most"),
    (lambda p: change_config(p, arch__puzzle_emb_len=10**9), "puzzle_emb_len is 1000000000; it must be at most"),
    (lambda p: change_config(p, arch__puzzle_emb_ndim=10**9), "puzzle_emb_ndim is 1000000000; it must be at most"),
    (lambda p: change_config(p, arch__expansion=1e12), "expansion is 1000000000000.0; it must be at most"),
    (lambda p: change_config(p, arch__expansion=10**400), "expansion is 1000"),
    (lambda p: change_config(p, arch__rope_theta=10**400), "rope_theta is 1000"),
    (lambda p: change_config(p, arch__conv_kernel=10**9 + 1), "conv_kernel is 1000000001; it must be at most"),
    (lambda p: os.truncate(p / "config.json", 2**34), "has 17179869184 bytes, and a config at most"),
    (nested("["), "cannot be read as JSON"),
    (nested('{"a":'), "cannot be read as JSON"),
    (header_length(2**63), "its header is 9223372036854775808 bytes long"),
    (header_length(10**9), "its header is 1000000000 bytes long"),
    (header_length(2**23), "not a safetensors file, or damaged"),
    (header_changed(lambda h: h["q_head.bias"].update(shape=[2**40, 2**40])), "not a safetensors file, or damaged"),
    (header_changed(lambda h: h["q_head.bias"].update(shape=[2**33])), "not a safetensors file, or damaged"),
    (header_changed(lambda h: h["q_head.bias"].update(dtype="Q3")), "not a safetensors file, or damaged"),
    (header_changed(lambda h: h["q_head.bias"].update(dtype="I32")), "is I32; weights are floats"),
    (
        header_changed(lambda h: h["q_head.bias"].update(data_offsets=h["H_init"]["data_offsets"])),
        "not a safetensors file, or damaged",
    ),
]


@pytest.mark.parametrize(("damage", "said"), GREEDY)
def test_what_asks_for_too_much_is_refused_before_anything_is_made(saved, tmp_path, monkeypatch, damage, said):
    path = tmp_path / "m"
    shutil.copytree(saved[0], path)
    damage(path)
    real = checkpoint_module._network

    def sketched(*given):
        assert torch.empty(1).is_meta, "memory was taken"
        return real(*given)

    monkeypatch.setattr(checkpoint_module, "_network", sketched)
    monkeypatch.setattr(checkpoint_module, "read_tensors", lambda path: pytest.fail("the weights were read"))
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_read(saved, tmp_path, value):
    path = tmp_path / "m"
    shutil.copytree(saved[0], path)
    tensors = load_file(path / "model.safetensors")
    tensors["lm_head.weight"][1, 2] = value
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: weight 'lm_head\.weight' is not finite"):
        load_checkpoint(path)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    model = build_model(CONFIG, TASK)
    model.q_head.bias.data[0] = float("nan")
    with pytest.raises(InputError, match=r"q_head\.bias"):
        save_checkpoint(tmp_path / "bad", model, TASK.name, "")
    assert not list(tmp_path.iterdir())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_never_escape_as_other_errors(saved, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "m"
    shutil.copytree(saved[0], path)
    file = path / data.draw(st.sampled_from(["config.json", "model.safetensors"]))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(len(content) - 1, 2000)))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        load_checkpoint(path)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.fixture
def tuned(saved, tmp_path):
    """A checkpoint with the scales of quantization-aware training, and those scales."""
    scales = {layer: 0.25 * (i + 1) for i, layer in enumerate(quantized_layers(saved[1]))}
    table = {"bits": 8, "activations": scales, "weights": "per-channel minmax", "from": "ab", "learned": True}
    given = {"quantization": table}
    path = save_checkpoint(tmp_path / "tuned", saved[1], TASK.name, "", given)
    assert "weights_sha256" not in table  # the caller's own is left alone
    return path, scales


def test_trained_scales_are_read_back(saved, tuned):
    path, scales = tuned
    checkpoint = load_checkpoint(path)
    assert quantization_of(checkpoint) == TrainedScales(8, scales, True, "ab")
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    assert checkpoint.metadata["quantization"]["weights_sha256"] == digest
    assert quantization_of(load_checkpoint(saved[0])) is None


def test_scales_are_refused_for_other_weights(tuned):
    path, _ = tuned
    checkpoint = load_checkpoint(path)
    other = save_checkpoint(path.parent / "other", build_model(CONFIG, TASK), TASK.name, "")
    shutil.copy(other / "model.safetensors", path / "model.safetensors")
    with pytest.raises(InputError, match="weights were changed after quantization-aware training") as caught:
        quantization_of(load_checkpoint(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="were changed"):
        quantization_of(checkpoint)  # what was loaded before is no longer what lies there


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("bits", 4, "bits is 4"),
        ("bits", "8", "cannot be used"),
        ("activations", {}, "does not fit the network"),
        ("activations", 3, "cannot be used"),
        ("activations", {"H_level.layers.0.mlp.down_proj": -1.0}, "H_level.layers.0.mlp.down_proj is -1.0"),
        ("weights", "per-tensor", "must be 'per-channel minmax'"),
        ("weights_sha256", None, "weights were changed"),
        ("learned", "yes", "cannot be used"),
    ],
)
def test_damaged_scales_are_one_clear_line(tuned, field, value, said):
    path, _ = tuned
    config = json.loads((path / "config.json").read_text())
    config["metadata"]["quantization"][field] = value
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said) as caught:
        quantization_of(load_checkpoint(path))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_write_leaves_a_whole_checkpoint(saved, tmp_path):
    path = tmp_path / "m"
    shutil.copytree(saved[0], path)
    for attempt in range(5):
        ready = context.Event()
        process = Forked(tmp_path / "said", save_for_ever, path, ready)
        assert ready.wait(60)
        time.sleep(0.05 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        read = load_checkpoint(path)
        # On a busy machine it may have been killed before it wrote its first.
        assert read.card == str(read.metadata.get("i", "# card"))


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil-was-here",))


@pytest.mark.parametrize("content", ["code", "list", "text", "empty"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all_config.yaml").write_text("arch:\n  hidden_size: 64\n")
    file = tmp_path / "step_1"
    if content == "code":
        file.write_bytes(pickle.dumps({"w": Evil()}))
    elif content == "list":
        torch.save([1, 2], file)
    else:
        file.write_bytes(b"hello" if content == "text" else b"")
    with pytest.raises(InputError) as caught:
        import_public(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil-was-here").exists()


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_never_of_two(saved, tmp_path, monkeypatch):
    other = build_model(CONFIG, TASK)
    place = save_checkpoint(tmp_path / "m", saved[1], TASK, "old", {"of": "old"})
    real = checkpoint_module.stored_shapes

    def replaced(*arguments, **options):
        """When the config has been read, and the weights have not."""
        monkeypatch.setattr(checkpoint_module, "stored_shapes", real)
        save_checkpoint(place, other, TASK, "new", {"of": "new"})
        return real(*arguments, **options)

    monkeypatch.setattr(checkpoint_module, "stored_shapes", replaced)
    found = load_checkpoint(place)
    assert (found.card, found.metadata) == ("new", {"of": "new"})
    assert all(torch.equal(w, other.state_dict()[name]) for name, w in found.model.state_dict().items())
