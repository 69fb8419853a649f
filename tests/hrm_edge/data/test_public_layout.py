"""The public folder layout: identifiers, puzzles and groups kept, and every inconsistency named in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.data.puzzles import generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.tasks import get_task


@pytest.fixture(scope="module")
def few():
    return generate_puzzles(get_task("sudoku-4x4"), 12, 0)


def refused(path, task):
    with pytest.raises(InputError) as error:
        load_puzzles(path, task)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_public_groups_and_identifiers_go_there_and_back(tmp_path, few):
    """A folder as the public ARC builder writes it: 2 groups, 3 puzzles with identifiers, 12 examples."""
    folder, again = tmp_path / "train", tmp_path / "again"
    save_puzzles(few, folder)
    parts = {"puzzle_identifiers": [7, 3, 9], "puzzle_indices": [0, 2, 3, 12], "group_indices": [0, 2, 3]}
    _rewrite(folder, parts, num_puzzle_identifiers=12, total_groups=2, mean_puzzle_examples=4.0, total_puzzles=3)
    loaded = load_puzzles(folder, few.task)
    assert loaded.identifiers.tolist() == [7, 7, 3] + [9] * 9
    assert (loaded.identifiers.dtype, loaded.num_identifiers) == (np.int32, 12)
    assert loaded.content_hash() != few.content_hash()
    save_puzzles(loaded, again)
    assert {f.name: f.read_bytes() for f in again.iterdir()} == {f.name: f.read_bytes() for f in folder.iterdir()}

    some = loaded.select(np.array([1, 2, 5, 6]))
    assert some.identifiers.tolist() == [7, 3, 9, 9]
    save_puzzles(some, again)
    assert np.load(again / "all__puzzle_indices.npy").tolist() == [0, 1, 2, 4]
    assert np.load(again / "all__group_indices.npy").tolist() == [0, 2, 3]
    assert load_puzzles(again, few.task).content_hash() == some.content_hash()
    assert loaded.take(5, seed=0).content_hash() != loaded.take(5, seed=1).content_hash()


def test_a_description_has_every_field_that_public_loaders_ask_for(tmp_path, few):
    """Of `PuzzleDatasetMetadata` in the HRM and the TRM code; the latter's has one more, the number of puzzles."""
    save_puzzles(few, tmp_path / "set")
    described = json.loads((tmp_path / "set" / "dataset.json").read_text())
    fields = "pad_id ignore_label_id blank_identifier_id vocab_size seq_len num_puzzle_identifiers total_groups"
    assert set(described) == {*fields.split(), "mean_puzzle_examples", "total_puzzles", "sets"}
    assert described["total_puzzles"] == len(few)
    assert load_puzzles(tmp_path / "set", few.task).content_hash() == few.content_hash()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a git-lfs pointer"),
        (b"<html><body>404</body></html>", "is a web page"),
        (b"", "is empty"),
        (b"\x93NUMPY\x01\x00\xff\xff", "is no whole .npy file"),
    ],
)
def test_an_array_is_told_for_what_it_is(tmp_path, few, content, said):
    save_puzzles(few, tmp_path / "set")
    (tmp_path / "set" / "all__labels.npy").write_bytes(content)
    assert said in refused(tmp_path / "set", few.task)


@given(data=st.data())
@settings(max_examples=25)
def test_any_grouping_is_kept(tmp_path_factory, few, data):
    """Runs of rows drawn at random are read back; the reader's own idea of a run is checked by np.repeat."""
    cuts = sorted(data.draw(st.sets(st.integers(1, 11))))
    puzzle_indices = [0, *cuts, 12]
    n = len(puzzle_indices) - 1
    group_indices = [0, *sorted(data.draw(st.sets(st.sampled_from(range(1, n))) if n > 1 else st.just(()))), n]
    identifiers = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    folder = tmp_path_factory.getbasetemp() / "grouped"
    save_puzzles(few, folder)
    parts = {"puzzle_identifiers": identifiers, "puzzle_indices": puzzle_indices, "group_indices": group_indices}
    _rewrite(folder, parts, num_puzzle_identifiers=5)
    loaded = load_puzzles(folder, few.task)
    expected = np.repeat(identifiers, np.diff(puzzle_indices))
    assert np.array_equal(np.zeros(12) if loaded.identifiers is None else loaded.identifiers, expected)
    save_puzzles(loaded, folder)
    for part, numbers in parts.items():
        assert np.load(folder / f"all__{part}.npy").tolist() == numbers


def test_what_has_one_identifier_is_written_as_one_puzzle(tmp_path, few):
    own = replace(few, identifiers=np.repeat(np.array([2, 1], np.int32), [5, 7]), num_identifiers=4)
    save_puzzles(own, tmp_path / "set")
    assert np.load(tmp_path / "set" / "all__puzzle_indices.npy").tolist() == [0, 5, 12]
    assert np.load(tmp_path / "set" / "all__puzzle_identifiers.npy").tolist() == [2, 1]
    loaded = load_puzzles(tmp_path / "set", few.task)
    assert (loaded.content_hash(), loaded.num_identifiers) == (own.content_hash(), 4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"puzzle_identifiers": [0] * 11}, "11 puzzle_identifiers but puzzle_indices for 12"),
        ({"puzzle_identifiers": [*[0] * 11, 1]}, "row 11: identifier 1 is outside 0..0"),
        ({"puzzle_identifiers": [-1, *[0] * 11]}, "row 0: identifier -1 is outside 0..0"),
        ({"puzzle_identifiers": [[0] * 12]}, "not a list of whole numbers"),
        ({"puzzle_identifiers": [0.0] * 12}, "not a list of whole numbers"),
        ({"puzzle_indices": [*range(12), 13]}, "from 0 to 13, not from 0 to the 12 rows"),
        ({"puzzle_indices": range(1, 13)}, "from 1 to 12, not from 0 to the 12 rows"),
        ({"puzzle_indices": [0, 2, 1, *range(3, 13)]}, "does not rise: 2 is followed by 1 at row 2"),
        ({"puzzle_indices": [0, 1, 1, *range(3, 13)]}, "does not rise: 1 is followed by 1 at row 2"),
        ({"puzzle_indices": np.zeros(0, int)}, "from nowhere, not from 0 to the 12 rows"),
        ({"group_indices": [0, 5]}, "from 0 to 5, not from 0 to the 12 puzzles"),
        ({"group_indices": [0, 5, -(2**63), 12]}, "does not rise: 5 is followed by -9223372036854775808"),
    ],
)
def test_inconsistent_groups_are_explained(tmp_path, few, parts, message):
    save_puzzles(few, tmp_path / "set")
    _rewrite(tmp_path / "set", parts)
    said = refused(tmp_path / "set", few.task)
    assert message in said
    assert str(tmp_path / "set") in said


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"pad_id": 1}, "pad_id is 1; only 0 can be read"),
        ({"ignore_label_id": 2}, "ignore_label_id is 2; only 0"),
        ({"sets": ["all", "more"]}, "sets is ['all', 'more']; only ['all']"),
        ({"num_puzzle_identifiers": 0}, "num_puzzle_identifiers is 0"),
        ({"num_puzzle_identifiers": "1"}, "num_puzzle_identifiers is '1'"),
        ({"vocab_size": 11}, "vocab_size is 11, but sudoku-4x4 has 6"),
    ],
)
def test_descriptions_of_something_else_are_refused(tmp_path, few, described, message):
    save_puzzles(few, tmp_path / "set")
    _rewrite(tmp_path / "set", {}, **described)
    assert message in refused(tmp_path / "set", few.task)


def _rewrite(folder, parts, **described):
    for part, numbers in parts.items():
        array = np.array(numbers)
        array = array.astype(np.int32) if array.dtype == np.int64 and array.min(initial=0) > -(2**31) else array
        np.save(folder / f"all__{part}.npy", array)
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **described}, indent=2) + "\n")
