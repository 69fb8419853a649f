"""A task that nothing here knows is drawn, generated, shown, solved and reported once its class is registered."""

import functools
import io
import json
import pickle
import xml.etree.ElementTree as ElementTree

import commands
import numpy as np
import pytest
import toys
from rich.console import Console
from stripes import Stripes, engine

from hrm_edge import tasks
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.report.boards import board_legend, board_svg, board_text
from hrm_edge.report.pages import html_page, markdown_page
from hrm_edge.tasks import get_task, register
from hrm_edge.tasks.boards import ASCII, board, legend, trace_boards, wrong_cells

QUESTION, ANSWER = "a....b..", "aaaabbbb"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(tasks, "_FAMILIES", list(tasks._FAMILIES))
    register(Stripes)
    yield
    get_task.cache_clear()


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return functools.partial(commands.run, capsys)


def coloured(what) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    console.print(what)
    return console.file.getvalue()


@pytest.mark.parametrize("name", [None, 9, b"sudoku", ["sudoku"]])
def test_what_is_no_name_is_refused_in_a_line(name):
    with pytest.raises(InputError, match=r"a task is given by its name or folder, not by [A-Za-z]+$"):
        get_task(name)


def test_names_are_found_and_listed():
    task = get_task(" Stripes-2x4")
    assert task is get_task("stripes-2x4") is pickle.loads(pickle.dumps(task))
    with pytest.raises(InputError, match=r"unknown task 'go'; .*, maze-RxC, .*, stripes-RxC, dyed-RxC$"):
        get_task("go")


def test_by_its_symbols_it_is_drawn_in_its_boxes():
    task = get_task("stripes-2x4")
    question, answer = task.parse(QUESTION), task.parse("aaaabb..")
    answer[7] = 0
    assert board(task, question, answer, glyphs=ASCII).plain.splitlines() == [
        "+------------+",
        "| a  a' a' a'|",
        "+------------+",
        "| b' b  .! ?!|",
        "+------------+",
    ]
    assert np.flatnonzero(wrong_cells(task, question, answer)).tolist() == [6, 7]
    assert legend(task, question, answer).plain == "b given   b· answered   b! breaks a rule"
    assert "2 break a rule" in coloured(trace_boards(task, question, answer[None]))


def test_by_its_colours_it_is_drawn_in_them():
    task = get_task("dyed-2x4")
    question, answer = task.parse(QUESTION), task.parse(ANSWER)
    drawn = board(task, question, answer)
    assert drawn.plain.splitlines() == ["┌────┐", "│aaaa│", "│bbbb│", "└────┘"]
    assert coloured(drawn).count("48;2;18;52;86m") == 4  # a cell of "a" is on #123456
    assert legend(task, question, answer).plain == ""


@pytest.mark.parametrize("name", ["stripes-2x4", "dyed-2x4"])
def test_reports_draw_it(name):
    task = get_task(name)
    sides = {"reference": (ANSWER, []), "candidate": ("aabab?bb", [2, 5])}
    puzzle = {"question": QUESTION} | {side: {"answer": a, "wrong": w} for side, (a, w) in sides.items()}
    root = ElementTree.fromstring(board_svg(task, puzzle, "candidate", "as it is"))
    assert root.get("viewBox") == "-1 -1 42 22"
    fills = [path.get("style") for path in root.iter("path") if path.get("class") == "fill"]
    assert fills == ["fill:#123456"] * (name == "dyed-2x4")
    symbols = "".join(text.text for text in root.iter("text"))
    assert sorted(symbols) == sorted("?" if fills else "aabab?bb")
    assert board_text(task, puzzle, "reference").count("b") == 4
    assert board_legend(task).count("<li>") == 2
    assert ("ink" in board_legend(task)) == (name == "dyed-2x4")


def test_data_makes_and_shows_it(run):
    code, out, _ = run("data", "generate", "--task", "stripes-3x4", "--n", 6, "-o", "p.csv")
    assert (code, out) == (0, "wrote 6 stripes-3x4 puzzles (difficulty ordinary, seed 0) to p.csv\n")
    assert run("data", "convert", "p.csv", "--task", "stripes-3x4", "-o", "set")[0] == 0
    for file in ("p.csv", "set"):
        code, out, _ = run("data", "show", file, "--task", "stripes-3x4", "--n", 1)
        assert code == 0
        assert out.startswith("1. ")
        assert ", rating 9\n" in out
        assert out.count("├────────────┤") == 4
    assert generate_puzzles(get_task("stripes-3x4"), 6, 0).name == "generated-ordinary-seed0-n6"
    code, _, err = run("data", "arc", "--task", "stripes-3x4", "-o", "arc")
    assert (code, err) == (2, "hrm-edge: --task stripes-3x4: expected arc or arc-NxN\n")


def test_solve_answers_it(run, tmp_path, monkeypatch):
    task = get_task("stripes-2x4")
    architecture = {**toys.manifest().architecture, "seq_len": task.seq_len}
    fields = {"task": task.name, "vocabulary": task.vocabulary, "architecture": architecture}
    toys.write_hollow_bundle(tmp_path / "bundle", **fields)
    monkeypatch.setattr("hrm_edge.runtimes.load_engine", lambda *_, **__: engine(task))
    code, out, _ = run("solve", "bundle", QUESTION, "--trace")
    assert code == 0
    assert "segment 2: 6 changed" in out
    assert "│ a  a· a· a·│" in out
    assert "verified, 2 segments" in out
    assert "the puzzle has several solutions" in out
    code, out, err = run("solve", "bundle", "b....b..", "--json")
    assert (code, json.loads(out)["answer"], json.loads(out)["verified"]) == (0, "bbbbbbba", False)
    assert "1 of 1 not verified; --retries 8 thinks again" in err
    code, out, _ = run("solve", "bundle", "b....b..", "--json", "--retries", "1")
    assert json.loads(out)["variant"] == 1
    assert run("solve", "bundle", "....bbbb")[2] == (
        "hrm-edge: not a stripes-2x4 puzzle: a row shows no letter, or two\n"
    )


@pytest.mark.parametrize(("name", "legend"), [("stripes-2x4", "answered"), ("dyed-2x4", "ink")])
def test_a_whole_report_is_written_for_it(monkeypatch, name, legend):
    import sample_report

    task = get_task(name)
    made = task.generate(20, np.random.default_rng(0))
    puzzles = PuzzleSet(task, *made, ["made"] * 20, "made")
    monkeypatch.setattr(sample_report, "PUZZLES", puzzles)
    monkeypatch.setattr(sample_report, "spoiled", lambda row: np.where(np.arange(8) == 3, 5 - row, row))
    manifest = toys.manifest(name="toy-int8", precision="int8", task=name, vocabulary=task.vocabulary)
    report = sample_report.report(manifest=manifest)
    page = html_page(report)
    assert f"{legend}</li>" in page
    assert page.count('class="board ') == 10
    assert "this bundle" in markdown_page(report)
