"""Files of weights from all sorts of trainers: the right one is taken, the right table in it, and no code run."""

import argparse
import collections
import os
import pathlib

import numpy as np
import pytest
import torch
from published import NAMED, published, sudoku_trm
from safetensors.torch import save_file

from hrm_edge.errors import InputError
from hrm_edge.models import save_checkpoint
from hrm_edge.models.public import import_public
from hrm_edge.models.weights import find_weights, read_weights

MODEL = sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
ARCH = {name: MODEL.config.to_dict()[name] for name in NAMED}
STATE = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
MOVED = {name: tensor + 1 for name, tensor in STATE.items()}
PARAMETERS = {name: MOVED[name] for name in STATE if name not in ("H_init", "L_init", "puzzle_emb.weight")}


def under(prefix: str, tensors: dict) -> dict:
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.fixture
def folder(tmp_path):
    return published(tmp_path / "public", MODEL, ARCH)


def imported(folder, **how) -> tuple[dict[str, torch.Tensor], list[str]]:
    said: list[str] = []
    model, _ = import_public(folder, **how, say=said.append)
    return model.state_dict(), said


def equal(found: dict[str, torch.Tensor], *tables: dict[str, torch.Tensor]) -> bool:
    """Each weight is that of the first table that has it."""
    return all(torch.equal(tensor, next(t[name] for t in tables if name in t)) for name, tensor in found.items())


def refused(path, said: str, **how) -> None:
    with pytest.raises(InputError, match=said) as caught:
        import_public(path, **how)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


# -- which file ------------------------------------------------------------------------------------------

NAMES = ["step_100", "step_100.pt", "step_100.pth", "step_100.ckpt", "step_100.bin", "step_100.safetensors"]
NAMES += ["epoch=3-step=100.ckpt", "model_step_100.pt", "trm-step-100.pth", "checkpoint", "last.ckpt", "best.pth"]
NAMES += ["pytorch_model.bin", "model.safetensors"]
OTHERS = [
    "step_100_all_preds.0",
    "step_200.tmp",
    "step_300_all_preds.12",
    ".step_400.pt",
    "._step_500",
    "notes.txt",
]
OTHERS += [
    "optimizer.pt",
    "step_600_optimizer.pt",
    "rng_state_0.pth",
    "scheduler.pt",
    "training_args.bin",
    "trm.py",
]
OTHERS += ["step_700.part", "optimizer_step_800.pt", "tmp_step_900.pt"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_weights_is_told_from_what_stands_beside_it(folder, name):
    (folder / "step_7").rename(folder / name)
    for other in OTHERS:
        (folder / other).write_bytes(b"something else")
    for other in ("step_1000", "step_100_eval", "best.ckpt"):
        (folder / other).mkdir()
    assert find_weights(folder) == folder / name
    found, said = imported(folder)
    assert equal(found, STATE)
    assert said[0] == f"read {folder / name}"
    assert said[1].startswith("  not taken: .step_400.pt, best.ckpt/, notes.txt, ")
    assert said[1].endswith(" more")


def test_a_step_can_be_named(folder):
    (folder / "step_7").rename(folder / "step_50")
    for other in ("step_100", "step_99.pt", "step_100_all_preds.0"):
        (folder / other).write_bytes(b"")
    assert find_weights(folder, 50) == folder / "step_50"
    assert find_weights(folder, 99) == folder / "step_99.pt"
    assert imported(folder, step=50)[1][1] == "  not taken: step_100, step_100_all_preds.0, step_99.pt"
    refused(folder, "--step 7: .* holds no such file of weights; its steps are 50, 99, 100", step=7)
    refused(folder / "step_50", "--step 50: .* is no folder of steps", step=50)


def test_several_files_without_a_step_are_named(folder):
    (folder / "step_7").rename(folder / "best.pt")
    (folder / "last.pt").write_bytes(b"")
    refused(folder, r"holds both best\.pt and last\.pt; give the file itself")
    (folder / "worst.pt").write_bytes(b"")
    refused(folder, r"holds 3 files of weights \(best\.pt, last\.pt, worst\.pt\)")
    refused(folder, "--step 3: .* its steps are none", step=3)


def test_folders_that_are_something_else(tmp_path):
    ours = save_checkpoint(tmp_path / "ours", MODEL, "sudoku-9x9", "")
    refused(ours, "is a checkpoint of hrm-edge, and needs no import")
    sharded = tmp_path / "step_100"
    sharded.mkdir()
    for name in (".metadata", "__0_0.distcp"):
        (sharded / name).write_bytes(b"x")
    refused(sharded, "is a torch.distributed checkpoint; make one file of it first: python -m torch.distributed")
    (tmp_path / "a" / "step_7").mkdir(parents=True)
    refused(tmp_path / "a", "holds no step_N file, only step_7/; give the file itself")


# -- which table -----------------------------------------------------------------------------------------

TABLES = {
    "a module of any name": lambda: under("net.wrapped_by_me.", STATE),
    "lightning": lambda: {
        "state_dict": {**under("model.model.inner.", STATE), "train_acc.total": torch.tensor(1)},
        "pytorch-lightning_version": "2.1",
        "hyper_parameters": {"lr": 1e-3},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1}]}],
        "loops": {"fit": {"a": None}},
    },
    "an averaged model": lambda: {"n_averaged": torch.tensor(3), **under("module.", STATE)},
    "fabric": lambda: under("_forward_module.module.", STATE),
    "a list": lambda: [{"step": 3}, under("model.", STATE)],
    "a tuple": lambda: (under("model.", STATE), 3),
    "deep": lambda: {"a": {"b": {"c": {"d": {"e": STATE}}}}},
    "an ordered one": lambda: collections.OrderedDict(under("_orig_mod.model.inner.", STATE)),
    "parameters": lambda: {name: torch.nn.Parameter(tensor) for name, tensor in STATE.items()},
    "double": lambda: {name: tensor.double() for name, tensor in STATE.items()},
    "the same table twice": lambda: {"model": STATE, "state_dict": STATE},
    # Objects that trainers save beside weights: they are dropped, and nothing of them is run.
    "arguments": lambda: {"model": STATE, "args": argparse.Namespace(lr=1.0), "at": pathlib.Path("x")},
    "numbers of numpy": lambda: {
        "model": STATE,
        "best": np.float64(3),
        "rng": np.random.default_rng(1).normal(size=3),
    },
    "the state of numpy": lambda: {"model": STATE, "rng": np.random.get_state()},
    "a defaultdict": lambda: {"model": collections.defaultdict(int, STATE), "seen": collections.Counter("ab")},
}


@pytest.mark.parametrize("how", TABLES)
@pytest.mark.parametrize("new", [True, False])
def test_the_weights_are_found_wherever_they_stand(folder, how, new):
    torch.save(TABLES[how](), folder / "step_7", _use_new_zipfile_serialization=new)
    assert equal(imported(folder)[0], STATE)


def test_what_is_no_part_of_the_network_is_left_out_and_told(folder):
    torch.save({**under("model.inner.", STATE), "model.metric": torch.zeros(1)}, folder / "step_7")
    found, said = imported(folder)
    assert equal(found, STATE)
    assert said[-1] == "  left out, as no part of the network: model.metric"
    torch.save(STATE | {"metric": torch.zeros(1)}, folder / "step_7")
    refused(folder, "weight 'metric' is unknown")  # within it, it would be one


CHOICES = {
    "model and ema": (lambda: {"model": under("model.inner.", STATE), "ema": under("model.inner.", MOVED)}, "ema"),
    "within a table": (lambda: {"model": STATE, "ema": {"shadow": MOVED, "decay": 0.9}}, "ema.shadow"),
    "in one table": (lambda: {**under("model.", STATE), **under("ema_model.module.", MOVED)}, "ema_model"),
    "the network itself, too": (lambda: {**STATE, **under("ema.", MOVED)}, "ema"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_a_choice_is_left_to_who_knows(folder, case):
    make, key = CHOICES[case]
    torch.save(make(), folder / "step_7")
    refused(folder, rf"holds several tables of weights \(.*'{key}'.*\); name the one that is meant, as with --key ")
    for asked in (key, key.split(".")[0]):
        found, said = imported(folder, key=asked)
        assert equal(found, MOVED)
        assert said[0] == f"read {folder / 'step_7'}, of its weights those under {key!r}"
        assert said[1].startswith("  not taken of its weights: '")
    refused(folder, f"holds no weights under --key 'other'; there are .*'{key}'", key="other")


@pytest.mark.parametrize("prefix", ["", "model.inner.", "_orig_mod.module."])
def test_an_average_of_the_parameters_alone_is_filled_up(folder, prefix):
    """As TRM's own keeps it: the first states and the puzzle embeddings are no parameters there."""
    torch.save({"model": under("model.inner.", STATE), "ema": under(prefix, PARAMETERS)}, folder / "step_7")
    refused(folder, r"several tables of weights \('model', 'ema'\)")
    assert equal(imported(folder, key="ema")[0], PARAMETERS, STATE)
    assert equal(imported(folder, key="model")[0], STATE)
    torch.save({"ema": PARAMETERS}, folder / "step_7")
    refused(folder, "weight 'H_init' is missing")


@pytest.mark.parametrize("name", ["step_7.safetensors", "step_7.pt", "step_7"])
@pytest.mark.parametrize("written", [save_file, torch.save])
def test_the_content_tells_the_format_not_the_name(folder, name, written):
    (folder / "step_7").unlink()
    written({**under("net.", STATE), "steps": torch.tensor([3])}, folder / name)
    assert equal(imported(folder)[0], STATE)


def test_two_tables_in_safetensors(folder):
    save_file({**under("model.", STATE), **under("ema.", MOVED)}, folder / "step_7")
    refused(folder, r"several tables of weights \('model', 'ema'\)")
    assert equal(imported(folder, key="ema")[0], MOVED)


# -- what is no checkpoint -------------------------------------------------------------------------------


def cut(path, save, left: int) -> None:
    save(STATE, path)
    path.write_bytes(path.read_bytes()[:left])


FOREIGN = [
    ("beginning of a safetensors file, cut off", lambda p: cut(p, save_file, -100)),
    ("beginning of a safetensors file, cut off", lambda p: cut(p, save_file, 100)),
    ("beginning of a zip archive, cut off", lambda p: cut(p, torch.save, 5000)),
    ("nothing but zeros", lambda p: p.write_bytes(bytes(5000))),
    ("nothing that torch or safetensors wrote", lambda p: p.write_bytes(bytes(range(1, 256)) * 9)),
    ("a git-annex pointer", lambda p: p.write_text("/annex/objects/SHA256E-s1--abc\n")),
    ("a web page", lambda p: p.write_text("<Error><Code>NoSuchKey</Code></Error>")),
    ("a TorchScript program", lambda p: torch.jit.script(torch.nn.Linear(2, 2)).save(str(p))),
    ("a zip archive of something else", lambda p: p.open("wb").close() or np.savez(p.open("wb"), a=np.zeros(3))),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(("said", "write"), FOREIGN)
def test_a_file_is_told_for_what_it_is(folder, said, write):
    write(folder / "step_7")
    refused(folder, f"step_7: is .*{said}")


@pytest.mark.parametrize("what", ["a git-lfs pointer", "a web page", "empty"])
def test_so_is_a_config(folder, what):
    content = {
        "a git-lfs pointer": "version https://git-lfs.github.com/spec/v1\noid x\n",
        "a web page": "<!DOCTYPE html>",
    }
    (folder / "all_config.yaml").write_text(content.get(what, ""))
    refused(folder, f"all_config.yaml: is {what}")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


class Named:
    """An object of a class that a checkpoint may name, and none of ours."""


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("hidden", [Evil(), {"args": argparse.Namespace(evil=Evil())}, [Named()]])
def test_code_beside_weights_is_refused_named_and_not_run(folder, monkeypatch, hidden, new):
    monkeypatch.chdir(folder)
    torch.save({"model": STATE, "more": hidden}, folder / "step_7", _use_new_zipfile_serialization=new)
    with pytest.raises(InputError, match=r"never opened, and this one names \S+(mkdir|Named)\)"):
        read_weights(folder / "step_7")
    assert not (folder / "evil-was-here").exists()


def test_objects_that_are_dropped_are_not_even_imported(folder, monkeypatch):
    """Where a file says argparse.Namespace, nothing of that name is called."""
    torch.save({"model": STATE, "args": argparse.Namespace(lr=1.0)}, folder / "step_7")
    monkeypatch.setattr(argparse, "Namespace", lambda *_, **__: pytest.fail("it was called"))
    assert equal(read_weights(folder / "step_7").tensors, STATE)
    assert "argparse.Namespace" not in str(torch.serialization.get_safe_globals())
