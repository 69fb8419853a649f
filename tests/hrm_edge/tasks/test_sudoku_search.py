"""The exact Sudoku search against enumeration, and on boards that are hard to refute."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.tasks import get_task
from hrm_edge.tasks.sudoku.search import SudokuSearch


def all_boards(box_rows, box_cols):
    """Every full board of a size, by the definition of the rules alone: rows are permutations, then filter."""
    n = box_rows * box_cols
    boards = [()]
    for row in range(n):
        longer = []
        for board in boards:
            for candidate in itertools.permutations(range(n)):
                columns_fit = all(candidate[c] != above[c] for above in board for c in range(n))
                top = row - row % box_rows
                boxes_fit = all(
                    candidate[c] != above[k]
                    for above in board[top:]
                    for c in range(n)
                    for k in range(c - c % box_cols, c - c % box_cols + box_cols)
                )
                if columns_fit and boxes_fit:
                    longer.append((*board, candidate))
        boards = longer
    return np.array(boards).reshape(len(boards), n * n)


FOUR = all_boards(2, 2)


def test_the_enumeration_finds_the_known_number_of_boards():
    assert len(FOUR) == 288


@given(st.lists(st.integers(-1, 3), min_size=16, max_size=16))
@settings(max_examples=200)
def test_solution_counts_equal_enumeration_on_any_board(givens):
    check_against_enumeration(givens)


@given(st.integers(0, 287), st.integers(0, 2**16 - 1), st.integers(0, 15), st.integers(0, 3))
@settings(max_examples=300)
def test_solution_counts_equal_enumeration_near_real_puzzles(board, mask, cell, digit):
    """Some cells of a true board, one of them perhaps wrong: 0, 1 or several solutions."""
    givens = [int(d) if mask >> i & 1 else -1 for i, d in enumerate(FOUR[board])]
    check_against_enumeration(givens)
    givens[cell] = digit
    check_against_enumeration(givens)


def check_against_enumeration(givens):
    search = SudokuSearch(2, 2)
    wanted = FOUR[((np.array(givens) == FOUR) | (np.array(givens) < 0)).all(axis=1)]
    found = search.search(search.state(givens), limit=1000).solutions
    assert {tuple(search.digits(solution)) for solution in found} == {tuple(board) for board in wanted.tolist()}
    assert len(found) == len(wanted)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (3, 3), (2, 4), (4, 4)])
def test_a_blank_board_has_a_valid_solution(shape):
    search = SudokuSearch(*shape)
    task = get_task(f"sudoku-{search.n}x{search.n}-{shape[0]}x{shape[1]}")
    result = search.search(search.full)
    answer = np.array(search.digits(result.solutions[0]), np.int32) + 2
    assert task.verify(np.ones((1, search.size), np.int32), answer[None]).all()
    assert len(search.search(search.full, limit=3).solutions) == 3


def test_a_board_without_a_solution_is_refuted_quickly():
    """Known for making solvers run for minutes: no digit repeats, yet nothing fits."""
    task = get_task("sudoku")
    question = task.parse(".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4.........")
    task.check_question(question)
    assert task.rating(question) < 1000
    assert task.solve(question) is None


def test_a_search_can_give_up():
    search = SudokuSearch(3, 3)
    result = search.search(search.full, max_guesses=3)
    assert result.gave_up
    assert (result.guesses, result.solutions) == (3, [])


def test_seventeen_clues_and_the_hardest_known():
    task = get_task("sudoku")
    for line in (
        "000000010400000000020000000000050407008000300001090000300400200050100000000806000",
        "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
    ):
        question = task.parse(line)
        assert task.count_solutions(question) == 1
        assert task.verify(question[None], task.solve(question)[None]).all()
