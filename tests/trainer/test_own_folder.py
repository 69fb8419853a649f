"""A run's folder: only what a run wrote is written over, by one run at a time, and readers change nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from forked import Forked

from hrm_edge.errors import InputError
from hrm_edge.files import owning
from hrm_edge.models import load_checkpoint
from hrm_edge.tasks import get_task
from hrm_edge.trainer import load_recipe, train
from hrm_edge.trainer.state import load_state, require_state
from hrm_edge.workspace import workspace_of

TASK = get_task("sudoku-4x4")
SETTINGS = ("batch_size=4", "log_every=1", "eval_puzzles=4", "final_puzzles=4", "save_every=1")


def run(output, steps=1):
    settings = [f"train.{each}" for each in SETTINGS] + ["arch.hidden_size=32", "arch.puzzle_emb_ndim=32"]
    recipe = load_recipe(TASK.name, "tiny", None, [*settings, f"train.steps={steps}"])
    return train(TASK, *recipe, ["generated:20"], output, device="cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def everything(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def other_trainers(folder):
    """Weights as other trainers save them, under the names of ours."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")


FOREIGN = {
    "another trainer's checkpoint": (lambda f: other_trainers(f / "checkpoint"), "checkpoint"),
    "a checkpoint of files": (
        lambda f: ((f / "checkpoint").mkdir(parents=True), (f / "checkpoint" / "epoch1.pt").write_text("mine")),
        "'epoch1.pt'",
    ),
    "a file called checkpoint": (
        lambda f: (
            f.mkdir(exist_ok=True),
            shutil.rmtree(f / "checkpoint", True),
            (f / "checkpoint").write_text("x"),
        ),
        "checkpoint",
    ),
    "another state": (
        lambda f: ((f / "state").mkdir(parents=True), (f / "state" / "optimizer.bin").write_text("mine")),
        "'optimizer.bin'",
    ),
    "other metrics": (
        lambda f: (f.mkdir(), (f / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')),
        "metrics.jsonl",
    ),
    "another run.json": (lambda f: (f.mkdir(), (f / "run.json").write_text('{"mine": 1}')), "run.json"),
    "other puzzles": (
        lambda f: ((f / "data").mkdir(parents=True), np.savez(f / "data" / "source0.npz", mine=1)),
        "source0.npz",
    ),
}


@pytest.mark.parametrize(("make", "named"), FOREIGN.values(), ids=FOREIGN)
def test_what_no_run_has_written_is_not_written_over(tmp_path, make, named):
    make(tmp_path / "run")
    before = everything(tmp_path)
    with pytest.raises(InputError) as caught:
        run(tmp_path / "run")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == before


def test_a_checkpoint_holds_no_run_that_its_own_weights_would_hide(folder, tmp_path):
    shutil.copytree(folder / "checkpoint", tmp_path / "model")
    before = everything(tmp_path / "model")
    with pytest.raises(InputError, match="is a checkpoint itself"):
        run(tmp_path / "model")
    assert everything(tmp_path / "model") == before


@pytest.mark.parametrize("part", ["checkpoint", "state"])
def test_a_users_file_in_a_runs_own_folder_stops_it_before_any_work(folder, part):
    (folder / part / "notes.txt").write_text("mine")
    before = everything(folder)
    with pytest.raises(InputError, match=r"notes\.txt"):
        run(folder, steps=2)
    assert everything(folder) == before


def test_what_the_system_left_and_a_users_files_beside_it_do_not(folder):
    for name in ("checkpoint/Thumbs.db", "state/.DS_Store", "notes.txt"):
        (folder / name).write_text("x")
    run(folder, steps=2)
    assert load_checkpoint(folder).metadata["steps"] == 2
    assert (folder / "notes.txt").read_text() == "x"


def test_a_second_run_in_the_folder_is_refused(folder, tmp_path):
    with owning(folder / "run"):
        before = everything(folder)
        arguments = ["train", "--task", TASK.name, "--preset", "tiny", "--data", "generated:20", "--steps", "9"]
        second = Forked.command(tmp_path / "said", [*arguments, "-o", folder])
        assert second.wait() == 2
        assert "is writing there" in (tmp_path / "said").read_text()
        assert everything(folder) == before
    run(folder, steps=2)
    assert not [path for path in folder.rglob("*") if path.name.endswith(".hrm-edge")]


def test_a_refused_run_leaves_no_folder(tmp_path):
    recipe = load_recipe(TASK.name, "tiny", None, ["train.steps=1"])
    with pytest.raises(InputError):
        train(TASK, *recipe, [str(tmp_path / "nowhere.csv")], tmp_path / "a" / "run", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_a_checkpoint_changes_nothing(folder, tmp_path):
    """Neither what looks like a replacement that was cut off, nor one that was."""
    (tmp_path / ".gone.old").mkdir()
    (tmp_path / ".gone.old" / "mine").write_text("mine")
    (folder / ".checkpoint.old").mkdir()
    (folder / ".checkpoint.old" / "mine").write_text("mine")
    work = workspace_of(folder / "checkpoint")
    (work / "new").mkdir(parents=True)
    (work / "owner").write_text(
        "hrm-edge writes beside this folder; it may be deleted when that has ended: process 1"
    )
    (folder / "checkpoint").rename(work / "old")
    before = everything(tmp_path)
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "gone")
    for place in (folder, folder / "checkpoint"):
        read = load_checkpoint(place)
        assert (read.metadata["steps"], read.name, read.path) == (1, "run", folder / "checkpoint")
        assert read.size_bytes > 0
    assert everything(tmp_path) == before
    run(folder, steps=2)  # which writes, and so puts it right
    assert not work.exists()
    assert load_checkpoint(folder).metadata["steps"] == 2
    assert (folder / ".checkpoint.old" / "mine").read_text() == "mine"


def test_a_state_that_was_cut_off_is_read_where_it_stands(folder):
    from hrm_edge.trainer.distributed import World

    work = workspace_of(folder / "state")
    work.mkdir()
    (work / "owner").write_text(
        "hrm-edge writes beside this folder; it may be deleted when that has ended: process 1"
    )
    (folder / "state").rename(work / "old")
    shared, _ = load_state(folder / "state", World(0, 1, torch.device("cpu")))
    assert shared["step"] == 1
    assert not (folder / "state").exists()
    require_state(work / "old")
