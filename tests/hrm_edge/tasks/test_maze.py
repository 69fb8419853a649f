"""Mazes: exactly one shortest path is the right answer, whatever the shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task

SMALL = """\
S....
.###.
.#.#.
.#.#.
....G"""
NAMES = ["maze-5x5", "maze-9x14", "maze-15x15"]


def mazes(name, count=4, difficulty="ordinary", seed=0):
    task = get_task(name)
    return task, *task.generate(count, np.random.default_rng(seed), difficulty)


def answered(task, path_text):
    return task.parse(path_text)[None]


def test_vocabulary_and_positions():
    task = get_task("maze-9x14")
    assert task.vocabulary[1:] == ("#", " ", "S", "G", "o")
    assert (task.seq_len, task.vocab_size, task.n_positions) == (126, 6, 23)
    assert task.position_ids[:, 14].tolist() == [1, 9]
    assert task.groups is None


@pytest.mark.parametrize("name", NAMES)
def test_generated_mazes_have_one_shortest_path(name):
    task, questions, answers = mazes(name)
    assert task.verify(questions, answers).all()
    for question, answer in zip(questions, answers, strict=True):
        task.check_question(question)
        assert np.array_equal(task.solve(question), answer)


@pytest.mark.parametrize(("difficulty", "bound"), [("ordinary", 110), ("hard", 150), ("125", 125)])
def test_paths_are_longer_than_asked(difficulty, bound):
    task, questions, answers = mazes("maze-30x30", 3, difficulty)
    assert all(task.rating(q, a) > bound for q, a in zip(questions, answers, strict=True))


def test_too_long_a_path_ends_with_an_error():
    with pytest.raises(InputError, match="shorter path or a larger maze"):
        mazes("maze-9x9", 1, "60")
    with pytest.raises(InputError, match="number of moves"):
        mazes("maze-9x9", 1, "endless")


def test_either_shortest_path_is_right_and_nothing_else():
    task = get_task("maze-5x5")
    question = task.parse(SMALL)[None]
    for right in ("Soooo .###o .#.#o .#.#o ....G", "S.... o###. o#.#. o#.#. ooooG"):
        assert task.verify(question, answered(task, right.replace(" ", "\n")))[0]
    for wrong in (
        "S.... .###. .#.#. .#.#. ....G",  # no path
        "Soooo .###o .#.#. .#.#o ....G",  # a gap
        "Soooo .###o .#o#o .#.#o ....G",  # a stray mark
        "Soooo o###o o#.#o o#.#o ooooG",  # both
        "Soooo .###o .#.#o .#.#o ....S",  # another goal
        "Soooo .o##o .#.#o .#.#o ....G",  # through a wall
    ):
        assert not task.verify(question, answered(task, wrong.replace(" ", "\n")))[0]


def test_a_detour_is_not_shortest():
    task = get_task("maze-5x5")
    question = task.parse("S.G..\n.....\n.....\n.....\n.....")[None]
    assert task.verify(question, answered(task, "SoG..\n.....\n.....\n.....\n....."))[0]
    assert not task.verify(question, answered(task, "S.G..\nooo..\n.....\n.....\n....."))[0]


def test_a_walled_in_start_has_no_answer():
    task = get_task("maze-5x5")
    question = task.parse("S#...\n##...\n.....\n.....\n....G")
    assert task.solve(question) is None
    assert not task.verify(question[None], question[None])[0]


@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=15)
def test_a_changed_cell_never_verifies(seed, data):
    task, questions, answers = mazes("maze-9x14", 1, seed=seed)
    cell = data.draw(st.integers(0, task.seq_len - 1))
    token = data.draw(st.integers(0, 5).filter(lambda t: t != answers[0, cell]))
    wrong = answers.copy()
    wrong[0, cell] = token
    assert not task.verify(questions, wrong)[0]


@pytest.mark.parametrize(("name", "count"), [("maze-15x15", 8), ("maze-9x14", 4)])
def test_symmetries_keep_answers_right_and_invert(name, count):
    task, questions, answers = mazes(name, 8)
    rng = np.random.default_rng(0)
    assert task.verify(*task.augment(rng, questions, answers)).all()
    boards = set()
    for symmetry in task.symmetries(rng, 60):
        moved = symmetry.apply(questions)
        boards.add(moved[0].tobytes())
        assert np.array_equal(symmetry.invert(moved), questions)
        assert task.verify(moved, symmetry.apply(answers)).all()
    assert len(boards) == count


@pytest.mark.parametrize("name", NAMES)
def test_text_round_trips(name):
    task, questions, answers = mazes(name)
    for question, answer in zip(questions, answers, strict=True):
        assert np.array_equal(task.parse(task.format(question)), question)
        assert np.array_equal(task.parse(task.render(question)), question)
        assert np.array_equal(task.parse(task.render(question, answer)), answer)
    for separator in ("\n", "\n\n"):
        assert np.array_equal(task.parse_many(separator.join(task.render(q) for q in questions)), questions)
        assert np.array_equal(task.parse_many(separator.join(task.format_many(questions))), questions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S" * 24, "maze has 24 characters, expected 25 (5 rows of 5)"),
        (SMALL.replace(".###.", ".###"), "row 2 of the maze has 4 characters, expected 5"),
        (SMALL.replace("G", "x"), "'x' at position 25 (row 5, column 5)"),
    ],
)
def test_unreadable_mazes_are_explained(text, message):
    task = get_task("maze-5x5")
    with pytest.raises(InputError) as error:
        task.parse(text)
    assert message in str(error.value)
    with pytest.raises(InputError, match=r"^line 1: "):
        task.parse_many(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.replace("S", "."), "the maze has no start 'S'"),
        (SMALL.replace("##.", "##G"), "2 cells marked goal 'G'"),
        (SMALL.replace("S.", "So"), "already has a path: 'o' at position 2 (row 1, column 2)"),
    ],
)
def test_contradictions_are_named(text, message):
    task = get_task("maze-5x5")
    with pytest.raises(InputError) as error:
        task.check_question(task.parse(text))
    assert message in str(error.value)
