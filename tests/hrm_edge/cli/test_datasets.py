"""The whole way of a dataset that nothing here knows: trained, exported, judged, solved, from its folder alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import write_latin, write_lookup, write_set

from hrm_edge.bundle import open_bundle
from hrm_edge.cli import main
from hrm_edge.data.puzzles import load_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

TINY = ("arch.hidden_size=32", "arch.puzzle_emb_ndim=32", "arch.num_heads=1", "arch.halt_max_steps=2")
TINY += ("arch.H_cycles=1", "arch.L_cycles=1", "train.interleave=2", "train.rollout=2", "train.lr=5e-3")
TINY += ("train.warmup_steps=10", "train.ema_decay=0.9", "train.final_puzzles=50", "train.log_every=1000")


def hrm_edge(*arguments):
    try:
        main([*map(str, arguments)])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def train(*arguments, settings=TINY):
    sets = [part for setting in settings for part in ("--set", setting)]
    return hrm_edge("train", "--preset", "tiny", *arguments, *sets)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory, quick_export):
    """A dataset of 70 tokens in a row of 6, a model that learned it, and its bundle in INT8 with a report."""
    folder = tmp_path_factory.mktemp("made")
    data = write_lookup(folder / "lookup")
    assert train("--data", data, "--steps", 150, "-o", folder / "run") == 0
    told = ("--data", data / "test", "--calibration-data", data / "train", "--gate-puzzles", 200)
    fast = ("--calibration", 16, "--sensitivity", 0)
    assert hrm_edge("export", folder / "run", "--precision", "int8", *told, *fast, "-o", folder / "bundle") == 0
    return folder


@pytest.fixture
def alone(made, tmp_path):
    """The bundle copied to where nothing else is."""
    return shutil.copytree(made / "bundle", tmp_path / "device" / "bundle")


def test_the_checkpoint_carries_its_task(made, tmp_path):
    from hrm_edge.models import load_checkpoint

    folder = shutil.copytree(made / "run" / "checkpoint", tmp_path / "copied")
    opened = load_checkpoint(folder)
    assert opened.task is get_task(str(made / "lookup"))
    assert "held_out" not in opened.metadata
    assert sorted(file.name for file in folder.iterdir()) == [
        "card.md",
        "config.json",
        "model.safetensors",
        "task.json",
    ]
    content = json.loads((folder / "task.json").read_text())
    content["definition"]["symbols"][0] = "one"
    (folder / "task.json").write_text(json.dumps(content))
    assert load_checkpoint(folder).content_hash != opened.content_hash
    (folder / "task.json").unlink()
    with pytest.raises(InputError, match="unknown task 'lookup'"):
        load_checkpoint(folder)


def test_the_bundle_carries_it_too(alone):
    opened = open_bundle(alone)
    assert opened.manifest.task == "lookup"
    assert "task.json" in opened.manifest.files
    assert opened.accuracy.passed
    (alone / "task.json").write_text((alone / "task.json").read_text().replace('"1"', '"9"', 1))
    with pytest.raises(InputError, match="its content was changed"):
        open_bundle(alone)


def test_rows_of_a_folder_are_solved(made, alone, capsys):
    assert hrm_edge("solve", alone, "--data", made / "lookup" / "test", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    puzzles = load_puzzles(made / "lookup" / "test", get_task(str(made / "lookup")))
    assert len(rows) == len(puzzles)
    assert np.mean([row["as_labelled"] for row in rows]) > 0.9
    assert {row["verified"] for row in rows} == {None}
    assert rows[0]["question"] == " ".join(map(str, puzzles.questions[0]))


def test_symbols_are_solved_and_traced(made, alone, capsys):
    puzzles = load_puzzles(made / "lookup" / "test", get_task(str(made / "lookup")))
    text = puzzles.task.format(puzzles.questions[0])
    assert hrm_edge("solve", alone, text) == 0
    out = capsys.readouterr().out
    assert "not judged: nothing but its label tells whether an answer is right, 1 segment" in out
    answered = [cell.strip("·") for cell in out.splitlines()[1].strip("│").split()]
    assert answered == puzzles.task.format(puzzles.answers[0]).split()
    assert hrm_edge("solve", alone, "1 2 3 4 5 700") == 2
    assert "'700' at position 6 is no symbol of lookup" in capsys.readouterr().err
    assert hrm_edge("solve", alone, text, "--retries", 2) == 2
    assert hrm_edge("solve", alone, text, "--halt", "verified") == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("hrm-edge: lookup has no rules") for line in errors] == [True, True]


def test_a_checkpoint_is_traced(made, alone, capsys):
    host = Path("host")
    data = made / "lookup" / "test"
    assert hrm_edge("export", made / "run", "--loop", "host", "--data", data, "--gate-puzzles", 20, "-o", host) == 0
    capsys.readouterr()
    assert hrm_edge("solve", host, "1 2 3 4 5 6", "--trace", "--halt", "fixed") == 0
    assert "segment 2: " in capsys.readouterr().out


def test_it_is_measured_checked_and_tested(made, alone, capsys, tmp_path):
    data = made / "lookup" / "test"
    assert hrm_edge("eval", alone, made / "run", "--data", data, "--by", "segments", "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["exact"] > 0.9
    assert hrm_edge("selftest", alone) == 0
    spec = {"name": "mine", "bundle": alone, "checkpoint": made / "run", "data": data}
    rules = "min_exact = 0.9\nmax_drop = 5\nquantized = true\nn = 100\n"
    (tmp_path / "check.toml").write_text(
        "[[check]]\n" + "".join(f'{key} = "{value}"\n' for key, value in spec.items()) + rules
    )
    assert hrm_edge("check", tmp_path / "check.toml") == 0
    (tmp_path / "check.toml").write_text((tmp_path / "check.toml").read_text().replace(str(data), "generated:9"))
    capsys.readouterr()
    assert hrm_edge("check", tmp_path / "check.toml") == 2
    assert "lookup puzzles cannot be generated" in capsys.readouterr().err


def test_the_report_says_all_by_itself(alone, tmp_path, capsys):
    from hrm_edge.report.build import read_report, render

    report = read_report(alone / "report.json")
    assert report.whole_task.name == "lookup"
    assert hrm_edge("report", alone, "-o", tmp_path / "r.html") == 0
    assert render(read_report(alone / "report.json"), "html") == (tmp_path / "r.html").read_text()
    assert "lookup" in render(report, "md")


def test_what_takes_more_than_a_folder_is_one_line(made, capsys):
    run, data = made / "run", made / "lookup" / "test"
    learn = ("train", "--steps", 1, "-o", "r")
    refused = {
        ("export", run): "names no held-out puzzles to measure accuracy on; give some with --data FILE",
        ("export", run, "--data", data, "--precision", "int8"): "give the training set with --calibration-data",
        ("data", "generate", "--task", made / "lookup", "-o", "x.csv"): "lookup puzzles cannot be generated",
        (*learn, "--task", made / "lookup", "--data", "generated:9"): "cannot be generated; name a folder",
        (*learn, "--data", data): "name the set's test folder",
    }
    for command, why in refused.items():
        assert hrm_edge(*command) == 2
        errors = capsys.readouterr().err.splitlines()
        assert why in errors[-1]
        assert not Path("r").exists()


def test_a_run_goes_on_only_with_its_own_task(tmp_path, capsys):
    data = write_lookup(tmp_path / "set", n=10)
    short = (*TINY, "train.batch_size=4")
    assert train("--task", data, "--steps", 1, "-o", "r", settings=short) == 0
    assert train("--task", data, "--steps", 2, "-o", "r", settings=short) == 0
    (data / "task.toml").write_text('blank = "1"')
    assert train("--task", data, "--steps", 3, "-o", "r", settings=short) == 2
    assert "r: holds another run (task.toml differs)" in capsys.readouterr().err


def test_data_commands_take_the_task_from_a_folder(tmp_path, capsys):
    data = write_latin(tmp_path / "latin")
    assert hrm_edge("data", "show", data / "test", "--n", 1) == 0
    assert "│ " in capsys.readouterr().out
    assert hrm_edge("data", "convert", data / "test", "-o", "p.csv") == 0
    assert hrm_edge("data", "convert", "p.csv", "--task", data, "-o", "again") == 0
    for part in ("inputs", "labels"):
        assert np.array_equal(*(np.load(at / f"all__{part}.npy") for at in (Path("again"), data / "test")))
    assert hrm_edge("data", "overlap", data / "test", "p.csv") == 1
    broken = np.load(data / "test" / "all__labels.npy")
    broken[3, :2] = broken[3, 1::-1]
    np.save(data / "test" / "all__labels.npy", broken)
    capsys.readouterr()
    assert hrm_edge("data", "convert", data / "test", "-o", "q.csv") == 2
    assert "test row 3: the answer " in capsys.readouterr().err


def test_groups_are_verified_with_retries(tmp_path, capsys):
    data = write_latin(tmp_path / "latin")
    assert train("--task", data, "--steps", 2, "-o", "r") == 0
    told = ("--data", data / "test", "--gate-puzzles", 8, "--not-judged", "-o", "b")
    assert hrm_edge("export", "r", *told) == 0
    capsys.readouterr()
    assert hrm_edge("solve", "b", "12342143341243.1", "--halt", "verified", "--retries", 3, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verified"], answer["segments"] > 1) == (answer["answer"] == "1234214334124321", True)
    assert hrm_edge("solve", "b", "11..............") == 2
    assert "not a latin puzzle: '1' stands at position 1" in capsys.readouterr().err


def test_the_graph_verifies_by_the_groups_of_a_dataset(tmp_path):
    import onnxruntime
    import toys
    from toy_graphs import models

    from hrm_edge.exporters.graph.loop import wrap_in_loop

    answers = np.full((1, 16), 2)
    write_set(tmp_path / "mine", answers, answers, 6)
    boxes = 'rows = 4\nsymbols = ".1234"\nblank = "."\ngroups = ["rows", "columns", "boxes 2x2"]'
    (tmp_path / "mine" / "task.toml").write_text(boxes)
    graphs = models("host", "dynamic")
    looped = wrap_in_loop(graphs["start"], graphs["segment"], get_task(str(tmp_path / "mine")), True)
    session = onnxruntime.InferenceSession(looped.SerializeToString(), providers=["CPUExecutionProvider"])
    tokens, limit, halt = toys.puzzles(40), np.array(8, np.int32), np.array(2, np.int32)
    found = session.run(None, {"tokens": tokens.astype(np.int32), "max_think_steps": limit, "halt": halt})
    expected = toys.looped(tokens, limit, halt)
    assert np.array_equal(found[1], expected[1])
    assert len(np.unique(found[1])) > 2


def test_identifiers_of_rows_reach_the_model(tmp_path, capsys):
    """The same question has another answer for each of three identifiers."""
    questions = np.tile(np.arange(1, 7), (90, 1))
    answers = (questions + np.arange(90)[:, None] % 3) % 6 + 1
    for split in ("train", "test"):
        write_set(tmp_path / "moved" / split, questions, answers, 8, identifiers=4)
    names = json.dumps(["<blank>", "a", "b", "c"])
    (tmp_path / "moved" / "identifiers.json").write_text(names)
    assert train("--data", "moved", "--steps", 60, "-o", "r", "--set", "train.puzzle_emb_lr=0.05") == 0
    assert hrm_edge("export", "r", "--data", "moved/test", "--gate-puzzles", 3, "-o", "b") == 0
    capsys.readouterr()
    assert hrm_edge("solve", "b", "--data", "moved/test", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(row["as_labelled"] for row in rows) == 90
