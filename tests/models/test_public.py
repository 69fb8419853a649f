"""Public checkpoints as people really have them: beside other files, wrapped and renamed, and not there at all."""

import gzip
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from published import NAMED, published, sudoku_trm
from safetensors.torch import save_file

from hrm_edge.errors import InputError
from hrm_edge.models import public
from hrm_edge.models.public import find_weights, import_public
from hrm_edge.models.stored import save_pickled

MODEL = sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
ARCH = {name: MODEL.config.to_dict()[name] for name in NAMED}


@pytest.fixture
def folder(tmp_path):
    return published(tmp_path / "public", MODEL, ARCH)


def state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}


def assert_read(path) -> None:
    read, task = import_public(path)
    assert task.name == "sudoku-9x9"
    for name, tensor in MODEL.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor)


def refused(path, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        import_public(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


# -- which file ------------------------------------------------------------------------------------------


def test_the_last_step_is_taken_and_nothing_else_beside_it(folder):
    (folder / "step_7").rename(folder / "step_100")
    for other in ("step_100_all_preds.0", "step_99", "step_100.tmp", "step_200.tmp", "step_9999999_all_preds.3"):
        (folder / other).write_bytes(b"something else")
    for other in ("step_100_eval", "step_300", "step_1000_eval"):
        (folder / other).mkdir()
    assert find_weights(folder) == folder / "step_100"
    assert_read(folder)


def test_steps_are_numbers_not_text(folder):
    (folder / "step_7").rename(folder / "step_1000")
    (folder / "step_999").write_bytes(b"")
    (folder / "step_0000998").write_bytes(b"")
    assert_read(folder)


def test_two_files_of_one_step_are_both_named(folder):
    (folder / "step_7.pt").write_bytes(b"")
    refused(folder, r"holds both step_7 and step_7\.pt; give the file itself")


def test_a_folder_without_any(tmp_path):
    (tmp_path / "step_1_all_preds.0").write_bytes(b"")
    refused(tmp_path, "holds no step_N file")


# -- how it is written -----------------------------------------------------------------------------------

PREFIXES = ["", "module.", "_fsdp_wrapped_module.", "_orig_mod.module._orig_mod.", "model.module.inner.", "inner."]
PREFIXES += ["module._orig_mod.model._fsdp_wrapped_module.inner._checkpoint_wrapped_module.", "module." * 5]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_any_order_and_depth(folder, prefix):
    torch.save({prefix + name: tensor for name, tensor in state().items()}, folder / "step_7")
    assert_read(folder)


def test_wrappers_in_the_middle_of_a_name(folder):
    named = {
        name.replace("layers.0.", "layers.0._fsdp_wrapped_module._orig_mod."): t for name, t in state().items()
    }
    assert any("wrapped" in name for name in named)
    torch.save(named, folder / "step_7")
    assert_read(folder)


def test_a_weight_that_is_there_twice(folder):
    torch.save(state() | {"module.H_init": torch.zeros(16)}, folder / "step_7")
    refused(folder, "weight 'H_init' is there twice")


def optimizer() -> dict:
    return {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1.0}]}


WRAPPED = {
    "model": lambda sd: {"model": sd},
    "state_dict": lambda sd: {"state_dict": sd},
    "model_state_dict and a step": lambda sd: {"model_state_dict": sd, "step": 1},
    "an optimizer beside it": lambda sd: {
        "epoch": 3,
        "net": sd,
        "optimizer": optimizer(),
        "loss": torch.tensor(1.0),
    },
    "twice": lambda sd: {"checkpoint": {"model": sd, "args": {"lr": 1e-4}}},
    "with prefixes": lambda sd: {"module": {f"module.{name}": tensor for name, tensor in sd.items()}},
    "with numbers among the weights": lambda sd: {**sd, "step": 4, "name": "a"},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_table_within_tables(folder, how):
    torch.save(WRAPPED[how](state()), folder / "step_7")
    assert_read(folder)


def test_two_tables_of_weights_are_not_chosen_from(folder):
    torch.save({"model": state(), "ema": state()}, folder / "step_7")
    refused(folder, r"several tables of weights \('model', 'ema'\)")


def test_a_table_that_holds_itself(folder):
    knot: dict = {"a": 1}
    knot["b"] = knot
    torch.save({"x": knot, "y": knot}, folder / "step_7")
    refused(folder, "found something else")


@pytest.mark.parametrize("name", ["step_7", "step_7.safetensors"])
def test_safetensors(folder, name):
    (folder / "step_7").unlink()
    save_file({f"_orig_mod.{name}": tensor for name, tensor in state().items()}, folder / name)
    assert_read(folder)


def test_safetensors_whose_length_looks_like_something_else(folder):
    """The first bytes are the header's length: of 35 615 bytes, those that gzip begins with."""
    save_file(state(), folder / "step_7")
    content, length = (folder / "step_7").read_bytes(), int.from_bytes(b"\x1f\x8b", "little")
    end = 8 + int.from_bytes(content[:8], "little")
    (folder / "step_7").write_bytes(length.to_bytes(8, "little") + content[8:end].ljust(length) + content[end:])
    assert (folder / "step_7").read_bytes().startswith(b"\x1f\x8b")
    assert_read(folder)


def test_the_old_format_of_torch(folder):
    torch.save(state(), folder / "step_7", _use_new_zipfile_serialization=False)
    assert_read(folder)


def test_weights_of_another_network_are_named(folder):
    torch.save({"conv1.weight": torch.zeros(3)}, folder / "step_7")
    refused(folder, r"weight 'embed_tokens\.weight' is missing; is this an HRM or TRM checkpoint")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    broken = state()
    broken["q_head.weight"][0, 0] = value
    torch.save(broken, folder / "step_7")
    refused(folder, r"weight 'q_head\.weight' is not finite")


# -- what is no checkpoint -------------------------------------------------------------------------------


def zipped(path, entries, **how):
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 109000000\n"
FOREIGN = [
    ("a git-lfs pointer", lambda p: p.write_bytes(LFS)),
    ("a web page", lambda p: p.write_bytes(b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>")),
    ("a web page", lambda p: p.write_bytes(b"\xef\xbb\xbf  \n<HTML lang=en>")),
    ("empty; fetch", lambda p: p.write_bytes(b"")),
    ("a zip archive of something else \\(photo.jpg", lambda p: zipped(p, {"photo.jpg": b"x"})),
    ("a zip archive of something else \\(\\)", lambda p: zipped(p, {})),
    ("compressed zip archive", lambda p: zipped(p, {"a/data.pkl": b"0" * 10**6}, compression=zipfile.ZIP_DEFLATED)),
    ("beginning of a zip archive, cut off", lambda p: p.write_bytes(p.read_bytes()[:-900])),
    ("compressed with gzip", lambda p: p.write_bytes(gzip.compress(b"x"))),
    ("is text; give", lambda p: p.write_text(json.dumps({"error": "Repository not found"}))),
    ("is text; give", lambda p: p.write_text("Entry not found\n" * 200)),
]


@pytest.mark.parametrize(("said", "damage"), FOREIGN)
def test_a_file_is_told_for_what_it_is(folder, said, damage):
    damage(folder / "step_7")
    refused(folder, f"step_7: is .*{said}" if not said.startswith("is ") else said)


def test_what_a_checkpoint_of_ours_is_instead(tmp_path):
    from hrm_edge.models import load_checkpoint, save_checkpoint

    path = save_checkpoint(tmp_path / "m", MODEL, "sudoku-9x9", "")
    (path / "model.safetensors").write_bytes(LFS)
    with pytest.raises(InputError, match=r"model\.safetensors: is a git-lfs pointer"):
        load_checkpoint(path)


@pytest.mark.parametrize("shape", [(10**7, 10**6), ()])
def test_a_shape_that_no_memory_has_is_compared_not_made(folder, monkeypatch, shape):
    """A pickle can ask for any shape over a few bytes."""
    greedy = state()
    greedy["embed_tokens.weight"] = torch.zeros(1).expand(shape) if shape else torch.tensor(1.0)
    torch.save(greedy, folder / "step_7")
    monkeypatch.setattr(public, "build_model", lambda *_: pytest.fail("memory was taken"))
    refused(folder, "vocab_size is 10000000; it must be at most" if shape else "must be a table")


# -- its config ------------------------------------------------------------------------------------------


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join([*lines, "arch: {hidden_size: 16}", "data_paths: *a11"])


def merged_bomb() -> str:
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    return "\n".join(lines)


CONFIGS = {
    "aliases": (bomb(), r"repeats a part of itself as \*a0; write it out"),
    "merge keys": (merged_bomb(), r"repeats a part of itself as \*a0"),
    "itself": ("&a [*a]", r"repeats a part of itself as \*a"),
    "lists": ("[" * 3000, "nested more than 32 deep"),
    "tables": ("{a: " * 3000, "nested more than 32 deep"),
    "blocks": ("\n".join(" " * i + "a:" for i in range(300)), "nested more than 32 deep"),
    "many bytes": ("a: " + "x" * 200_000, "larger than 131072 bytes"),
    "a number of 5000 digits": ("arch: {hidden_size: " + "9" * 5000 + "}", "cannot be read as YAML"),
    "a date that is none": ("arch: {a: 2001-99-99}", "cannot be read as YAML"),
    "code": ("arch: !!python/object/apply:os.system [ls]", "cannot be read as YAML"),
    "a list": ("[1, 2]", "no `arch` table"),
    "NUL": ("arch: \0", "cannot be read as YAML"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_asks_for_too_much_or_is_none(folder, case):
    text, said = CONFIGS[case]
    (folder / "all_config.yaml").write_text(text)
    refused(folder, said)


@pytest.mark.parametrize(
    ("field", "value"),
    [("L_layers", 20_000), ("hidden_size", 262_144), ("halt_max_steps", 10**12), ("L_cycles", 10**9)],
)
def test_a_config_that_asks_for_a_network_that_no_machine_has(folder, monkeypatch, field, value):
    config = yaml.safe_load((folder / "all_config.yaml").read_text())
    config["arch"][field] = value
    (folder / "all_config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(public, "build_model", lambda *_: pytest.fail("memory was taken"))
    refused(folder, f"{field} is {value}; it must be at most")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_weights_that_a_full_disk_refuses_are_told_in_a_line():
    with pytest.raises(InputError, match="cannot be written; is the disk full") as caught:
        save_pickled(state(), Path("/dev/full"))
    assert "\n" not in str(caught.value)
