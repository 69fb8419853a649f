"""The vote over views: against a count by hand, with scripted engines; scores and the submission's format."""

import itertools
import json
import shutil
from collections import defaultdict

import numpy as np
import pytest
from arc_sets import toy_collection
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.arc.augment import parse_name
from hrm_edge.arc.build import build
from hrm_edge.arc.vote import Ballot, count_votes, read_test, score, submission
from hrm_edge.data.public_layout import read_names
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task

TASK = get_task("arc-4x4")


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    path = tmp_path_factory.mktemp("vote") / "set"
    build(toy_collection(), TASK, path, augmentations=4)
    return path, read_test(path, TASK)


@settings(max_examples=40)
@given(data=st.data())
def test_votes_are_those_of_a_count_by_hand(asked, data):
    _, rows = asked
    n = len(rows.tests)
    # Few different grids per test input, so that they meet and tie; some rows answer with no grid at all.
    kinds = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    q = np.array(data.draw(st.lists(st.sampled_from([-3.0, 0.0, 2.0, 400.0, -400.0]), min_size=n, max_size=n)))
    originals = [np.full((1, 1), 1), np.full((2, 3), 1), np.full((2, 3), 2)]
    tokens = np.zeros((n, 16), np.int32)
    counts = defaultdict(lambda: defaultdict(list))
    for row, kind in enumerate(kinds):
        if kind < 3:
            tokens[row] = TASK.encode(rows.views[row].apply(originals[kind]))
            counts[rows.tasks[row], rows.tests[row]][kind].append(q[row])
    ballots = count_votes(rows, tokens, q)
    assert sorted(ballots) == ["bb0", "bb1", "bb2"]
    for name, tests in ballots.items():
        assert len(tests) == 2
        for index, ballot in enumerate(tests):
            by_hand = counts[name, index]
            ranks = {k: (len(v), float(np.mean(1 / (1 + np.exp(-np.array(v)))))) for k, v in by_hand.items()}
            assert len(ballot.candidates) == len(ranks)
            found = [next(k for k in ranks if np.array_equal(originals[k], c.grid)) for c in ballot.candidates]
            got = [ranks[k] for k in found]
            for first, second in itertools.pairwise(got):
                assert first[0] > second[0] or (first[0] == second[0] and first[1] >= second[1] - 1e-12)


def test_a_perfect_model_solves_all_and_one_that_is_right_once_is_outvoted(asked):
    _, rows = asked
    q = np.zeros(len(rows.tests))
    perfect = count_votes(rows, rows.puzzles.answers, q)
    assert (score(perfect, 1), score(perfect, 2)) == (1.0, 1.0)
    assert all(ballot.candidates[0].votes == 5 for tests in perfect.values() for ballot in tests)
    wrong = np.stack([TASK.encode(view.apply(np.full((4, 4), 9))) for view in rows.views])
    first = np.array([view.turn == 0 and view.colours == tuple(range(10)) for view in rows.views])
    outvoted = count_votes(rows, np.where(first[:, None], rows.puzzles.answers, wrong), q)
    assert (score(outvoted, 1), score(outvoted, 2)) == (0.0, 1.0)


def test_half_of_a_task_counts_half():
    one, two = np.ones((1, 1), np.int32), np.zeros((1, 1), np.int32)

    def ballot(answer, *grids):
        made = Ballot(answer)
        made.candidates = [type("C", (), {"grid": grid})() for grid in grids]
        return made

    ballots = {"a": [ballot(one, one), ballot(one, two)], "b": [ballot(one, two, one)], "c": [ballot(None, one)]}
    assert score(ballots, 1) == pytest.approx(0.25)
    assert score(ballots, 2) == pytest.approx(0.75)
    assert score({"c": ballots["c"]}, 2) is None


def test_submission_format(asked):
    _, rows = asked
    tokens = rows.puzzles.answers.copy()
    nothing = np.array([task == "bb1" for task in rows.tasks])
    tokens[nothing] = 0
    content = submission(count_votes(rows, tokens, np.zeros(len(tokens))))
    assert sorted(content) == ["bb0", "bb1", "bb2"]
    for name, tests in content.items():
        assert len(tests) == 2
        for entry in tests:
            assert sorted(entry) == ["attempt_1", "attempt_2"]
            for grid in entry.values():
                assert len({len(row) for row in grid}) == 1
                assert all(type(cell) is int and 0 <= cell <= 9 for row in grid for cell in row)
        assert (tests[0]["attempt_1"] == [[0]]) == (name == "bb1")
    evaluation = {task.name: task for task in toy_collection().evaluation}
    assert content["bb2"][1]["attempt_1"] == evaluation["bb2"].tests[1][1].tolist()


def test_fewer_views_are_the_first(asked):
    path, rows = asked
    few = read_test(path, TASK, augmentations=1)
    assert len(few.tests) == 3 * 2 * 2
    assert {(t, v) for t, v in zip(few.tasks, few.views, strict=True)} < set(
        zip(rows.tasks, rows.views, strict=True)
    )
    assert few.tests == [0, 1] * 6
    with pytest.raises(InputError, match="not arc"):
        read_test(path, get_task("sudoku"))
    with pytest.raises(InputError, match=r"identifiers\.json"):
        read_test(path / "test", TASK)


def renamed(path, tmp_path, change):
    """The same set with its identifiers' names changed."""
    shutil.copytree(path, tmp_path / "s")
    names = read_names(path)
    (tmp_path / "s" / "identifiers.json").write_text(json.dumps(change(names)))
    return tmp_path / "s"


def swapped(first: int, second: int):
    def change(names):
        names = list(names)
        names[first], names[second] = names[second], names[first]
        return names

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda names: [names[0], *names[:0:-1]],
        lambda names: [names[0], *names[2:], names[1]],
        swapped(-1, -2),  # two views of one task
        swapped(-1, -6),  # views of two
        lambda names: [parse_name(name)[0] for name in names],  # without their views
    ],
)
def test_names_that_are_not_those_of_the_puzzles_are_refused(asked, tmp_path, change):
    folder = renamed(asked[0], tmp_path, change)
    with pytest.raises(InputError, match=r"identifiers\.json: calls identifier \d+ '.*', which its puzzle is not"):
        read_test(folder, TASK)
