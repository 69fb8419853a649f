"""Equivalence of boards: every symmetry is found again, and brute force agrees on what is equivalent."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.tasks import get_task

TASKS = ("sudoku-4x4", "sudoku-6x6", "sudoku-6x6-3x2", "sudoku-8x8", "sudoku", "maze-9x9", "maze-7x11")


@pytest.fixture(scope="module")
def puzzles():
    return {name: generate_puzzles(get_task(name), 6, 3, "easy", processes=1) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
@given(seed=st.integers(0, 2**32), row=st.integers(0, 5), solved=st.booleans())
@settings(max_examples=15)
def test_a_turned_board_is_recognised(puzzles, name, seed, row, solved):
    task, question, answer = get_task(name), puzzles[name].questions[row], puzzles[name].answers[row]
    board = answer if solved else question
    turned = task.symmetries(np.random.default_rng(seed), 1)[0].apply(board)
    assert task.fingerprints(board[None]) == task.fingerprints(turned[None])
    found = task.find_symmetry(board, turned)
    assert np.array_equal(found.apply(board), turned)
    # It must also be a symmetry, not any shuffling of cells: right answers stay right.
    assert task.verify(found.apply(question)[None], found.apply(answer)[None]).all()


@pytest.mark.parametrize("name", TASKS)
def test_different_puzzles_are_told_apart(puzzles, name):
    task, questions = get_task(name), puzzles[name].questions
    assert len(np.unique(task.fingerprints(questions))) == 6
    assert not any(task.find_symmetry(a, b) for a, b in itertools.combinations(questions, 2))


def line_orders(lines, thickness):
    """Every order of lines that keeps bands together, written down without the code under test."""
    bands = [range(k, k + thickness) for k in range(0, lines, thickness)]
    for order in itertools.permutations(bands):
        for inside in itertools.product(*(itertools.permutations(band) for band in order)):
            yield list(itertools.chain(*inside))


def canonical(task, board):
    """The least of all boards that a symmetry makes of int32[S]: try each arrangement, renumber digits in order."""
    grid = board.reshape(task.n, task.n)
    columns = np.array(list(line_orders(task.n, task.box_cols)))
    rows = np.array(list(line_orders(task.n, task.box_rows)))
    sides = [grid, grid.T] if task.box_rows == task.box_cols else [grid]
    boards = np.concatenate(
        [side[rows][:, :, columns].transpose(0, 2, 1, 3).reshape(-1, task.seq_len) for side in sides]
    )
    best = None
    for arranged in np.unique(boards, axis=0).tolist():
        names = {1: 1}
        renamed = [names.setdefault(token, len(names) + 1) for token in arranged]
        best = renamed if best is None else min(best, renamed)
    return tuple(best)


@pytest.mark.parametrize(("name", "boards", "most_clues"), [("sudoku-4x4", 60, 6), ("sudoku-6x6", 6, 4)])
def test_brute_force_agrees(name, boards, most_clues):
    """Boards of few clues, many of which are alike; not puzzles, as symmetry does not ask for one solution."""
    task, rng = get_task(name), np.random.default_rng(1)
    _, answers = task.generate(boards, rng, "easy")
    tokens = np.ones_like(answers)
    for row, clues in enumerate(rng.integers(0, most_clues + 1, boards)):
        kept = rng.choice(task.seq_len, clues, replace=False)
        tokens[row, kept] = answers[row, kept]
    forms = [canonical(task, board) for board in tokens]
    prints = task.fingerprints(tokens)
    assert 1 < len(set(forms)) < boards
    for a, b in itertools.combinations(range(boards), 2):
        same = forms[a] == forms[b]
        assert (task.find_symmetry(tokens[a], tokens[b]) is not None) == same
        assert prints[a] == prints[b] or not same


def test_full_boards_are_told_apart_as_well():
    """They are so regular that colours do not do it. There are two essentially different 4x4 ones."""
    task = get_task("sudoku-4x4")
    answers = generate_puzzles(task, 16, 5, processes=1).answers
    forms = [canonical(task, board) for board in answers]
    assert len(set(forms)) == 2
    for a, b in itertools.combinations(range(16), 2):
        assert (task.find_symmetry(answers[a], answers[b]) is not None) == (forms[a] == forms[b])


def test_equal_fingerprints_are_no_proof():
    """Two boards that colours do not tell apart: the search must, and brute force says it is right."""
    task = get_task("sudoku-4x4")
    first, other = task.parse(".3....3...4114.."), task.parse("4.3..3.4...11...")
    assert task.fingerprints(first[None]) == task.fingerprints(other[None])
    assert canonical(task, first) != canonical(task, other)
    assert task.find_symmetry(first, other) is None


def test_mazes_turn_only_where_the_shape_allows_it():
    square, wide = get_task("maze-9x9"), get_task("maze-7x11")
    board = generate_puzzles(square, 1, 0, processes=1).questions[0]
    quarter = np.rot90(board.reshape(9, 9)).reshape(-1)
    assert np.array_equal(square.find_symmetry(board, quarter).apply(board), quarter)
    oblong = generate_puzzles(wide, 1, 0, processes=1).questions[0]
    half = np.rot90(oblong.reshape(7, 11), 2).reshape(-1)
    assert np.array_equal(wide.find_symmetry(oblong, half).apply(oblong), half)
    moved = np.roll(oblong, 1)
    assert wide.find_symmetry(oblong, moved) is None
