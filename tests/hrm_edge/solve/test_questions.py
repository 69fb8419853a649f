"""Puzzles as Python has them: every way to ask says the same, and what could be read in two ways is refused."""

import numpy as np
import pytest
import toys

import hrm_edge as he
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.solve.questions import questions_of
from hrm_edge.tasks import get_task

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASK = toys.TASK
PUZZLES = toys.unique_puzzles()
LINES = [TASK.format(row) for row in PUZZLES]
ANSWERS = [TASK.format(TASK.solve(row)) for row in PUZZLES]
DIGITS = PUZZLES - 1  # a Sudoku's blank is token 1 and digit 0, its 1 token 2


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "host": toys.write_toy_bundle(folder / "host"),
        "graph": toys.write_toy_bundle(folder / "graph", loop="graph"),
        "three": toys.write_toy_bundle(folder / "three", batch=3),
    }


@pytest.fixture(scope="module")
def model(bundles):
    return he.load(bundles["host"])


BOARDS = DIGITS.reshape(-1, 4, 4)
ONE = {
    "text": LINES[0],
    "drawn": TASK.render(PUZZLES[0]),
    "a list of one text": [LINES[0]],
    "rows of text": [LINES[0][row : row + 4] for row in range(0, 16, 4)],
    "cells of text": list(LINES[0]),
    "digits": DIGITS[0].tolist(),
    "rows of digits": BOARDS[0].tolist(),
    "tuples": tuple(map(tuple, BOARDS[0].tolist())),
    "an array": DIGITS[0],
    "an array of rows": BOARDS[0].astype(np.uint8),
    "a batch of one": DIGITS[:1],
    "None for a blank": [[None if cell == 0 else cell for cell in row] for row in BOARDS[0].tolist()],
    "an array of symbols": np.array(list(LINES[0])).reshape(4, 4),
    "an array of masked solutions": np.ma.array(
        [TASK.solve(PUZZLES[0]) - 1], mask=[DIGITS[0] == 0], fill_value=3, dtype=np.int8
    ),
    "NumPy's numbers beside None": [None if cell == 0 else np.int64(cell) for cell in DIGITS[0]],
    "an array of objects": np.array([[None if cell == 0 else int(cell) for cell in row] for row in BOARDS[0]]),
}


@pytest.mark.parametrize("way", ONE)
def test_one_puzzle_in_every_way(model, way):
    assert model.solve(ONE[way]).text == ANSWERS[:1]
    assert model.trace(ONE[way]).text[-1] == ANSWERS[0]


MANY = {
    "texts": LINES,
    "a text of lines": "\n".join(LINES),
    "an array of texts": np.array(LINES),
    "a column of a table": np.array(LINES, object),
    "lists": DIGITS.tolist(),
    "lists of rows": BOARDS.tolist(),
    "an array": DIGITS,
    "arrays": list(BOARDS),
    "an array of rows": BOARDS.astype(np.int64),
    "rows of text": [[line[row : row + 4] for row in range(0, 16, 4)] for line in LINES],
    "a puzzle set": PuzzleSet(TASK, PUZZLES, None, ["made"] * len(PUZZLES), "made"),
}


@pytest.mark.parametrize("way", MANY)
@pytest.mark.parametrize("kind", ["host", "graph", "three"])
def test_many_are_answered_as_each_alone(bundles, way, kind):
    solved = he.solve(bundles[kind], MANY[way])
    assert solved.text == ANSWERS
    assert [one.number for one in solved] == [1, 2, 3, 4]


def test_tokens_are_tokens_when_they_are_said_to_be(model):
    for way in (PUZZLES, PUZZLES.reshape(-1, 4, 4), PUZZLES.tolist()):
        solved = model.solve(way, tokens=True)
        assert solved.text == ANSWERS
        assert np.array_equal(solved.questions, PUZZLES)


def test_files_and_texts_and_data(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("\n".join(LINES[1:3]))
    assert model.solve("p.txt").text == ANSWERS[1:3]
    assert model.solve(tmp_path / "p.txt").text == ANSWERS[1:3]
    assert model.solve(["p.txt", LINES[0]]).text == [*ANSWERS[1:3], ANSWERS[0]]
    assert model.solve(LINES[0], data="p.txt").text == ANSWERS[:3]
    assert model.solve(DIGITS[:1], data="p.txt").text == ANSWERS[:3]
    assert model.solve(data="p.txt").text == ANSWERS[1:3]


def test_rows_of_which_one_is_a_file_are_not_guessed_about(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [LINES[0][i : i + 4] for i in range(0, 16, 4)]
    assert model.solve(rows).text == ANSWERS[:1]
    (tmp_path / rows[1]).write_text(LINES[1])
    with pytest.raises(InputError, match=r"are the rows of one board, but .* is a file here too; join the rows"):
        model.solve(rows)
    assert model.solve("\n".join(rows)).text == ANSWERS[:1]


FULL = DIGITS[0].copy()
FULL[FULL == 0] = 1
REFUSED = {
    "nothing": (None, {}, "no puzzle given"),
    "no puzzles": ([], {}, "no puzzle given"),
    "tokens not said to be": (
        PUZZLES,
        {},
        "is no digit of sudoku-4x4 (0 to 4); if these are tokens, say tokens=True",
    ),
    "either": (
        TASK.solve(PUZZLES[0]) - 1,
        {},
        "can be read in two ways: as tokens (say tokens=True), or as digits",
    ),
    "one of them either": ([DIGITS[0], FULL], {}, "puzzle 2 can be read in two ways"),
    "padding": (DIGITS, {"tokens": True}, "token 0 of puzzle 0, cell"),
    "text as tokens": (LINES[0], {"tokens": True}, "a text has no tokens"),
    "floats": (DIGITS.astype(float), {}, "puzzles can not be float64"),
    "truths": (DIGITS > 0, {}, "puzzles can not be bool"),
    "a negative": (DIGITS - 5, {}, "is no digit"),
    "too short": (DIGITS[:, :15], {}, "not [4, 15]"),
    "a number": (7, {}, "not []"),
    "unlike rows": ([[1, 2], [3]], {}, "puzzles can not be list"),
    "a dictionary": ({"puzzle": LINES[0]}, {}, "puzzles can not be dict"),
    "bytes": (LINES[0].encode(), {}, "puzzles can not be bytes"),
    "a text and an array": ([LINES[0], DIGITS[0]], {}, "a list of texts and of something else"),
    "no solution": ("12..3..4........", {}, "the puzzle has no solution"),
    "two of a kind": ([LINES[0], "11.............."], {}, "puzzle 2: not a sudoku-4x4 puzzle: two 1s in row 1"),
    "a wrong symbol": ([["1", "x", None, None], *[[None] * 4] * 3], {}, "puzzle 1: "),
    "another task's": (generate_puzzles(he.get_task("sudoku-6x6"), 1, seed=0), {}, "holds sudoku-6x6 puzzles"),
    "identifiers of a text": (LINES[0], {"puzzle_identifiers": [0]}, "files have their own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_read_or_be_read_in_two_ways_is_refused(model, case):
    puzzles, options, said = REFUSED[case]
    with pytest.raises(he.InputError) as raised:
        model.solve(puzzles, **options)
    assert said in str(raised.value)
    with pytest.raises(he.InputError):
        model.trace(puzzles, **options)


def test_a_board_without_a_blank_is_read_as_it_is_said(model):
    whole = TASK.solve(PUZZLES[0])
    assert model.solve(whole - 1, tokens=False).text == [TASK.format(whole)]
    assert model.solve(whole, tokens=True).text == [TASK.format(whole)]


def test_digits_above_nine_and_symbols_that_are_no_digits():
    from hrm_edge.solve.questions import questions_of

    def read(puzzles, task, **options):
        return np.concatenate([rows.questions for rows in questions_of(puzzles, task, **options)])

    large = he.get_task("sudoku-16x16")
    board = large.parse("G" + "." * 255)
    assert np.array_equal(read([16] + [0] * 255, large), board[None])
    maze = he.get_task("maze-5x5")
    question = maze.parse("S...G" + "." * 20)
    assert np.array_equal(read(question, maze), question[None])  # numbers are tokens where no digits are
    with pytest.raises(he.InputError, match="has no digits"):
        read(question, maze, tokens=False)
    with pytest.raises(he.InputError, match="padding"):
        read([0] * 25, maze)


def test_what_is_asked_by_example_must_say_that_it_is_tokens():
    """A grid of colours 0 to 9 could be taken for tokens."""
    from hrm_edge.solve.questions import questions_of

    task = he.get_task("arc-6x6")
    grid = np.arange(36).reshape(6, 6) % 10
    for asked in (grid, grid.tolist(), [[1, None], [2, 3]]):
        with pytest.raises(he.InputError, match=r"asked by example: pass task.encode\(grid\) with tokens=True"):
            questions_of(asked, task)
    (rows,) = questions_of(task.encode(grid), task, tokens=True, puzzle_identifiers=3)
    assert np.array_equal(task.decode(rows.questions[0]), grid)
    assert rows.identifiers.tolist() == [3]


@pytest.mark.parametrize("identifiers", [[0], [0, 0, 0], [[0, 0]], [0.0, 0.0], ["a", "b"]])
def test_identifiers_are_one_for_each_board(model, identifiers):
    with pytest.raises(he.InputError, match="must be a whole number for each of 2 boards"):
        model.solve(DIGITS[:2], puzzle_identifiers=identifiers)


def test_arc_is_asked_with_identifiers():
    arc = get_task("arc-3x3")
    with pytest.raises(he.InputError, match="puzzle_identifiers"):
        questions_of(np.full((1, arc.seq_len), 2), arc, tokens=True)
