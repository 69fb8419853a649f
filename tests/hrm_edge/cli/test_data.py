"""``hrm-edge data`` as typed: what it writes, says and refuses."""

import json
import os
import subprocess
import sys

import commands
import numpy as np
import pytest

from hrm_edge.data.puzzles import generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.tasks import get_task

FOUR = ["--task", "sudoku-4x4"]


def run(capsys, *arguments):
    return commands.run(capsys, "data", *arguments)


def test_generate_writes_what_the_seed_says(tmp_path, capsys):
    for name in ("a.csv", "b.csv.gz", "c"):
        code, out, err = run(capsys, "generate", *FOUR, "--n", 9, "--seed", 5, "-o", tmp_path / name)
        assert (code, err) == (0, "")
        assert out == f"wrote 9 sudoku-4x4 puzzles (difficulty ordinary, seed 5) to {tmp_path / name}\n"
    sets = [load_puzzles(tmp_path / name, get_task("sudoku-4x4")) for name in ("a.csv", "b.csv.gz", "c")]
    assert len({puzzles.content_hash() for puzzles in sets}) == 1
    run(capsys, "generate", *FOUR, "--n", 9, "--seed", 6, "-o", tmp_path / "a.csv", "--force")
    assert load_puzzles(tmp_path / "a.csv", get_task("sudoku-4x4")).content_hash() != sets[0].content_hash()


@pytest.mark.parametrize("command", ["generate", "convert"])
@pytest.mark.parametrize("target", ["p.csv", "p.csv.gz", "set"])
def test_what_is_there_is_only_replaced_when_asked_for(tmp_path, capsys, command, target):
    maze, output = get_task("maze-7x7"), tmp_path / target
    save_puzzles(generate_puzzles(maze, 2, 0, processes=1), output)
    before = load_puzzles(output, maze).content_hash()
    (tmp_path / "in.txt").write_text("1.......2.......\n")
    arguments = (
        ["generate", *FOUR, "--n", 3, "-o"] if command == "generate" else ["convert", tmp_path / "in.txt", "-o"]
    )
    more = [output] if command == "generate" else [output, *FOUR]
    code, out, err = run(capsys, *arguments, *more)
    assert (code, out) == (2, "")
    assert err == f"hrm-edge: {output} exists; choose another name, or replace it with --force\n"
    assert load_puzzles(output, maze).content_hash() == before
    assert run(capsys, *arguments, *more, "--force")[0] == 0
    assert len(load_puzzles(output, get_task("sudoku-4x4"))) in (1, 3)
    # A folder of something else is never replaced.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("keep me")
    code, _, err = run(capsys, "generate", *FOUR, "-o", tmp_path / "mine", "--force")
    assert (code, "is no puzzle set" in err) == (2, True)


def test_generate_makes_mazes_of_a_given_length(tmp_path, capsys):
    maze = ["--task", "maze-11x11"]
    assert run(capsys, "generate", *maze, "--n", 3, "--difficulty", 25, "-o", tmp_path / "m.csv")[0] == 0
    puzzles = load_puzzles(tmp_path / "m.csv", get_task("maze-11x11"))
    assert ((puzzles.answers == 5).sum(axis=1) >= 25).all()
    code, out, _ = run(capsys, "show", tmp_path / "m.csv", *maze, "--n", 1)
    assert code == 0
    assert out.count("S") == out.count("G") == 2


def test_convert_solves_a_text_and_keeps_sources(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("question,source\n1.......2.......,mine\n...4............,yours\n")
    assert run(capsys, "convert", tmp_path / "p.csv", "-o", tmp_path / "full.csv.gz", *FOUR)[0] == 0
    full = load_puzzles(tmp_path / "full.csv.gz", get_task("sudoku-4x4"))
    assert full.sources == ["mine", "yours"]
    assert run(capsys, "convert", tmp_path / "full.csv.gz", "-o", tmp_path / "set", *FOUR)[0] == 0
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["total_groups"] == 2
    assert np.load(tmp_path / "set" / "all__labels.npy").shape == (2, 16)


def test_show_draws_question_and_answer_and_counts_sources(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("question,source\n12....12.1...4..,a\n" + "1234............,b\n" * 3)
    code, out, _ = run(capsys, "show", tmp_path / "p.csv", *FOUR, "--n", 2)
    assert code == 0
    assert out.startswith("1. a, rating 1\n")
    assert "  │ 1  2 │ .  . │  │ 1  2 │ 3· 4·│" in out
    assert out.endswith("4 puzzles: 1 a, 3 b\n")
    assert out.count("rating") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "none.csv"], "there is no file none.csv"),
        (["show", "p.csv"], "p.csv line 2: puzzle has 16 characters, expected 81"),
        (["show", "p.csv", "--task", "go"], "unknown task 'go'"),
        (["convert", "p.csv", "-o", "p.json", *FOUR], "cannot write p.json: end it in .csv"),
        (["generate", "-o", "."], ". exists and is no puzzle set"),
        (["generate", "-o", "q.csv", "--difficulty", "x"], "has no difficulty 'x'; choose one of easy"),
        (["generate", "-o", "q.csv", *FOUR, "--difficulty", "extreme"], "choose another"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text("question\n1.......2.......\n")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("hrm-edge: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_data_needs_no_torch():
    code = (
        "import sys, hrm_edge.data.puzzles, hrm_edge.cli.data; print('torch' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.startswith("False"), done.stderr
