"""Exports that keep some of the puzzle embeddings: asked by training's identifiers, they answer as torch does."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import TASK, checkpoint, network, think
from ungated import build_bundle

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.identifiers import Numbering, format_ranges, parse_ranges, rows_of
from hrm_edge.measure.accuracy import check_match
from hrm_edge.models import keep_identifiers, load_checkpoint, save_checkpoint
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import load_engine

KEPT = np.array([3, 17, 18, 19, 38])
ASKED = np.array([38, 0, 3, 18, 3, 17], np.int32)


pytestmark = pytest.mark.usefixtures("one_trace", "untrained")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    model = network(num_puzzle_identifiers=40, puzzle_emb_ndim=32)
    return load_checkpoint(save_checkpoint(tmp_path_factory.mktemp("whole") / "c", model, TASK.name, ""))


@given(st.sets(st.integers(0, 200), min_size=1, max_size=60))
def test_ranges_are_read_back(identifiers):
    numbers = np.array(sorted(identifiers))
    assert parse_ranges(format_ranges(numbers), "x").tolist() == numbers.tolist()
    assert rows_of(numbers, numbers).tolist() == list(range(len(numbers)))


def test_ranges_people_write():
    assert parse_ranges(" 5, 1-3\n2 ", "x").tolist() == [1, 2, 3, 5]
    for text in ("", "a", "3-1", "-1", "1--2", "1-99999999"):
        with pytest.raises(InputError, match="x: "):
            parse_ranges(text, "x")


@pytest.mark.parametrize(
    ("target", "loop"), [("onnx", "graph"), pytest.param("openvino", "host", marks=pytest.mark.slow)]
)
def test_sliced_bundles_answer_as_torch_with_the_original_identifiers(tmp_path, whole, target, loop):
    sliced = keep_identifiers(whole, KEPT)
    folder = tmp_path / "bundle"
    folder.mkdir()
    build_bundle(sliced, ExportOptions(target, "fp32", loop), folder, "sliced")
    questions = generate_puzzles(TASK, len(ASKED), 5).questions
    answer, steps, _ = think(whole.model, questions, 6, ASKED)
    for engine in (load_engine(folder, 1), TorchEngine(sliced), TorchEngine(whole)):
        found = engine.solve(questions, puzzle_identifiers=ASKED)
        assert np.array_equal(found.tokens, answer)
        assert np.array_equal(found.steps, steps)
    engine = load_engine(folder, 1)
    assert engine.num_puzzle_identifiers == 6
    with pytest.raises(InputError, match="identifier 5 is not among the 6 that were kept"):
        engine.solve(questions[:1], puzzle_identifiers=np.array([5]))
    for kept in (engine, TorchEngine(sliced)):
        nobody = kept.solve(questions, puzzle_identifiers=np.zeros(6, np.int32))
        assert np.array_equal(nobody.tokens, think(whole.model, questions, 6, np.zeros(6, np.int32))[0])
        with pytest.raises(InputError, match=r"puzzles 0,3,17-19,38 alone, .* pass puzzle_identifiers"):
            kept.solve(questions)
    assert np.array_equal(TorchEngine(whole).solve(questions).tokens, nobody.tokens)  # which has all: none is 0
    source = json.loads((folder / "manifest.json").read_text())["source"]
    assert (source["puzzle_identifiers"], source["num_puzzle_identifiers"]) == ("0,3,17-19,38", "40")
    assert "identifiers" not in source  # nobody said whose they are
    puzzles = dataclasses.replace(generate_puzzles(TASK, 6, 5), identifiers=ASKED, num_identifiers=40)
    for each in (engine, TorchEngine(sliced), TorchEngine(whole)):
        assert each.numbering == Numbering(40)
        check_match(each, puzzles)
        check_match(each, dataclasses.replace(puzzles, identifier_names="a" * 64))
        with pytest.raises(InputError, match="has 41 puzzle identifiers, and the model was trained with 40: "):
            check_match(each, dataclasses.replace(puzzles, num_identifiers=41))


@pytest.mark.slow
def test_whose_identifiers_they_are_goes_with_the_bundle(tmp_path, whole):
    known = dataclasses.replace(whole, metadata={"identifiers": "a" * 64})
    puzzles = dataclasses.replace(generate_puzzles(TASK, 6, 5), identifiers=ASKED, num_identifiers=40)
    same, other = (dataclasses.replace(puzzles, identifier_names=letter * 64) for letter in "ab")
    for name, one in (("known", known), ("cut", keep_identifiers(known, KEPT))):
        (tmp_path / name).mkdir()
        build_bundle(one, ExportOptions("onnx", "fp32", "graph"), tmp_path / name, name)
        for engine in (load_engine(tmp_path / name, 1), TorchEngine(one)):
            check_match(engine, puzzles)
            # As many or not, equal names tell: a network may be made for more puzzles than its data had.
            check_match(engine, dataclasses.replace(same, num_identifiers=39))
            with pytest.raises(InputError, match=r"its identifiers\.json names the 40 puzzles otherwise"):
                check_match(engine, other)


def test_a_bundle_of_an_earlier_version_that_kept_some_is_not_compared(tmp_path, whole):
    """It says neither how many there were nor whose."""
    old = dataclasses.replace(whole, metadata={})
    sliced = keep_identifiers(old, KEPT)
    sliced.metadata.pop("num_puzzle_identifiers")
    (tmp_path / "b").mkdir()
    build_bundle(sliced, ExportOptions("onnx", "fp32", "graph"), tmp_path / "b", "b")
    source = json.loads((tmp_path / "b" / "manifest.json").read_text())["source"]
    assert sorted(source) == ["content_hash", "name", "puzzle_identifiers"]
    puzzles = dataclasses.replace(generate_puzzles(TASK, 6, 5), identifiers=ASKED, num_identifiers=41)
    for engine in (load_engine(tmp_path / "b", 1), TorchEngine(sliced)):
        assert engine.numbering is None
        check_match(engine, puzzles)


def test_the_answers_depend_on_the_identifier(whole):
    """Otherwise the test above could not fail."""
    question = torch.from_numpy(generate_puzzles(TASK, 1, 5).questions)
    state = whole.model.initial_state(1)
    first, second = (
        whole.model.segment(*state, whole.model.embed(question, torch.tensor([row])))[2] for row in (0, 38)
    )
    assert (first - second).abs().max() > 0.01


@pytest.mark.slow
def test_the_gate_asks_by_identifier(tmp_path, whole, own_memory):
    puzzles = dataclasses.replace(generate_puzzles(TASK, 60, 3), identifiers=np.tile(ASKED, 10), num_identifiers=40)
    sliced = keep_identifiers(whole, KEPT)
    made = export_bundle(sliced, ExportOptions("onnx"), tmp_path / "b", GateOptions(puzzles, report=False))
    assert made.gate is not None
    assert made.gate.answers_differ == 0
    assert made.gate.steps_agree == 1
    half = export_bundle(sliced, ExportOptions("onnx", "fp16"), tmp_path / "h", GateOptions(puzzles, max_drop=100))
    assert half.gate is not None
    assert (tmp_path / "h" / "report.html").is_file()  # whose drift starts from the identifiers, too
    strange = dataclasses.replace(puzzles, identifiers=np.full(60, 5, np.int32))
    with pytest.raises(InputError, match="identifier 5 is not among"):
        export_bundle(sliced, ExportOptions("onnx"), tmp_path / "c", GateOptions(strange))
    assert not (tmp_path / "c").exists()


def test_what_cannot_be_kept(whole):
    with pytest.raises(InputError, match="0 to 39, not 40"):
        keep_identifiers(whole, np.array([40]))
    with pytest.raises(InputError, match="already"):
        keep_identifiers(keep_identifiers(whole, KEPT), KEPT)
    with pytest.raises(InputError, match="without puzzle identifiers"):
        keep_identifiers(checkpoint(), KEPT)
