"""Boards say the same with and without colour, and mark exactly the cells that are at fault."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hrm_edge.tasks import get_task
from hrm_edge.tasks.boards import ASCII, UNICODE, board, glyphs_for, legend, trace_boards, wrong_cells

TASKS = ["sudoku-4x4", "sudoku-6x6", "sudoku-6x6-3x2", "sudoku", "sudoku-16x16", "maze-7x9"]


def puzzle(name):
    task = get_task(name)
    questions, answers = task.generate(1, np.random.default_rng(3), "easy")
    return task, questions[0], answers[0]


def printed(what, **options) -> str:
    console = Console(file=io.StringIO(), highlight=False, width=120, **options)
    console.print(what)
    return console.file.getvalue()


def test_a_board_reads_without_colour():
    task = get_task("sudoku-4x4")
    question, answer = task.parse("12...4.....1.32."), task.parse("1234341.23414321")
    assert board(task, question, answer).plain.splitlines() == [
        "┌──────┬──────┐",
        "│ 1  2 │ 3· 4·│",
        "│ 3· 4 │ 1· .!│",
        "├──────┼──────┤",
        "│ 2· 3!│ 4· 1 │",
        "│ 4· 3 │ 2  1!│",
        "└──────┴──────┘",
    ]
    ascii_board = board(task, question, answer, glyphs=ASCII).plain
    assert ascii_board.isascii()
    assert "| 1  2 | 3' 4'|" in ascii_board


@pytest.mark.parametrize("name", TASKS)
def test_nothing_is_wrong_with_a_solution(name):
    task, question, answer = puzzle(name)
    assert not wrong_cells(task, question, answer).any()
    assert "!" not in board(task, question, answer).plain
    assert not wrong_cells(task, question, question)[question != task.blank].any()


@pytest.mark.parametrize("name", TASKS)
def test_the_plain_board_holds_every_symbol_in_order(name):
    task, question, answer = puzzle(name)
    drawn = board(task, question, answer).plain
    symbols = [character for character in drawn if character not in "┌┬┐├┼┤└┴┘─│·\n"]
    if task.groups is not None:
        symbols = [character for character in symbols if character != " "]
    assert "".join(symbols) == task.format(answer)


@pytest.mark.parametrize("name", TASKS)
def test_colour_adds_only_escape_codes(name):
    task, question, answer = puzzle(name)
    answer = answer.copy()
    answer[0] = task.vocab_size - 1
    plain = printed(board(task, question, answer))
    coloured = printed(board(task, question, answer), force_terminal=True, color_system="standard")
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_givens_and_answers_are_styled_apart():
    task, question, answer = puzzle("sudoku")
    coloured = printed(board(task, question, answer), force_terminal=True, color_system="standard")
    given, empty = np.flatnonzero(question != task.blank)[0], np.flatnonzero(question == task.blank)[0]
    assert f"\x1b[1m{task.vocabulary[answer[given]]}" in coloured
    assert f"\x1b[36m{task.vocabulary[answer[empty]]}·" in coloured


def test_twins_are_marked_and_givens_never():
    task = get_task("sudoku-4x4")
    question = task.parse("12..............")
    answer = task.parse("1214" + "3412" + "2143" + "4321")
    assert np.flatnonzero(wrong_cells(task, question, answer)).tolist() == [2, 6]


def test_a_changed_given_and_a_stray_symbol_are_marked():
    task = get_task("sudoku-4x4")
    question, answer = task.parse("1" + "." * 15), task.parse("2341" + "4123" + "1234" + "3412")
    answer[15] = 0
    wrong = wrong_cells(task, question, answer)
    assert wrong[0]
    assert wrong[15]
    assert "?!" in board(task, question, answer).plain


def test_a_maze_shows_what_was_built_over():
    task, question, answer = puzzle("maze-7x9")
    answer = answer.copy()
    wall, open_cell = np.flatnonzero(question == 1)[0], np.flatnonzero(question == 2)[0]
    answer[wall], answer[open_cell] = 5, 1
    assert np.flatnonzero(wrong_cells(task, question, answer)).tolist() == sorted([wall, open_cell])
    assert board(task, question, answer).plain.count("!") == 2


@pytest.mark.parametrize("name", ["sudoku", "sudoku-4x4", "sudoku-6x6", "sudoku-16x16", "maze-9x9", "maze-5x8"])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@given(data=st.data())
@settings(max_examples=12)
def test_a_drawn_board_is_read_back(name, glyphs, data):
    """Whatever it shows: blanks, answers, mistakes (but not a maze's, which hide a cell), changes."""
    task = get_task(name)
    cells = st.integers(1, task.vocab_size - 1)
    boards = [
        np.array(data.draw(st.lists(cells, min_size=task.seq_len, max_size=task.seq_len)), np.int32)
        for _ in range(3)
    ]
    question, answer, previous = boards
    shown = [(question, board(task, question, glyphs=glyphs))]
    if name.startswith("sudoku"):
        shown.append((answer, board(task, question, answer, glyphs=glyphs)))
        shown.append((answer, board(task, question, answer, previous, glyphs)))
    for tokens, drawn in shown:
        assert np.array_equal(task.parse(drawn.plain), tokens)
    pair = "\n".join(drawn.plain for _, drawn in shown[:2])
    assert np.array_equal(task.parse_many(pair), [tokens for tokens, _ in shown[:2]])
    assert np.array_equal(task.parse_many(pair + "\n\n" + pair), [tokens for tokens, _ in shown[:2]] * 2)


def test_the_legend_names_the_marks_in_use():
    task, question, answer = puzzle("sudoku")
    assert legend(task, question, answer).plain == "5 given   5· answered"
    answer = answer.copy()
    answer[np.flatnonzero(question == task.blank)[0]] = 0
    assert "5! breaks a rule" in legend(task, question, answer).plain
    maze, question, answer = puzzle("maze-7x9")
    assert legend(maze, question, answer).plain == ""


def test_a_trace_marks_what_changed_and_what_breaks_a_rule():
    task, question, answer = puzzle("sudoku-4x4")
    first = answer.copy()
    cells = np.flatnonzero(question == task.blank)
    first[cells[0]], first[cells[1]] = answer[cells[1]], answer[cells[0]]
    text = printed(trace_boards(task, question, np.stack([first, answer])))
    assert f"segment 1: {len(cells)} changed" in text
    changed = int((first != answer).sum())
    assert f"segment 2: {changed} changed" in text
    wrong = int(wrong_cells(task, question, first).sum())
    assert f"segment 1: {len(cells)} changed, {wrong} break a rule" in text
    assert (text.count("!"), text.count("*")) == (wrong, len(cells) - wrong + changed)
    assert wrong


def test_a_cell_that_breaks_a_rule_is_told_whether_it_changed_or_not():
    """By its colour; the mark without colour is that of the rule."""
    task, question, answer = puzzle("sudoku-4x4")
    guess = answer.copy()
    cell = np.flatnonzero(question == task.blank)[0]
    guess[cell] = guess[cell] % 4 + task.blank + 1
    first, second = (board(task, question, guess, previous) for previous in (answer, guess))
    assert first.plain == second.plain == board(task, question, guess).plain
    assert first.plain.count("!") == int(wrong_cells(task, question, guess).sum())
    assert first.spans != second.spans
    assert "changed" not in legend(task, question, guess, previous=guess).plain
    assert "5! breaks a rule, changed" in legend(task, question, guess, previous=answer).plain


@pytest.mark.parametrize(("encoding", "glyphs"), [("utf-8", UNICODE), ("ascii", ASCII), ("cp437", ASCII)])
def test_the_encoding_decides_the_glyphs(encoding, glyphs):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert glyphs_for(Console(file=stream)) is glyphs
