"""The example's timetables: one answer each, learned from as a folder, and answered by the model that ships."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import hrm_edge
from hrm_edge.cli import main

SCRIPT = Path(__file__).parents[2] / "examples" / "timetable" / "timetable.py"
SIDE = 5
TINY = (
    *("arch.hidden_size=8", "arch.L_cycles=2", "arch.trained_cycles=2", "arch.halt_max_steps=64"),
    *("train.compile=false", "train.final_puzzles=5", "train.batch_size=4"),
)


@pytest.fixture(scope="module")
def timetable():
    spec = importlib.util.spec_from_file_location("timetable", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sets(timetable, tmp_path_factory):
    root = tmp_path_factory.mktemp("timetables")
    timetable.make(root, side=SIDE, total=60, tested=20, seed=0)
    return root


def read(folder):
    """Questions and answers ``[N, SIDE, SIDE]``, -1 for a lesson that is to be filled."""
    parts = (np.load(folder / f"all__{part}.npy").astype(int) - 2 for part in ("inputs", "labels"))
    return [part.reshape(-1, SIDE, SIDE) for part in parts]


def ways(lessons):
    """How many timetables keep these lessons, by trying every teacher lesson by lesson."""
    holes = np.argwhere(lessons < 0)
    if not len(holes):
        return 1
    row, col = holes[0]
    total = 0
    for teacher in set(range(SIDE)) - set(lessons[row]) - set(lessons[:, col]):
        tried = lessons.copy()
        tried[row, col] = teacher
        total += ways(tried)
    return total


def hrm_edge_command(*arguments):
    try:
        main([*map(str, arguments)])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.parametrize("part", ["test", "train"])
def test_every_timetable_is_the_only_one_with_its_fixed_lessons(sets, part):
    questions, answers = read(sets / part)
    assert len(questions) == (20 if part == "test" else 40)
    assert (np.sort(answers, axis=1) == np.arange(SIDE)[:, None]).all(), "each teacher once a class"
    assert (np.sort(answers, axis=2) == np.arange(SIDE)).all(), "each teacher in one place at a time"
    assert ((questions == answers) | (questions == -1)).all()
    for question in questions[:10]:
        assert ways(question) == 1
        fixed = np.argwhere(question >= 0)
        question[tuple(fixed[0])] = -1
        assert ways(question) > 1, "a lesson that is fixed is needed"


def test_none_is_in_two_sets(sets):
    rows = [tuple(row.ravel()) for part in ("test", "train") for row in read(sets / part)[0]]
    assert len(set(rows)) == len(rows)


def test_the_exact_solver(timetable, sets, capsys):
    timetable.compare(sets / "test", [], None)
    assert "| exact solver | 100.0% | 0.0% | 0.0% | 0.00 |" in capsys.readouterr().out
    assert timetable.Timetables(3).solve([0, 1, -1, -1, -1, 2, *[-1] * 3]) is None


def test_a_folder_of_them_is_learned_from_and_the_search_alone_answers(timetable, sets, tmp_path, capsys):
    pytest.importorskip("torch")
    settings = [part for setting in TINY for part in ("--set", setting)]
    learned = ("train", "--data", sets / "train", "--preset", "deduce", "--steps", 2, "-o", tmp_path / "run")
    assert hrm_edge_command(*learned, *settings) == 0
    timetable.variant(tmp_path / "run" / "checkpoint", tmp_path / "silent", search_steps=8, silent=True)
    capsys.readouterr()
    timetable.compare(sets / "test", [tmp_path / "silent"], None)
    assert re.search(r"^\| silent \| 100.0% \| 0.0% \| 0.0% \|", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("search_steps", [0, 32])
def test_the_one_that_ships_answers(timetable, tmp_path, search_steps):
    pytest.importorskip("torch")
    timetable.variant(SCRIPT.parent / "timetable-10x10", tmp_path / "model", search_steps, silent=False)
    model, maker, rng = (
        hrm_edge.load(tmp_path / "model", threads=1),
        timetable.Timetables(10),
        np.random.default_rng(1),
    )
    puzzles = [maker.puzzle(rng) for _ in range(4)]
    letters = np.array(list("ABCDEFGHIJ."))
    solved = model.solve(["".join(letters[fixed]) for fixed, _, _ in puzzles])
    for text, (fixed, answer, _) in zip(solved.text, puzzles, strict=True):
        assert text == "".join(letters[answer])
        assert all(
            sorted(line) == list("ABCDEFGHIJ") for line in (text[row : row + 10] for row in range(0, 100, 10))
        )
        assert all(sorted(text[col::10]) == list("ABCDEFGHIJ") for col in range(10))
        assert all(
            lesson in (symbol, -1) for symbol, lesson in zip(map("ABCDEFGHIJ".index, text), fixed, strict=True)
        )
