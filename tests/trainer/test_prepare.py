"""What a run trains and is measured on: kept by content, and apart up to symmetry."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.data.choose import HELD_OUT_SEED, margin_puzzles
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task
from hrm_edge.trainer.data import Source, content_hash, read_source
from hrm_edge.trainer.prepare import Measured, keep_sources, kept_sources, unseen

MAZE, SUDOKU = get_task("maze-6x6"), get_task("sudoku-6x6")


def puzzles(task=MAZE, n=20, seed=0):
    return generate_puzzles(task, n, seed, processes=1)


def source(of):
    return Source("some", of.questions, of.answers, 1.0)


def orbit(question):
    """A maze's eight turns and reflections."""
    grid = question.reshape(6, 6)
    return {np.rot90(g, k).tobytes() for g in (grid, grid.T) for k in range(4)}


@settings(max_examples=20)
@given(st.integers(0, 1000), st.data())
def test_nothing_that_is_a_turn_of_a_trained_maze_is_measured(seed, data):
    every = puzzles(seed=seed)
    trained = data.draw(st.lists(st.integers(0, 19), min_size=1, unique=True))
    rng = np.random.default_rng(seed)
    turned, answers = MAZE.augment(rng, every.questions, every.answers)
    asked = dataclasses.replace(every, questions=turned, answers=answers)
    seen = set().union(*(orbit(every.questions[i]) for i in trained))
    expected = [i for i in range(20) if turned[i].tobytes() not in seen]
    np.testing.assert_array_equal(unseen(asked, [source(every.select(trained))]).questions, turned[expected])


def test_training_leaves_out_twins_of_the_test_puzzles_and_held_out_boards(tmp_path):
    test, held_out, others = puzzles(SUDOKU, 3, 1), puzzles(SUDOKU, 3, 2), puzzles(SUDOKU, 4, 3)
    rng = np.random.default_rng(0)
    twins = [SUDOKU.augment(rng, p.questions, p.answers) for p in (test, held_out)]
    questions = np.concatenate([twins[0][0], twins[1][0], held_out.questions, others.questions])
    answers = np.concatenate([twins[0][1], twins[1][1], held_out.answers, others.answers])
    save_puzzles(PuzzleSet(SUDOKU, questions, answers, ["all"] * len(questions), "all"), tmp_path / "all.csv")
    left = read_source(str(tmp_path / "all.csv"), SUDOKU, [held_out], [test])
    # A twin of a generated puzzle stays: only the board itself is left out.
    np.testing.assert_array_equal(left.questions, np.concatenate([twins[1][0], others.questions]))
    np.testing.assert_array_equal(left.answers, np.concatenate([twins[1][1], others.answers]))


def keep(folder, data, test=None, changed=()):
    measured = Measured(puzzles(n=4, seed=HELD_OUT_SEED), [] if test is None else [test])
    assert keep_sources(folder, MAZE, data, measured) == list(changed)
    (folder / "run.json").touch()
    return kept_sources(folder, MAZE, data)


def test_what_is_kept_is_apart_from_all_that_a_run_is_measured_on(tmp_path):
    """Test puzzles in any turn; held-out ones and those for the halting margin as they are."""
    test, held_out, others = puzzles(n=6, seed=11), puzzles(n=4, seed=HELD_OUT_SEED), puzzles(n=10, seed=12)
    margin = margin_puzzles(MAZE)
    turned = MAZE.augment(np.random.default_rng(0), test.questions, test.answers)
    parts = [turned, *((p.questions, p.answers) for p in (held_out, margin, others))]
    questions, answers = (np.concatenate(field) for field in zip(*parts, strict=True))
    save_puzzles(PuzzleSet(MAZE, questions, answers, ["all"] * len(questions), "all"), tmp_path / "all.csv")
    (kept,) = keep(tmp_path / "run", [str(tmp_path / "all.csv")], test)
    measured = set().union(*map(orbit, test.questions))
    measured |= {q.tobytes() for p in (held_out, margin) for q in p.questions}
    expected = [i for i, question in enumerate(questions) if question.tobytes() not in measured]
    assert 0 < len(expected) <= 10
    np.testing.assert_array_equal(kept.questions, questions[expected])
    np.testing.assert_array_equal(kept.answers, answers[expected])
    assert [file.name for file in (tmp_path / "run" / "data").iterdir()] == ["source0.npz"]


def test_the_content_of_a_file_is_what_counts_not_its_name_or_age(tmp_path):
    file, moved, run = tmp_path / "mine.csv", tmp_path / "moved.csv", tmp_path / "run"
    save_puzzles(puzzles(n=5), file)
    (before,) = keep(run, [str(file)])
    written = (run / "data" / "source0.npz").stat().st_mtime_ns
    known = content_hash(str(file))
    file.write_bytes(file.read_bytes())
    keep(run, [str(file)])
    assert (run / "data" / "source0.npz").stat().st_mtime_ns == written
    file.rename(moved)
    assert content_hash(f"{moved}@3") == known
    (after,) = keep(run, [str(moved)])
    np.testing.assert_array_equal(after.questions, before.questions)
    save_puzzles(puzzles(n=5, seed=1), moved)
    assert content_hash(str(moved)) != known


def test_puzzles_are_kept_until_their_file_changes(tmp_path):
    file, run = tmp_path / "mine.csv", tmp_path / "run"
    data = [f"{file}@2", "generated:8"]
    save_puzzles(puzzles(n=5), file)
    mine, generated = keep(run, data)
    np.testing.assert_array_equal(mine.questions, load_puzzles(file, MAZE).questions)
    assert (mine.weight, len(generated.questions)) == (2.0, 8)
    kept = [run / "data" / f"source{i}.npz" for i in range(2)]
    written = [place.stat().st_mtime_ns for place in kept]
    keep(run, data)
    assert [place.stat().st_mtime_ns for place in kept] == written
    save_puzzles(puzzles(n=6, seed=1), file)
    mine, _ = keep(run, data, changed=data[:1])
    np.testing.assert_array_equal(mine.questions, load_puzzles(file, MAZE).questions)
    assert kept[1].stat().st_mtime_ns == written[1]


def test_puzzles_of_a_file_that_is_gone_are_still_kept(tmp_path):
    file, run = tmp_path / "mine.csv", tmp_path / "run"
    save_puzzles(puzzles(n=5), file)
    (before,) = keep(run, [str(file)])
    file.unlink()
    (after,) = keep(run, [str(file)])
    np.testing.assert_array_equal(after.questions, before.questions)
    with pytest.raises(InputError, match=r"mine\.csv"):
        keep(run, [f"{file}@2"])


@settings(max_examples=20)
@given(st.data())
def test_what_was_damaged_is_made_again(tmp_path_factory, data):
    run = tmp_path_factory.mktemp("run")
    (before,) = keep(run, ["generated:8"])
    place = run / "data" / "source0.npz"
    content = place.read_bytes()
    place.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    (after,) = keep(run, ["generated:8"])
    np.testing.assert_array_equal(after.questions, before.questions)
    assert place.read_bytes() == content


def test_a_process_that_sees_no_puzzles_says_so(tmp_path):
    with pytest.raises(InputError, match="all nodes must see the run's folder"):
        kept_sources(tmp_path, MAZE, ["generated:8"])
