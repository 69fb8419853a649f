"""Boards as they are drawn: every symbol in its place, what is wrong marked, and a legend."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hrm_edge.report.boards import board_legend, board_svg
from hrm_edge.tasks import get_task


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6", "sudoku-9x9", "sudoku-16x16", "maze-7x9"])
def test_a_board_shows_every_symbol_in_its_place(name):
    task = get_task(name)
    questions, answers = task.generate(1, np.random.default_rng(1))
    wrong = answers[0].copy()
    cell = int(np.flatnonzero(questions[0] == task.blank)[0])
    wrong[cell] = 0
    sides = {"reference": (answers[0], []), "candidate": (wrong, [cell])}
    puzzle = {"question": task.format(questions[0])}
    puzzle |= {side: {"answer": task.format(a), "wrong": w} for side, (a, w) in sides.items()}
    root = ElementTree.fromstring(board_svg(task, puzzle, "candidate", "a <b> & c"))
    assert root.find("title").text == "a <b> & c"
    shown = {}
    for text in root.iter("text"):
        places = zip(text.get("x").split(), text.get("y").split(), text.text, strict=True)
        for x, y, symbol in places:
            shown[(float(y) - 7.9) / 10 * task.cols + (float(x) - 5) / 10] = (symbol, text.get("class"))
    assert shown.pop(cell) == ("?", "bad")
    drawn = "SG" if name.startswith("maze") else "".join(task.vocabulary[1:])
    for place, (symbol, kind) in shown.items():
        assert symbol == puzzle["candidate"]["answer"][round(place)]
        assert (kind == "given") == (questions[0][round(place)] != task.blank)
    assert len(shown) == sum(symbol in drawn for symbol in puzzle["candidate"]["answer"])
    column, row = cell % task.cols, cell // task.cols
    hit = next(path.get("d") for path in root.iter("path") if path.get("class") == "hit")
    assert hit == f"M{10 * column} {10 * row}h10v10h-10z"


def test_the_legend_of_a_maze_names_its_ends_and_its_path():
    legend = ElementTree.fromstring(f"<ul>{board_legend(get_task('maze-5x5'))}</ul>".replace("&ensp;", " "))
    assert ["".join(item.itertext()) for item in legend] == ["S start", "G goal", "path"]
    assert legend[2][0].get("class") == "key way"
