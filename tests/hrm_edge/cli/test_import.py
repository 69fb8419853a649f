"""`hrm-edge import` and `convert` as people call them: exit codes, what is printed where, and who may read it."""

import json
import os
import shutil
import stat

import pytest
import torch
from arc_sets import toy_collection
from commands import run
from published import NAMED, published, sudoku_trm

from hrm_edge.arc.build import build
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.models import HRMConfig, build_model, load_checkpoint
from hrm_edge.tasks import get_task

MODEL = sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
ARCH = {name: MODEL.config.to_dict()[name] for name in NAMED}


@pytest.fixture
def folder(tmp_path):
    return published(tmp_path / "public", MODEL, ARCH)


@pytest.fixture
def puzzles(tmp_path):
    save_puzzles(generate_puzzles(get_task("sudoku-9x9"), 5, 1, processes=1), tmp_path / "five.csv")
    return tmp_path / "five.csv"


def test_the_folder_is_printed_and_what_was_found_is_said(folder, tmp_path, capsys):
    (folder / "step_7_all_preds.0").write_bytes(b"x")
    code, out, err = run(capsys, "import", folder, "-o", tmp_path / "m")
    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    lines = err.splitlines()
    assert lines[:2] == [f"read {folder / 'step_7'}", "  not taken: step_7_all_preds.0"]
    assert lines[2].startswith("TRM for sudoku-9x9: ")
    assert lines[3].startswith("next: hrm-edge eval ")


def test_steps_and_keys_are_flags(folder, tmp_path, capsys):
    state = MODEL.state_dict()
    torch.save({"model": state, "ema": {name: 2 * tensor for name, tensor in state.items()}}, folder / "step_5")
    code, out, err = run(capsys, "import", folder, "--step", 5, "-o", tmp_path / "m")
    assert (code, out) == (2, "")
    assert "several tables of weights ('model', 'ema')" in err.splitlines()[-1]
    assert run(capsys, "import", folder, "--step", 5, "--key", "ema", "-o", tmp_path / "m")[0] == 0
    assert torch.equal(load_checkpoint(tmp_path / "m").model.lm_head.weight, 2 * state["lm_head.weight"])
    assert load_checkpoint(tmp_path / "m").metadata["imported_from"] == "step_5"


def test_an_expectation_that_fails_is_exit_code_1_and_nothing_is_published(folder, tmp_path, capsys, puzzles):
    asked = ["import", folder, "-o", tmp_path / "m", "--data", puzzles]
    code, out, err = run(capsys, *asked, "--expect-exact", 0.87, "--n", 4)
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith(f"hrm-edge: {folder / 'step_7'}: exact_accuracy 0.00 % of 4 puzzles from five ")
    assert "less than the 87.00 % expected" in last
    assert last.endswith("nothing was published")
    assert not (tmp_path / "m").exists()
    code, out, _ = run(capsys, *asked, "--expect-exact", 0)
    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    for wrong in (["--expect-exact", 87], ["--expect-exact", -1], ["--n", 0]):
        assert run(capsys, *asked, *wrong, "--force")[0] == 2


@pytest.mark.parametrize(("mask", "files", "folders"), [(0o077, 0o600, 0o700), (0o022, 0o644, 0o755)])
def test_the_umask_says_who_may_read(folder, tmp_path, capsys, mask, files, folders):
    before = os.umask(mask)
    try:
        assert run(capsys, "import", folder, "-o", tmp_path / "m")[0] == 0
        assert run(capsys, "convert", tmp_path / "m", "-o", tmp_path / "p")[0] == 0
    finally:
        os.umask(before)
    for made in (tmp_path / "m", tmp_path / "p"):
        assert stat.S_IMODE(made.stat().st_mode) == folders
        assert {stat.S_IMODE(file.stat().st_mode) for file in made.iterdir()} == {files}


def test_there_and_back(folder, tmp_path, capsys):
    assert run(capsys, "import", folder, "-o", tmp_path / "m")[0] == 0
    code, out, err = run(capsys, "convert", tmp_path / "m", "-o", tmp_path / "p")
    assert (code, out) == (0, f"{tmp_path / 'p' / 'step_7'}\n")
    assert err == f"11 weights and the config read back from it exactly as they are in {tmp_path / 'm'}\n"
    code, _, err = run(capsys, "convert", tmp_path / "m", "-o", tmp_path / "p")
    assert (code, err) == (
        2,
        f"hrm-edge: {tmp_path / 'p'} exists; choose another name, or replace it with --force\n",
    )
    assert run(capsys, "convert", tmp_path / "m", "-o", tmp_path / "p", "--force")[0] == 0
    assert run(capsys, "import", tmp_path / "p", "-o", tmp_path / "n")[0] == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "n" / name).read_bytes()


def test_the_shipped_models_are_no_networks_of_the_public_code(tmp_path, capsys):
    code, out, err = run(capsys, "convert", "sudoku-9x9", "-o", tmp_path / "p")
    assert (code, out) == (2, "")
    assert err.endswith("the public HRM code has no pos_encodings 'none', conv_kernel 1, unit_means True\n")


@pytest.mark.parametrize("as_", ["checkpoint", pytest.param("bundle", marks=pytest.mark.slow)])
def test_an_arc_checkpoint_is_asked_by_its_own_names_alone(tmp_path, capsys, as_, one_trace):
    """From the import to a bundle: a set whose names or whose numbers are others is refused, not scored."""
    task = get_task("arc-4x4")
    build(toy_collection(), task, tmp_path / "set", augmentations=2)
    build(toy_collection(), task, tmp_path / "more", augmentations=3)
    build(toy_collection(), task, tmp_path / "seeds", augmentations=2, seed=5)
    shutil.copytree(tmp_path / "set", tmp_path / "permuted")
    names = json.loads((tmp_path / "set" / "identifiers.json").read_text())
    (tmp_path / "permuted" / "identifiers.json").write_text(json.dumps([names[0], *names[:0:-1]]))
    torch.manual_seed(0)
    values = {"hidden_size": 16, "num_heads": 2, "puzzle_emb_ndim": 16, "H_layers": 0, "L_layers": 1, "kind": "trm"}
    config = HRMConfig(vocab_size=12, seq_len=16, puzzle_emb_len=16, num_puzzle_identifiers=len(names), **values)
    public = published(tmp_path / "public", build_model(config, task), ARCH, data_paths=["data/arc-4x4"])
    (public / "identifiers.json").write_text(json.dumps(names))
    assert run(capsys, "import", public, "-o", tmp_path / "m")[0] == 0
    artifacts = ["m"]
    if as_ == "bundle":
        export = ["export", tmp_path / "m", "--target", "onnx", "--loop", "host", "--no-gate", "-o"]
        assert run(capsys, *export, tmp_path / "b")[0] == 0
        assert run(capsys, *export, tmp_path / "k", "--puzzle-identifiers", tmp_path / "set" / "test")[0] == 0
        artifacts = ["b", "k"]
    for artifact in artifacts:
        assert run(capsys, "arc", tmp_path / artifact, "--data", tmp_path / "set")[0] == 0
        for other, said in (
            ("more", f"has 25 puzzle identifiers, and the model was trained with {len(names)}: "),
            ("seeds", f"its identifiers.json names the {len(names)} puzzles otherwise, or in another order, than"),
            ("permuted", "which its puzzle is not: names and puzzles are of different sets, or in another order"),
        ):
            code, out, err = run(capsys, "arc", tmp_path / artifact, "--data", tmp_path / other)
            assert (code, out) == (2, ""), (artifact, other)
            assert said in err.splitlines()[-1]
        for other in ("more", "seeds", "permuted"):
            code, out, err = run(capsys, "eval", tmp_path / artifact, "--data", tmp_path / other / "test")
            assert (code, out) == (2, ""), (artifact, other)
            assert "identifiers" in err.splitlines()[-1]
    for other in ("more", "seeds", "permuted"):  # and keeps no rows by them
        keep = ["--puzzle-identifiers", tmp_path / other / "test", "--no-gate", "-o", tmp_path / "no"]
        code, out, err = run(capsys, "export", tmp_path / "m", "--target", "onnx", *keep)
        assert (code, out) == (2, "")
        assert err.startswith(f"hrm-edge: {tmp_path / other / 'test'}: ")
        assert "identifiers" in err
