"""Which puzzles are taken where nobody says: the seeds stay what published checkpoints name, and never meet."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from hrm_edge.data import choose
from hrm_edge.data.leaks import distinct_puzzles
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.precision import FP32
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
OWN = SimpleNamespace(task=TASK, path=Path("own"), metadata={"held_out": {"seed": 3, "difficulty": "easy", "n": 9}})
NOTHING = SimpleNamespace(task=TASK, path=Path("none"), metadata={})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("choose") / "p.csv"
    save_puzzles(generate_puzzles(TASK, 30, 8), path)
    return path


def test_seeds_are_those_of_published_checkpoints_and_differ():
    assert choose.HELD_OUT == {"seed": 20_260_101, "difficulty": "ordinary", "n": 1000}
    held_out = choose.HELD_OUT_SEED
    measured = [held_out, held_out + choose.CALIBRATION_OFFSET, held_out + choose.SELECTION_OFFSET]
    seeds = [*measured, choose.MARGIN_SEED, choose.TRAINING_SEED, choose.ANY_SEED]
    assert len(set(seeds)) == len(seeds)


def test_the_gate_takes_as_many_as_full_precision_asks_for():
    puzzles = choose.gate_puzzles(OWN)
    assert FP32.gate_puzzles == 400
    made = generate_puzzles(TASK, 400, 3, "easy")
    assert puzzles.content_hash() == distinct_puzzles(made).content_hash()  # small boards have copies


def test_more_puzzles_of_the_gate_begin_with_what_fewer_are(file):
    for data in (None, file):
        few, many = choose.gate_puzzles(OWN, data, 10), choose.gate_puzzles(OWN, data, 20)
        assert few.questions.tolist() == many.questions[: len(few)].tolist()


@pytest.mark.parametrize(("checkpoint", "seed"), [(OWN, 3), (NOTHING, 5), (None, 5)])
def test_what_needs_no_right_answers_takes_what_there_is(checkpoint, seed, file):
    found = choose.any_puzzles(TASK, 7, None, checkpoint, seed=5)
    difficulty = "easy" if checkpoint is OWN else "ordinary"
    assert found.content_hash() == generate_puzzles(TASK, 7, seed, difficulty).content_hash()
    drawn = choose.any_puzzles(TASK, 7, file, checkpoint, seed=5)
    assert drawn.content_hash() == generate_puzzles(TASK, 30, 8).take(7, 5).content_hash()


def test_a_bundle_brings_none(file):
    with pytest.raises(InputError, match="a bundle brings no puzzles with it"):
        choose.evaluated_puzzles(TASK, None)
    assert len(choose.evaluated_puzzles(TASK, None, file)) == 30
    assert len(choose.evaluated_puzzles(TASK, OWN, None, 4)) == 4


def test_the_halting_margin_has_its_own():
    assert [len(choose.margin_puzzles(TASK, n)) for n in (0, 3, 7)] == [1, 3, 7]
    held_out = generate_puzzles(TASK, 7, choose.HELD_OUT_SEED)
    assert choose.margin_puzzles(TASK, 7).content_hash() != held_out.content_hash()


@pytest.mark.parametrize("seed", [-1, 2**63, 10**300, True, 1.5, "3", None])
def test_a_held_out_seed_that_no_generator_takes(seed):
    odd = SimpleNamespace(task=TASK, path=Path("odd"), metadata={"held_out": {"seed": seed}})
    with pytest.raises(InputError, match="names no held-out puzzles"):
        choose.gate_puzzles(odd, n=2)
    assert len(choose.generated_apart(odd, 2, 5, [])) == 2


def test_the_folder_above_a_set_stands_for_its_test_puzzles(tmp_path):
    for split, seed in (("train", 1), ("test", 2)):
        save_puzzles(generate_puzzles(TASK, 5, seed), tmp_path / "set" / split)
    for read in (
        lambda path: choose.gate_puzzles(OWN, path, 5),
        lambda path: choose.evaluated_puzzles(TASK, None, path),
        lambda path: choose.measured_puzzles(path, TASK),
        lambda path: choose.any_puzzles(TASK, 5, path),
    ):
        assert read(tmp_path / "set").content_hash() == read(tmp_path / "set" / "test").content_hash()
    assert choose.split_within(tmp_path / "set", "train") == tmp_path / "set" / "train"
    assert choose.split_within(tmp_path / "set" / "train", "train") == tmp_path / "set" / "train"
