"""`hrm-edge train`, `import` and `models` from the command line: results on stdout, one line and 2 for mistakes."""

import json
import pickle
import shutil
import subprocess
import sys

import commands
import pytest
from small_networks import network

from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.models import load_checkpoint, save_checkpoint
from hrm_edge.packages import install
from hrm_edge.tasks import get_task

TRAIN = ["train", "--task", "sudoku-4x4", "--preset", "tiny", "--data", "generated:50", "--device", "cpu"]
SMALL = ["--set", "train.batch_size=8", "--set", "train.final_puzzles=4"]


def run(arguments, capsys):
    """(exit code, stdout, stderr) of one command."""
    return commands.run(capsys, *arguments)


def test_train_prints_the_checkpoint_and_nothing_else(tmp_path, capsys):
    code, out, err = run([*TRAIN, *SMALL, "--steps", 2, "-o", tmp_path / "run"], capsys)
    assert code == 0
    assert out.strip() == str(tmp_path / "run" / "checkpoint")
    assert "step 2" in err
    assert load_checkpoint(out.strip()).metadata["steps"] == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--steps", 2, "--data", "missing.csv"], "missing.csv"),
        (["--steps", 2, "--data", "generated:many"], "expected generated:N"),
        (["--steps", 2, "--data", "generated:5@-1"], "above 0"),
        (["--steps", 2, "--set", "train.nonsense=1"], "unknown field 'nonsense'"),
        (["--steps", 2, "--preset", "huge"], "choose from"),
        (["--steps", 2, "--task", "chess"], "chess"),
        (["--steps", 2, "--config", "missing.toml"], "missing.toml"),
        (["--steps", 2, "--from", "missing"], "no such checkpoint"),
        ([], "nothing says when to stop"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, more, said):
    code, out, err = run([*TRAIN, *SMALL, "-o", tmp_path / "run", *more], capsys)
    assert code == 2
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("task", "data", "said"),
    [
        ("sudoku-4x4", "other.csv", "other.csv line 2: puzzle has 36 characters, expected 16"),
        ("sudoku-4x4", "other", "other: seq_len is 36, but sudoku-4x4 has 16"),
        ("maze-6x6", "other", "other: vocab_size is 8, but maze-6x6 has 6"),
        ("sudoku-6x6", "other", "vocab_size is 6, but task sudoku-6x6 has 8"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_one_line(tmp_path, capsys, monkeypatch, task, data, said):
    monkeypatch.chdir(tmp_path)
    other = generate_puzzles(get_task("sudoku-6x6"), 3, 0, processes=1)
    for name in ("other", "other.csv"):
        save_puzzles(other, name)
    save_checkpoint("first", network(), "sudoku-4x4", "")
    more = ["--data", data, "--steps", 1, "-o", "run"]
    code, out, err = run(["train", "--task", task, "--from", "first", *more], capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    # The folder is free for the command as it was meant.
    assert not (tmp_path / "run" / "run.json").exists()


def test_import_writes_a_checkpoint(shared_data, tmp_path, capsys):
    code, out, _ = run(["import", shared_data / "parity" / "hrm-rope", "-o", tmp_path / "m"], capsys)
    assert code == 0
    assert load_checkpoint(out.strip()).config.hidden_size == 64


def test_import_of_a_pickle_is_refused(tmp_path, capsys):
    (tmp_path / "all_config.yaml").write_text("arch: {hidden_size: 64}\n")
    (tmp_path / "step_1").write_bytes(pickle.dumps({"a": object()}))
    code, _, err = run(["import", tmp_path / "step_1", "-o", tmp_path / "m"], capsys)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_models_as_table_json_and_card(capsys):
    code, out, _ = run(["models", "--json"], capsys)
    assert code == 0
    names = [row["name"] for row in json.loads(out)["models"]]
    assert "sudoku-9x9" in names
    assert "sudoku-9x9" in run(["models"], capsys)[1]
    assert "Recipe" in run(["models", "sudoku-9x9"], capsys)[1]
    assert run(["models", "nonsense"], capsys)[0] == 2


def test_an_import_replaces_nothing_but_a_checkpoint(tmp_path, capsys, shared_data):
    public = tmp_path / "public"
    shutil.copytree(shared_data / "parity" / "hrm-rope", public)
    before = sorted(path.name for path in public.iterdir())
    for place in (public, tmp_path / "notes.csv", tmp_path / "full"):
        if not place.exists():
            (place / "kept.txt" if place.name == "full" else place).parent.mkdir(exist_ok=True)
            (place / "kept.txt" if place.name == "full" else place).write_text("mine")
        code, out, err = run(["import", public, "-o", place], capsys)
        assert (code, out) == (2, "")
        assert f"{place}: holds something else than a checkpoint" in err
        assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in public.iterdir()) == before
    assert (tmp_path / "notes.csv").read_text() == (tmp_path / "full" / "kept.txt").read_text() == "mine"
    for force in ([], ["--force"]):  # a checkpoint may be replaced, where somebody says so
        code, out, _ = run(["import", public, "-o", tmp_path / "made", *force], capsys)
        assert (code, out.strip()) == (0, str(tmp_path / "made"))
    before = (tmp_path / "made" / "config.json").stat().st_ino
    code, out, err = run(["import", public, "-o", tmp_path / "made"], capsys)
    assert (code, out) == (2, "")
    assert err == f"hrm-edge: {tmp_path / 'made'} exists; choose another name, or replace it with --force\n"
    assert (tmp_path / "made" / "config.json").stat().st_ino == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--task", "sudoku-4x4", "--steps", "1", "-o", "r"],
        ["import", "missing", "-o", "made"],
        ["bench", "--random-weights", "paper"],
        ["analyze", "participation", "--random-weights", "paper"],
        ["analyze", "ablations", "--steps", "1", "-o", "ab"],
    ],
)
def test_what_needs_pytorch_says_so_in_a_line(tmp_path, monkeypatch, arguments):
    """As on a device, where it is not installed."""
    monkeypatch.chdir(tmp_path)
    hidden = "import sys; sys.modules['torch'] = None; from hrm_edge.cli import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", hidden, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().splitlines() == [f"hrm-edge: this needs PyTorch; run: {install('train')}"]
    assert not list(tmp_path.iterdir())
