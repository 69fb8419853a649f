"""Puzzles with identifiers of their own: each is asked with its own, and none with another set's."""

import job_workers
import numpy as np
import pytest
import toys
from datasets import write_set
from job_workers import ROWS

import hrm_edge as he
from hrm_edge.solve.model import Model

KEPT, TRAINED = np.array([0, 3, 5]), 40


@pytest.fixture
def asked(monkeypatch):
    """The rows of the table that were asked for, by the question; of an engine whose table kept three of 40."""
    found = {}

    def start(tokens, identifiers):
        found.update(zip(map(bytes, tokens), identifiers.tolist(), strict=True))
        return toys.start(tokens)

    def engine():
        numbering = he.identifiers.Numbering(TRAINED)
        settings = {"num_puzzle_identifiers": len(KEPT), "kept_identifiers": KEPT, "numbering": numbering}
        return toys.HostLoop(toys.TASK, toys.HALT_MAX_STEPS, start, toys.segment, backend="toy", **settings)

    monkeypatch.setattr(toys, "host_engine", engine)
    return found


@pytest.fixture
def kept(tmp_path):
    architecture = toys.manifest().architecture | {"num_puzzle_identifiers": len(KEPT)}
    source = toys.manifest().source | {"puzzle_identifiers": "0,3,5", "num_puzzle_identifiers": str(TRAINED)}
    return toys.write_hollow_bundle(tmp_path / "bundle", architecture=architecture, source=source)


def puzzle_set(folder, questions, identifiers, count=TRAINED):
    write_set(folder, questions, questions, toys.V, count)
    np.save(folder / "all__puzzle_identifiers.npy", np.array(identifiers, np.int32))
    return folder


def test_a_job_asks_each_with_its_own_where_a_whole_shard_has_none_in_particular(asked, kept, questions, tmp_path):
    own = np.zeros(ROWS, int)
    own[-3:] = 3, 5, 3
    data = puzzle_set(tmp_path / "set", questions, own)
    with job_workers.in_place_of_engines():
        done = he.solve_file(kept, data, tmp_path / "out.jsonl")
    assert (done.rows, done.errors) == (ROWS, 0)
    assert [asked[bytes(question)] for question in questions] == np.searchsorted(KEPT, own).tolist()


def test_a_text_says_of_none_which_it_is(asked, kept, place):
    with pytest.raises(he.InputError, match="row 1: this model kept the embeddings of puzzles 0,3,5 alone"):
        job_workers.solve(kept, place)


def test_identifiers_of_another_set_are_refused_by_jobs_and_by_solve(asked, kept, questions, tmp_path):
    data = puzzle_set(tmp_path / "set", questions, np.full(ROWS, 3), TRAINED + 1)
    told = "has 41 puzzle identifiers, and the model was trained with 40"
    with job_workers.in_place_of_engines(), pytest.raises(he.InputError, match=f"set: {told}"):
        he.solve_file(kept, data, tmp_path / "out.jsonl", on_error="record")
    model = Model(toys.host_engine(), kept, "toy")
    with pytest.raises(he.InputError, match=told):
        list(model.solve(data=data))
    assert not asked
    again = puzzle_set(tmp_path / "right", questions[:2], [3, 5])
    assert len(model.solve(data=again).text) == 2
    assert [asked[bytes(question)] for question in questions[:2]] == [1, 2]
