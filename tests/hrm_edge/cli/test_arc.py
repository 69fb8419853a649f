"""ARC from the outside: JSON files to a set, a short run, a vote, and one line wherever rules would be needed."""

import json
import shutil

import numpy as np
import pytest
from arc_sets import toy_collection
from commands import run

from hrm_edge.measure import accuracy
from hrm_edge.runtimes import Answers


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arc_cli")
    for part in ("training", "evaluation"):
        (folder / "json" / part).mkdir(parents=True)
        for task in getattr(toy_collection(), part):
            sides = {"train": task.demonstrations, "test": task.tests}
            content = {s: [{"input": a.tolist(), "output": b.tolist()} for a, b in of] for s, of in sides.items()}
            (folder / "json" / part / f"{task.name}.json").write_text(json.dumps(content))
    return folder


def test_from_json_files_to_a_submission(work, capsys, monkeypatch):
    data = ["data", "arc", "--task", "arc-4x4", "--data", work / "json", "--augmentations", 2, "-o", work / "set"]
    code, out, _ = run(capsys, *data)
    assert (code, out.split(" to ")[0]) == (0, "wrote 6 of 6 json tasks as 18 puzzles")
    assert "72 pairs to learn, 18 held out" in out
    code, _, err = run(capsys, *data)
    assert code == 2
    assert "replace it with --force" in err
    assert run(capsys, *data, "--force")[0] == 0

    settings = ["arch.hidden_size=32", "arch.puzzle_emb_ndim=32", "train.batch_size=8", "arch.halt_max_steps=2"]
    settings += ["train.final_puzzles=4"]
    train = [
        "train",
        "--task",
        "arc-4x4",
        "--preset",
        "tiny",
        "--data",
        work / "set",
        "--steps",
        2,
        "-o",
        work / "r",
    ]
    code, _, err = run(capsys, *train, *[part for each in settings for part in ("--set", each)])
    assert code == 0
    assert "early halting is left" in err.replace("\n", " ")

    file = work / "submission.json"
    code, out, _ = run(capsys, "arc", work / "r", "--data", work / "set", "-o", file, "--json")
    content = json.loads(out)
    assert code == 0
    assert (content["tasks"], content["test_inputs"], content["answers"]) == (3, 6, 18)
    assert 0 <= content["pass@1"] <= content["pass@2"] <= 1
    assert {name: len(tests) for name, tests in json.loads(file.read_text()).items()} == dict.fromkeys(
        ("bb0", "bb1", "bb2"), 2
    )

    # The test input of bb0 whose output nobody gives: the rates are those of what is left, and say so.
    secret = work / "secret"
    shutil.copytree(work / "set", secret)
    labels = np.load(secret / "test" / "all__labels.npy")
    labels[0:6:2] = 0  # the first of two tests, in three views
    np.save(secret / "test" / "all__labels.npy", labels)
    with monkeypatch.context() as patched:
        whole = np.load(work / "set" / "test" / "all__labels.npy").astype(np.int32)
        n = len(whole)
        right = Answers(whole, np.ones(n, np.int32), np.ones(n, bool), np.zeros((n, 2), np.float32))
        patched.setattr(accuracy, "answer_all", lambda *_, **__: right)
        code, out, _ = run(capsys, "arc", work / "r", "--data", secret, "--json")
        told = json.loads(out)
        assert [told[name] for name in ("answers", "unlabelled", "single", "pass@1")] == [18, 3, 1.0, 1.0]
    assert "3 of the answers have no known output" in run(capsys, "arc", work / "r", "--data", secret)[1]
    out = run(capsys, "eval", work / "r", "--data", secret / "test")[1]
    assert "3 of 18 puzzles have no known answer" in out
    np.save(secret / "test" / "all__labels.npy", np.zeros_like(labels))
    code, out, _ = run(capsys, "arc", work / "r", "--data", secret, "--json")
    assert (code, json.loads(out)["single"], json.loads(out)["pass@2"]) == (0, None, None)

    refused = {
        ("eval", work / "r", "--data", secret / "test"): "no puzzle of test has a label",
        ("eval", work / "r"): "give some with --data",
        ("eval", work / "r", "--data", work / "set" / "test", "--halt", "verified"): "cannot be verified",
        ("eval", work / "r", "--data", work / "set" / "test", "--retries", "2"): "which of several attempts",
        ("data", "generate", "--task", "arc-4x4", "-o", work / "x.csv"): "cannot be generated",
        ("arc", work / "r", "--data", work / "set" / "test"): "identifiers.json",
        ("train", "--task", "arc-4x4", "--steps", "1", "-o", work / "y"): "cannot be generated",
        ("arc", "nowhere", "--data", "nowhere", "-o", file / "x.json"): "submission.json is no folder",
        ("arc", "nowhere", "--data", "nowhere", "-o", work): "is a folder; name a file",
        (*data[:-1], file / "set"): "submission.json is no folder",
        ("data", "arc", "--task", "sudoku", "-o", work / "z"): "expected arc",
        ("data", "arc", "--task", "arc-1x1", "--data", work / "json", "-o", work / "z"): "no evaluation task fits",
    }
    for arguments, said in refused.items():
        code, _, err = run(capsys, *arguments)
        assert code == 2, arguments
        last = err.strip().splitlines()[-1]
        assert last.startswith("hrm-edge: ")
        assert said in last, arguments
