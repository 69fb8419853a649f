"""`hrm-edge eval` from the outside: tables, one JSON object, agreement, and one line for what is wrong."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from toys import TASK, write_hollow_bundle, write_toy_bundle

from hrm_edge.bundle import Gate
from hrm_edge.cli import main
from hrm_edge.cli.evaluate import puzzles_for
from hrm_edge.data.leaks import distinct_puzzles
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.tasks import get_task

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    for loop in ("host", "graph"):
        write_toy_bundle(folder / loop, loop=loop)
    save_puzzles(generate_puzzles(TASK, 30, seed=0), folder / "puzzles.csv")
    return folder


def run(capsys, *arguments):
    """(exit code, stdout, stderr)"""
    with pytest.raises(SystemExit) as stopped:
        main(["eval", *map(str, arguments)])
    output = capsys.readouterr()
    return stopped.value.code or 0, output.out, output.err


def test_the_seed_draws_from_a_file_and_from_nothing_else(folder):
    """As the help says: held-out puzzles are always the first, and a whole file is a whole file."""
    pytest.importorskip("torch")
    held_out = {"seed": 5, "difficulty": "ordinary"}
    checkpoint = SimpleNamespace(task=TASK, metadata={"held_out": held_out}, path="c")
    opened = [SimpleNamespace(engine=SimpleNamespace(task=TASK), checkpoint=checkpoint)]

    def questions(data, n, seed):
        return puzzles_for(opened, data, n, seed).questions.tolist()

    file, whole = folder / "puzzles.csv", generate_puzzles(TASK, 12, held_out["seed"]).questions.tolist()
    assert questions(None, 12, 0) == questions(None, 12, 1) == whole
    assert questions(None, 4, 1) == whole[:4]
    assert questions(file, None, 0) == questions(file, None, 1)
    assert questions(file, 10, 0) == questions(file, 10, 0) != questions(file, 10, 1)


def test_puzzles_without_a_label_are_not_drawn(folder, monkeypatch):
    """One of the ten has a label, where only labels tell what is right."""
    opened = [SimpleNamespace(engine=SimpleNamespace(task=TASK), checkpoint=None)]
    puzzles = generate_puzzles(TASK, 10, seed=0)
    labels = np.zeros_like(puzzles.answers)
    labels[7] = puzzles.answers[7]
    secret = dataclasses.replace(puzzles, answers=labels)
    monkeypatch.setattr("hrm_edge.data.choose.load_puzzles", lambda *_: secret)
    monkeypatch.setattr(type(TASK), "has_rules", False)
    for seed in range(3):
        drawn = puzzles_for(opened, folder / "secret", 2, seed)
        assert drawn.questions.tolist() == puzzles.questions[7:8].tolist()
    assert len(puzzles_for(opened, folder / "secret", None, 0)) == 10


def test_table_and_agreement(folder, capsys):
    code, out, _ = run(capsys, folder / "host", folder / "graph", "--data", folder / "puzzles.csv")
    assert code == 0
    assert "host (onnx fp32, host loop) on puzzles" in out
    assert out.count("all ") == 2
    assert "equal to those of host (onnx fp32, host loop), puzzle for puzzle" in out


def test_json_is_one_object_and_nothing_else(folder, capsys):
    code, out, _ = run(
        capsys, folder / "host", "--data", folder / "puzzles.csv", "--by", "source,segments", "--n", 20, "--json"
    )
    content = json.loads(out)
    assert code == 0
    assert content["n"] == 20
    assert content["by_source"]["generated-ordinary"]["exact"] == content["exact"]
    assert list(content["by_segments"]) == ["1", "2", "4", "8", "16", "32"]
    assert sum(content["steps_histogram"].values()) == 20


def test_several_come_with_their_agreement(folder, capsys):
    pair = (folder / "host", folder / "graph", "--data", folder / "puzzles.csv", "--json")
    first, second = json.loads(run(capsys, *pair)[1])["results"]
    assert "agreement" not in first
    assert (second["agreement"]["answers_differ"], second["agreement"]["steps_differ"]) == (0, 0)
    assert first["exact"] == second["exact"]


def test_thinking_longer_and_again_is_passed_on(folder, capsys):
    base = (folder / "host", "--data", folder / "puzzles.csv", "--json")
    one, many, again = (
        json.loads(run(capsys, *base, *options)[1])
        for options in (("--max-think-steps", 1), ("--halt", "verified"), ("--max-think-steps", 1, "--retries", 2))
    )
    assert one["exact"] < many["exact"]
    assert one["steps_mean"] == 1.0
    assert again["steps_mean"] > 1.0


def test_an_unchecked_bundle_says_so(folder, tmp_path, capsys):
    write_toy_bundle(tmp_path / "unchecked", gate=Gate(False, None, "--no-gate"))
    _, out, err = run(capsys, tmp_path / "unchecked", "--data", folder / "puzzles.csv", "--json")
    assert "its accuracy was never checked" in err
    json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--data", "puzzles.csv"], "nowhere: no such checkpoint or bundle"),
        (["host"], "give some with --data"),
        (["host", "--data", "absent.csv"], "absent.csv"),
        (["host", "--data", "puzzles.csv", "--by", "colour"], "cannot break scores down by 'colour'"),
        (["host", "--data", "puzzles.csv", "--halt", "soon"], "halt must be one of"),
        (["host", "--data", "six.csv"], "six.csv line 2: puzzle has 36 characters, expected 16"),
        (["host", "--data", "six"], "six: seq_len is 36, but sudoku-4x4 has 16"),
        (["hollow", "--data", "puzzles.csv"], "export the bundle again"),
    ],
)
def test_one_line_and_exit_2(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    if "six" in arguments[-1]:
        save_puzzles(generate_puzzles(get_task("sudoku-6x6"), 2, seed=0), folder / arguments[-1])
    if "hollow" in arguments:
        write_hollow_bundle(folder / "hollow")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_copies_count_once(folder, capsys, tmp_path):
    """Ten of one puzzle, each turned and renamed in its own way, beside five others."""
    some = distinct_puzzles(generate_puzzles(TASK, 12, seed=2)).select(np.array([0] * 10 + [1, 2, 3, 4, 5]))
    questions, answers = TASK.augment(np.random.default_rng(0), some.questions, some.answers)
    save_puzzles(dataclasses.replace(some, questions=questions, answers=answers), tmp_path / "copies.csv")
    code, out, err = run(capsys, folder / "host", "--data", tmp_path / "copies.csv", "--json")
    assert (code, json.loads(out)["n"]) == (0, 6)
    assert "9 of 15 puzzles are others again" in err
