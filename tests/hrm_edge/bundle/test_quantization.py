"""The record of a quantized bundle: what was written is read back, damage is one line, leaks are refused."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import TASK, puzzle_set

from hrm_edge.bundle.quantization import (
    QUANTIZATION,
    Calibration,
    Layer,
    Products,
    Quantization,
    Site,
    Trial,
    read_quantization,
)
from hrm_edge.data.leaks import fingerprints, refuse_leak
from hrm_edge.data.puzzles import PuzzleSet
from hrm_edge.errors import InputError
from hrm_edge.records import from_json

TEXT = st.text(max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 10**9)
BY_ANNOTATION = {
    "str": TEXT,
    "int": COUNT,
    "float": NUMBER,
    "bool": st.booleans(),
    "str | None": st.none() | TEXT,
    "tuple[str, ...]": st.lists(TEXT, max_size=3).map(tuple),
    "dict[str, int]": st.dictionaries(TEXT, COUNT, max_size=3),
}


def instances(kind, **given_):
    plain = {f.name: BY_ANNOTATION[str(f.type)] for f in dataclasses.fields(kind) if f.name not in given_}
    return st.builds(kind, **plain, **given_)


def some(kind):
    return st.lists(instances(kind), max_size=2).map(tuple)


RECORDS = instances(
    Quantization,
    layers=some(Layer),
    sites=some(Site),
    calibration=st.none() | instances(Calibration),
    comparison=some(Trial),
    sensitivity=some(Trial),
    budget=some(Trial),
    products=st.none() | instances(Products),
)
TRIAL = Trial("mse", 200, 0.5, 0.9, 8, 3, 4.5, 0.97, 0.525, 4.4)
RECORD = Quantization(
    precision="int8",
    checkpoint="c" * 64,
    weights_bytes=100,
    float_weights_bytes=400,
    layers=(Layer("a", "int8", 4, 1.5, 0.01), Layer("b", "float32", 2, 1.0, 0.0, kept="too sensitive")),
    sites=(Site("a/0", 3.0, 0.02, 0.001),),
    calibration=Calibration("generated", 8, "stratified", "mse", 0.85, 24, ("f" * 16,)),
    comparison=(TRIAL,),
    budget=(TRIAL, TRIAL),
    products=Products(6, 6, {"int8 × int8": 6}, ()),
)


def in_bundle(folder, content):
    """A bundle as `read_quantization` sees it: opened, its hashes checked."""
    (folder / QUANTIZATION).write_bytes(content if isinstance(content, bytes) else content.encode())
    return SimpleNamespace(path=folder, manifest=SimpleNamespace(files={QUANTIZATION: None}))


@given(RECORDS)
def test_a_record_survives_json(record):
    assert from_json(Quantization, record.to_json(), "here") == record


def test_a_record_is_read_from_a_bundle(tmp_path):
    assert read_quantization(in_bundle(tmp_path, RECORD.to_json())) == RECORD
    assert read_quantization(SimpleNamespace(path=tmp_path, manifest=SimpleNamespace(files={}))) is None


def test_equal_records_are_equal_bytes():
    again = from_json(Quantization, RECORD.to_json(), "here")
    assert again.to_json() == RECORD.to_json()
    assert RECORD.to_json().endswith("}\n")


@pytest.mark.parametrize(("lost", "won", "points"), [(8, 3, 2.5), (0, 0, 0.0), (1, 5, -2.0)])
def test_a_trials_drop_is_net_and_in_points(lost, won, points):
    assert dataclasses.replace(TRIAL, lost=lost, won=won).drop_points == points


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_a_trials_error_is_that_of_a_mean(n, lost, won):
    lost, won = min(lost, n), min(won, n - min(lost, n))
    each = np.array([1] * lost + [-1] * won + [0] * (n - lost - won))
    made = dataclasses.replace(TRIAL, n=n, lost=lost, won=won)
    assert made.drop_points == pytest.approx(100 * each.mean())
    assert made.drop_error == pytest.approx(100 * each.std() / np.sqrt(n), abs=1e-5)


# -- damage --------------------------------------------------------------------------------------------


def paths(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths(value[key], (*path, key))


PATHS = list(paths(json.loads(RECORD.to_json())))
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def damaged(path, junk, how):
    content = json.loads(RECORD.to_json())
    if not path:
        return junk
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    if how == "replace":
        parent[path[-1]] = junk
    elif how == "remove":
        del parent[path[-1]]
    else:
        parent = parent[path[-1]] if isinstance(parent[path[-1]], dict) else content
        parent["more\nlines"] = junk
    return content


def refused_in_one_line(bundle) -> str | None:
    try:
        record = read_quantization(bundle)
    except InputError as error:
        line = str(error)
        assert len(line.splitlines()) == 1
        assert line.startswith(str(bundle.path / QUANTIZATION))
        return line
    assert isinstance(record, Quantization)
    return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(path=st.sampled_from(PATHS), junk=JUNK, how=st.sampled_from(["replace", "remove", "add"]))
def test_a_damaged_record_is_one_line_or_still_a_record(tmp_path, path, junk, how):
    refused_in_one_line(in_bundle(tmp_path, json.dumps(damaged(path, junk, how))))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), at=st.integers(0, len(RECORD.to_json())))
def test_bytes_in_the_middle_are_one_line(tmp_path, content, at):
    good = RECORD.to_json().encode()
    refused_in_one_line(in_bundle(tmp_path, good[:at] + content + good[at + len(content) :]))
    assert refused_in_one_line(in_bundle(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{}", "{", "[" * 100_000, b"\xff\xfe", json.dumps(json.loads(RECORD.to_json()))[:-30]],
    ids=["empty", "list", "null", "bare", "open", "deep", "bytes", "cut"],
)
def test_what_is_no_record_at_all_is_refused(tmp_path, content):
    assert "export the bundle again" in refused_in_one_line(in_bundle(tmp_path, content))


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Quantization)])
def test_every_field_is_needed(tmp_path, field):
    content = json.loads(RECORD.to_json())
    del content[field]
    assert field in refused_in_one_line(in_bundle(tmp_path, json.dumps(content)))


# -- leaks ---------------------------------------------------------------------------------------------


def distinct(n: int) -> PuzzleSet:
    """Puzzles with n different solutions."""
    puzzles = puzzle_set(20 * n, seed=3)
    _, first = np.unique(puzzles.answers, axis=0, return_index=True)
    return puzzles.select(np.sort(first)[:n])


def more_givens(puzzles: PuzzleSet) -> PuzzleSet:
    """The same solutions, with one given more than was asked."""
    questions = puzzles.questions.copy()
    for question, answer in zip(questions, puzzles.answers, strict=True):
        cell = np.flatnonzero(question == TASK.blank)[0]
        question[cell] = answer[cell]
    return PuzzleSet(TASK, questions, puzzles.answers, puzzles.sources, "other givens")


def test_two_fingerprints_a_puzzle_in_no_order_that_tells():
    puzzles = distinct(10)
    marks = fingerprints(puzzles)
    assert len(marks) == len(set(marks)) == 20
    assert list(marks) == sorted(marks)
    assert marks == fingerprints(puzzles.select(np.arange(10)[::-1]))
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)


def test_fingerprints_do_not_depend_on_how_tokens_are_stored():
    puzzles = distinct(4)
    wide = PuzzleSet(TASK, puzzles.questions.astype(np.int64), puzzles.answers, puzzles.sources, "wide")
    turned = PuzzleSet(TASK, np.asfortranarray(puzzles.questions), puzzles.answers, puzzles.sources, "turned")
    assert fingerprints(wide) == fingerprints(turned) == fingerprints(puzzles)


def test_questions_alone_have_one_each():
    puzzles = distinct(5)
    assert len(fingerprints(PuzzleSet(TASK, puzzles.questions, None, puzzles.sources, "asked"))) == 5


def test_the_same_question_is_a_leak():
    puzzles = distinct(10)
    seen = PuzzleSet(TASK, puzzles.questions[:1], None, puzzles.sources[:1], "asked")
    with pytest.raises(InputError, match=r"^tests: 1 of the 10 puzzles .* Give other puzzles$"):
        refuse_leak(fingerprints(seen), puzzles, "tests")


def test_the_same_solution_with_other_givens_is_a_leak():
    puzzles = distinct(10)
    others = more_givens(puzzles.select(np.arange(3)))
    assert not set(map(bytes, others.questions)) & set(map(bytes, puzzles.questions))
    with pytest.raises(InputError, match="tests: 3 of the 10 puzzles"):
        refuse_leak(fingerprints(others), puzzles, "tests")


TWELVE = distinct(12)


@given(st.integers(1, 11), st.sets(st.integers(0, 11)))
def test_only_what_is_shared_leaks(cut, rows):
    puzzles = TWELVE
    seen, measured = puzzles.select(np.arange(cut)), puzzles.select(np.array(sorted(rows), int))
    if rows & set(range(cut)):
        with pytest.raises(InputError, match=f"{len(rows & set(range(cut)))} of the {len(measured)} puzzles"):
            refuse_leak(fingerprints(seen), measured, "tests")
    else:
        refuse_leak(fingerprints(seen), measured, "tests")
