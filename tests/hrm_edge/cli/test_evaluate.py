"""`hrm-edge eval` from the outside: tables, one JSON object, agreement, and one line for what is wrong."""

import dataclasses
import json
from types import SimpleNamespace

import commands
import numpy as np
import pytest
from scripted import ByHeart, rings
from toys import TASK, manifest, write_hollow_bundle, write_toy_bundle

from hrm_edge.bundle import Gate
from hrm_edge.data.leaks import distinct_puzzles
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.measure.artifact import Artifact
from hrm_edge.measure.compare import puzzles_for
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
    return commands.run(capsys, "eval", *arguments)


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


def test_an_artifact_is_held_to_the_given_path_beside_any_shortest_one(tmp_path, capsys, monkeypatch):
    puzzles, answers = rings()
    save_puzzles(puzzles, tmp_path / "rings.csv")
    engine = ByHeart(puzzles.task, puzzles.questions, answers)
    model = SimpleNamespace(segment_flops=2_500_000)
    checkpoint = SimpleNamespace(task=puzzles.task, metadata={}, path="c", model=model)
    opened = Artifact("heart", tmp_path, engine, "fp32", 1, "0", checkpoint, None)
    monkeypatch.setattr("hrm_edge.measure.compare.open_artifact", lambda *_, **__: opened)
    code, out, _ = run(capsys, "heart", "--data", tmp_path / "rings.csv")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    found = {name: dict(zip(lines["puzzles"], lines[name], strict=True)) for name in ("a", "b", "all")}
    assert (code, found["a"]["exact"], found["a"]["exact_accuracy"]) == (0, "100.00%", "0.00%")
    assert (found["b"]["n"], found["b"]["exact_accuracy"]) == ("2", "50.00%")
    assert found["all"] == {
        "puzzles": "all",
        "n": "3",
        "exact": "66.67%",
        "wrong": "0.00%",
        "gave_up": "33.33%",
        "accuracy": "80.00%",  # 14 cells of one maze and 1 of another differ from the given ones, of 75
        "exact_accuracy": "33.33%",
        "segments": "1.00",
        "MFLOP": "2.5",
    }
    content = json.loads(run(capsys, "heart", "--data", tmp_path / "rings.csv", "--json")[1])
    figures = {name: content[name] for name in ("n", "exact", "accuracy", "exact_accuracy")}
    assert figures == {"n": 3, "exact": 2 / 3, "accuracy": pytest.approx(0.8), "exact_accuracy": 1 / 3}
    assert (content["segment_flops"], content["puzzle_flops"]) == (2_500_000, 2_500_000)


def test_flops_are_those_that_a_bundle_names(folder, tmp_path, capsys):
    architecture = {**manifest().architecture, "segment_flops": 1_500_000}
    write_toy_bundle(tmp_path / "told", architecture=architecture)
    content = json.loads(run(capsys, tmp_path / "told", "--data", folder / "puzzles.csv", "--json")[1])
    assert content["segment_flops"] == 1_500_000
    assert content["puzzle_flops"] == pytest.approx(1_500_000 * content["steps_mean"])
    assert "a segment takes 1.5" in run(capsys, tmp_path / "told", "--data", folder / "puzzles.csv")[1]
    untold = json.loads(run(capsys, folder / "host", "--data", folder / "puzzles.csv", "--json")[1])
    assert untold["segment_flops"] is untold["puzzle_flops"] is None


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
