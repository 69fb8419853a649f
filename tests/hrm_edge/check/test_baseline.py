"""The baseline file: sorted, the same bytes every time, and any edit is noticed."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.check.baseline import (
    Baseline,
    BundleEntry,
    SampleEntry,
    _dump,
    changes,
    pack,
    read_baseline,
    write_baseline,
)
from hrm_edge.errors import InputError

UPDATE = "hrm-edge check spec.toml --update-baseline"


def sample(right, **other) -> SampleEntry:
    right = np.asarray(right, bool)
    values = {"token": 0.9, "steps_mean": 2.5, "halted": 1.0, "puzzles": "p" * 64, **other}
    return SampleEntry(exact=round(float(right.mean()), 6), n=len(right), right=pack(right), **values)


def bundle(data, **other) -> BundleEntry:
    values = {"bundle": "b" * 64, "checkpoint": "c" * 64, "size_mb": 2.2, "halt": "learned", "max_think_steps": 8}
    return BundleEntry(**{**values, "speed_ratio": None, "data": data, **other})


RIGHT = [True, False, True, True, False, True, True, True, True]
BASELINE = Baseline({("b", "x"): bundle({"d": sample(RIGHT)}, speed_ratio=1.5), ("a", "y"): bundle({})})


def test_it_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "deep" / "baseline.json"
    write_baseline(path, BASELINE)
    assert read_baseline(path, UPDATE) == BASELINE
    content = json.loads(path.read_text())
    assert list(content["checks"]) == ["a", "b"]  # sorted
    first = path.read_bytes()
    write_baseline(path, Baseline(dict(reversed(BASELINE.items()))))
    assert path.read_bytes() == first
    path.write_bytes(first.replace(b"\n", b"\r\n"))  # as git may check it out
    assert read_baseline(path, UPDATE) == BASELINE


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_bits_come_back_whatever_their_number(right):
    entry = sample(right)
    assert entry.bits().tolist() == right
    assert len(entry.right) == 2 * ((len(right) + 7) // 8)


EDITS = [
    ('"exact": 0.777778', '"exact": 0.5'),
    ('"size_mb": 2.2', '"size_mb": 9.9'),
    ('"speed_ratio": 1.5', '"speed_ratio": 1.0'),
    ('"n": 9', '"n": 8'),
    (f'"right": "{pack(RIGHT)}"', '"right": "0080"'),
    ('"halt": "learned"', '"halt": "fixed"'),
    ('"digest": "', '"digest": "0'),
    ('  "format_version"', '    "format_version"'),
    ('"exact": 0.777778', '"exact": 0.777778, "exact": 0.777778'),
]


@pytest.mark.parametrize(("old", "new"), EDITS)
def test_an_edit_by_hand_is_noticed(tmp_path, old, new):
    path = tmp_path / "baseline.json"
    write_baseline(path, BASELINE)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=r"baseline.json: was edited by hand .* --update-baseline`$"):
        read_baseline(path, UPDATE)


def test_a_field_that_no_version_writes_is_named_though_the_digest_fits(tmp_path):
    path = tmp_path / "baseline.json"
    write_baseline(path, BASELINE)
    content = json.loads(path.read_text())
    del content["digest"]
    content["checks"]["b"]["x"]["note"] = "mine"
    path.write_text(_dump(content))
    with pytest.raises(InputError, match=r"checks.b.x has the unknown field 'note'; write it again with `.*`$"):
        read_baseline(path, UPDATE)


@given(st.data())
def test_any_flipped_bytes_are_noticed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.json"
    write_baseline(path, BASELINE)
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != raw[at]))
    raw[at] = byte
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"^[^\n]*flipped.json: [^\n]+$"):
        read_baseline(path, UPDATE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(JSON, st.fixed_dictionaries({"checks": JSON, "format_version": JSON, "digest": JSON})))
def test_any_json_is_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"^[^\n]*any.json: [^\n]+$"):
        read_baseline(path, UPDATE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no baseline yet; write it with `hrm-edge check spec.toml --update-baseline`"),
        ("<<<<<<< ours\n{}\n", "is no baseline (not JSON"),
        ('{"format_version": 99}', "has format version 99, newer than this hrm-edge reads; upgrade"),
        ("[" * 100_000, "is no baseline"),
        ("\x00", "is no baseline"),
    ],
)
def test_what_is_no_baseline(tmp_path, content, words):
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_baseline(path, UPDATE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changes_tell_old_and_new():
    worse = RIGHT.copy()
    worse[0], worse[2], worse[1] = False, False, True
    new = Baseline(
        {
            ("b", "x"): bundle({"d": sample(worse, steps_mean=3.0), "e": sample([True])}, speed_ratio=1.25),
            ("c", "z"): bundle({}),
        }
    )
    assert changes(BASELINE, new) == [
        "a / y: no longer checked",
        "b / x: speed_ratio 1.5 → 1.25",
        "b / x / d: exact 0.777778 → 0.666667",
        "b / x / d: steps_mean 2.5 → 3",
        "b / x / d: 2 puzzles lost, 1 won",
        "b / x / e: new, exact 1, n 1",
        "c / z: new, size_mb 2.2",
    ]
    assert changes(new, new) == []


def test_changes_do_not_compare_other_puzzles_one_by_one():
    entry = BASELINE["b", "x"]
    other = dataclasses.replace(entry, data={"d": sample(RIGHT[::-1][:8], puzzles="q" * 64)})
    lines = changes(BASELINE, Baseline({**BASELINE, ("b", "x"): other}))
    assert "b / x / d: puzzles pppppppppppp → qqqqqqqqqqqq" in lines
    assert "b / x / d: other puzzles, so not comparable one by one" in lines
