"""Sudoku: rules, text, symmetries, and the generator, on several box shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.sudoku.generator import DIFFICULTIES

NAMES = ["sudoku-4x4", "sudoku-6x6", "sudoku-6x6-3x2", "sudoku-9x9"]
LINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


def puzzles(name, count=3, seed=0):
    task = get_task(name)
    return task, *task.generate(count, np.random.default_rng(seed))


def boards(task):
    """Any tokens a question may hold, contradictory or not."""
    cells = st.lists(st.integers(1, task.vocab_size - 1), min_size=task.seq_len, max_size=task.seq_len)
    return cells.map(lambda c: np.array(c, np.int32))


def test_names_and_aliases_give_one_object():
    assert get_task("sudoku") is get_task("sudoku-9x9") is get_task("sudoku-9x9-3x3") is get_task(" SUDOKU ")
    assert get_task("sudoku-6x6") is get_task("sudoku-6x6-2x3")
    assert get_task("sudoku-6x6-3x2") is not get_task("sudoku-6x6")


@pytest.mark.parametrize(
    "name", ["chess", "sudoku-6x9", "sudoku-5x5", "sudoku-6x6-2x2", "sudoku-25x25", "maze-3x9", ""]
)
def test_unknown_tasks_are_refused_in_one_line(name):
    with pytest.raises(InputError) as error:
        get_task(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_describes_its_board(name):
    task = get_task(name)
    n = task.rows
    assert (task.seq_len, task.vocab_size, task.n_positions) == (n * n, n + 2, 3 * n)
    assert task.position_ids.shape == (3, n * n)
    assert task.groups.shape == (3 * n, n)
    assert np.array_equal(np.bincount(task.groups.ravel()), np.full(n * n, 3))
    # The ids of rows, columns and boxes do not overlap, and each names n cells.
    assert np.array_equal(np.bincount(task.position_ids.ravel()), np.full(3 * n, n))


@pytest.mark.parametrize("name", NAMES)
def test_generated_puzzles_have_exactly_one_solution(name):
    task, questions, answers = puzzles(name, 5)
    assert task.verify(questions, answers).all()
    for question, answer in zip(questions, answers, strict=True):
        assert task.count_solutions(question) == 1
        assert np.array_equal(task.solve(question), answer)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_difficulty_bounds_clues_and_guesses(difficulty):
    task = get_task("sudoku")
    questions, _ = task.generate(2 if difficulty == "extreme" else 8, np.random.default_rng(1), difficulty)
    fewest, most = DIFFICULTIES[difficulty].guesses
    for question in questions:
        assert fewest <= task.rating(question) <= (np.inf if most is None else most)
    low, high = DIFFICULTIES[difficulty].clues
    clues = (questions > 1).sum(axis=1)
    assert (clues >= low).all()
    if difficulty in ("easy", "ordinary"):
        assert (clues <= high).all()


def test_an_extreme_puzzle_can_spare_no_given():
    task = get_task("sudoku")
    question = task.generate(1, np.random.default_rng(3), "extreme")[0][0]
    for cell in np.flatnonzero(question > 1):
        fewer = question.copy()
        fewer[cell] = 1
        assert task.count_solutions(fewer) == 2


def test_impossible_difficulties_end_with_an_error():
    with pytest.raises(InputError, match="choose another"):
        get_task("sudoku-4x4").generate(1, np.random.default_rng(0), "extreme")
    with pytest.raises(InputError, match="choose one of easy"):
        get_task("sudoku").generate(1, np.random.default_rng(0), "brutal")


# -- rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=25)
def test_a_changed_cell_never_verifies(name, data):
    task, questions, answers = puzzles(name, 1)
    cell = data.draw(st.integers(0, task.seq_len - 1))
    token = data.draw(st.integers(0, task.vocab_size + 1).filter(lambda t: t != answers[0, cell]))
    wrong = answers.copy()
    wrong[0, cell] = token
    assert not task.verify(questions, wrong)[0]


def test_an_answer_must_keep_the_givens():
    task, questions, answers = puzzles("sudoku")
    values = np.array([0, 1, 3, 2, *range(4, 11)], np.int32)  # swaps two digits: still a valid board
    assert task.verify(np.ones_like(questions), values[answers]).all()
    assert not task.verify(questions, values[answers]).any()


def test_verify_reads_each_row_by_itself():
    task, questions, answers = puzzles("sudoku", 4)
    mixed = answers.copy()
    mixed[[1, 3], 0] = mixed[[1, 3], 1]
    assert task.verify(questions, mixed).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({(2, 1): "5", (2, 6): "5"}, "two 5s in row 3 (columns 2 and 7)"),
        ({(0, 4): "7", (8, 4): "7"}, "two 7s in column 5 (rows 1 and 9)"),
        ({(3, 3): "1", (4, 5): "1"}, "two 1s in box 5 (row 4, column 4 and row 5, column 6)"),
        ({(0, 0): "9", (0, 3): "9", (0, 8): "9"}, "three 9s in row 1 (columns 1, 4 and 9)"),
    ],
)
def test_contradictions_are_named(cells, message):
    task = get_task("sudoku")
    question = task.parse("".join(cells.get(divmod(cell, 9), ".") for cell in range(81)))
    with pytest.raises(InputError) as error:
        task.check_question(question)
    assert str(error.value) == message
    assert task.solve(question) is None


@pytest.mark.parametrize("tokens", [np.ones(80, np.int32), np.full(81, 11), np.zeros(81, np.int32)])
def test_a_question_must_have_the_right_shape_and_tokens(tokens):
    with pytest.raises(InputError):
        get_task("sudoku").check_question(tokens)


# -- text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=25)
def test_text_round_trips(name, data):
    task = get_task(name)
    tokens = data.draw(boards(task))
    assert np.array_equal(task.parse(task.format(tokens)), tokens)
    assert np.array_equal(task.parse(task.render(tokens)), tokens)
    assert task.format_many(tokens[None]) == [task.format(tokens)]
    assert np.array_equal(task.parse_lines([task.format(tokens)])[0], tokens)


@pytest.mark.parametrize("blank", list(".0*_-"))
def test_every_usual_blank_is_read(blank):
    task = get_task("sudoku")
    assert task.format(task.parse(LINE.replace(".", blank))) == LINE
    grid = "\n".join(LINE[row : row + 9] for row in range(0, 81, 9)).replace(".", blank)
    assert task.format(task.parse(grid)) == LINE


def test_a_row_of_dashes_is_blank_only_without_other_blanks():
    task = get_task("sudoku")
    rows = ["---------", *["-1-------"] * 8]
    assert task.format(task.parse("\n".join(rows))) == "." * 9 + ".1......." * 8
    ruled = task.render(task.parse(LINE)).replace("------+-------+------", "---------------------")
    assert task.format(task.parse(ruled)) == LINE


def test_rulers_of_other_programs_are_read():
    task = get_task("sudoku")
    plain = task.render(task.parse(LINE))
    for old, new in (("|", "│"), ("+", "┼"), ("-", "─")):
        plain = plain.replace(old, new)
    framed = "┌───────┐\n" + "\n".join(f"│ {line} │" for line in plain.splitlines()) + "\n╚═══════╝"
    assert task.format(task.parse(framed)) == LINE
    assert task.format(task.parse(", ".join(LINE))) == LINE


def test_a_long_line_that_is_nearly_a_ruler_is_refused_at_once():
    """The pattern of rulers matches in one way only: in several it took years for such a line."""
    with pytest.raises(InputError, match="401 characters"):
        get_task("sudoku").parse("─-" * 400 + "x")


def test_larger_alphabets_use_letters():
    task = get_task("sudoku-16x16")
    text = "123456789ABCDEFg" + "." * 240
    assert task.parse(text)[:16].tolist() == list(range(2, 18))
    with pytest.raises(InputError, match=r"'H' at position 1 .* 1-9 A-G"):
        task.parse("H" + text[1:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINE[:80], "puzzle has 80 characters, expected 81"),
        ("", "puzzle has 0 characters, expected 81"),
        (LINE[:11] + "x" + LINE[12:], "'x' at position 12 (row 2, column 3) is not a digit 1-9 or a blank"),
        (LINE[:80] + "５", "'５' at position 81 (row 9, column 9)"),
    ],
)
def test_unreadable_puzzles_are_explained(text, message):
    with pytest.raises(InputError) as error:
        get_task("sudoku").parse(text)
    assert message in str(error.value)


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(text):
    task = get_task("sudoku-4x4")
    for read in (task.parse, task.parse_many):
        try:
            read(text)
        except InputError as error:
            assert "\n" not in str(error)


def test_a_text_of_many_puzzles_may_mix_layouts():
    task, questions, _ = puzzles("sudoku", 4)
    lines = task.format_many(questions)
    assert np.array_equal(task.parse_many("# a comment\n" + "\n".join(lines) + "\n"), questions)
    mixed = "\n".join([lines[0], task.render(questions[1]), "", task.render(questions[2]), lines[3]])
    assert np.array_equal(task.parse_many(mixed), questions)
    assert task.parse_many("\n\n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LINE}\n\n{LINE[:-1]}", "line 3: puzzle has 80 characters"),
        ("53..7....\n6..195...\n.98....6", "line 3: this row has 8 cells, expected 9"),
        ("53..7....\n6..195...\n", "line 1: puzzle has 18 characters"),
        (f"# note\n{LINE}\n{LINE[:-1]}?", "line 3: '?' at position 81"),
    ],
)
def test_errors_in_a_text_name_the_line(text, message):
    with pytest.raises(InputError) as error:
        get_task("sudoku").parse_many(text)
    assert str(error.value).startswith(message)


def test_render_fills_blanks_from_the_answer():
    task, questions, answers = puzzles("sudoku", 1)
    assert task.render(questions[0], answers[0]) == task.render(answers[0])
    lines = task.render(questions[0]).splitlines()
    assert {len(line) for line in lines} == {21}
    assert len(lines) == 11


# -- symmetries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=20)
def test_symmetries_invert_exactly_whatever_the_tokens(name, seed, data):
    task = get_task(name)
    tokens = data.draw(boards(task))
    tokens[0] = 0  # padding stays padding
    for symmetry in task.symmetries(np.random.default_rng(seed), 4):
        moved = symmetry.apply(tokens)
        assert moved.dtype == np.int32
        assert np.array_equal(symmetry.invert(moved), tokens)
        assert np.array_equal(symmetry.apply(np.stack([tokens, tokens]))[1], moved)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10)
def test_verify_does_not_change_under_symmetry(name, seed):
    task, questions, answers = puzzles(name, 4)
    answers = answers.copy()
    answers[::2, 0] = 2 + (answers[::2, 0] - 1) % task.rows  # every other answer is wrong
    rng = np.random.default_rng(seed)
    expected = task.verify(questions, answers)
    assert expected.tolist() == [False, True] * 2
    assert np.array_equal(task.verify(*task.augment(rng, questions, answers)), expected)
    for symmetry in task.symmetries(rng, 3):
        assert np.array_equal(task.verify(symmetry.apply(questions), symmetry.apply(answers)), expected)


def test_augmentation_draws_one_symmetry_per_row_and_keeps_pairs_together():
    task, questions, answers = puzzles("sudoku", 1)
    many_questions, many_answers = (np.repeat(x, 64, axis=0) for x in (questions, answers))
    moved_questions, moved_answers = task.augment(np.random.default_rng(0), many_questions, many_answers)
    assert moved_questions.dtype == moved_answers.dtype == np.int32
    assert len(np.unique(moved_questions, axis=0)) == 64
    assert ((moved_questions == moved_answers) | (moved_questions == 1)).all()
    assert ((moved_questions > 1).sum(axis=1) == (questions > 1).sum()).all()


def test_only_square_boxes_are_transposed():
    """A row goes to a row or, where boxes are square, to a column; both happen there."""
    for name, expected in (("sudoku", {True, False}), ("sudoku-6x6", {True})):
        task = get_task(name)
        cells, _ = task.sample_symmetries(np.random.default_rng(0), 50)
        first_row = cells[:, : task.rows] // task.rows
        assert set((first_row == first_row[:, :1]).all(axis=1).tolist()) == expected


# -- shared puzzles ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "test"])
def test_published_puzzles_are_solved_as_published(shared_data, part):
    from hrm_edge.data.puzzles import load_puzzles

    task = get_task("sudoku")
    everything = load_puzzles(shared_data / "sudoku" / f"{part}.csv.gz", task)  # verifies every answer
    some = everything.take(600, seed=0)
    assert set(some.sources) == {"17_clue", "diabolical", "forum_hardest_1905_11+"}
    for question, answer in zip(some.questions, some.answers, strict=True):
        assert np.array_equal(task.solve(question), answer)
        assert task.count_solutions(question) == 1
