"""How many streams a bundle gets: measured where it pays, kept, and never believed more than it should."""

import json

import numpy as np
import pytest
import toys

from hrm_edge.bundle import open_bundle
from hrm_edge.data.formats import Rows
from hrm_edge.solve import choice

pytest.importorskip("onnxruntime")

MANY = np.tile(toys.puzzles(16), (choice.WORTH // 16, 1))


def rows(questions: np.ndarray) -> Rows:
    return Rows(questions, np.zeros_like(questions), lambda row: "")


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "usable_cores", lambda: 2)
    monkeypatch.setattr(choice, "_SECONDS", 0.01)
    return open_bundle(toys.write_toy_bundle(tmp_path / "toy", loop="graph"))


@pytest.mark.parametrize(("rates", "streams"), [([100.0, 160.0], 2), ([100.0, 102.0], 1), ([100.0, 60.0], 1)])
def test_the_quicker_is_taken_and_kept(bundle, monkeypatch, rates, streams):
    said = []
    monkeypatch.setattr(choice, "_rates", lambda engines, rows: rates)
    assert choice.open_for_many(bundle, None, rows(MANY), said.append).streams == streams
    assert f"the other: 100 a second, 2 side by side: {rates[1]:.0f}; --streams {streams} from now on" in said[0]
    monkeypatch.setattr(choice, "_rates", lambda engines, rows: pytest.fail("measured again"))
    for asked in (rows(MANY), rows(MANY[:1]), None):
        assert choice.open_for_many(bundle, 2, asked, said.append).streams == streams
    assert len(said) == 1


def test_few_puzzles_and_one_thread_are_not_worth_it(bundle, monkeypatch):
    monkeypatch.setattr(choice, "_rates", lambda engines, rows: pytest.fail("measured"))
    for threads, asked in ((None, rows(MANY[:-1])), (None, None), (1, rows(MANY))):
        assert choice.open_for_many(bundle, threads, asked, pytest.fail).streams == 1


NO_CHOICE = ("", "{", "[]", '{"streams": 3}', '{"streams": true}', '{"streams": "2"}', "[" * 9000)


@pytest.mark.parametrize("kept", NO_CHOICE)
def test_what_is_no_choice_is_measured_again(bundle, tmp_path, kept):
    said = []
    choice.open_for_many(bundle, None, rows(MANY), said.append)
    (file,) = (tmp_path / "cache" / "streams").iterdir()
    file.write_text(kept)
    engine = choice.open_for_many(bundle, None, rows(MANY), said.append)
    assert len(said) == 2
    assert json.loads(file.read_text()) == {"streams": engine.streams}


def test_a_cache_that_can_not_be_written_is_done_without(bundle, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert choice.open_for_many(bundle, None, rows(MANY), lambda line: None).streams in (1, 2)
