"""A record's file is whole and right, or one line says where it is not and what should stand there."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from hrm_edge.errors import InputError
from hrm_edge.records import STRICT, FromOne, Number, Text, from_json, newer_version, refusing


@dataclass(frozen=True, config=STRICT)
class Part:
    name: Text
    count: FromOne
    why: str | None = None


@refusing
@dataclass(frozen=True, config=STRICT)
class Whole:
    part: Part
    parts: Annotated[tuple[Part, ...], Field(max_length=2)]
    sizes: dict[str, tuple[Number, ...]]
    free: dict[str, Any]
    ratio: float
    good: bool = True

    @model_validator(mode="after")
    def _check(self) -> Whole:
        if self.ratio > 9:
            raise ValueError("ratio is more than all parts")
        return self


PART = Part("a", 1)
WHOLE = Whole(PART, (PART, Part("b", 2, "so")), {"x": (1, 0.5)}, {"y": [None, {}]}, 2.0)
CONTENT = json.loads(json.dumps(asdict(WHOLE)))


def with_value(path: list[str | int], value: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(CONTENT))
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return content


def test_what_was_written_is_what_is_read():
    read = from_json(Whole, json.dumps(CONTENT), "here")
    assert read == WHOLE
    assert json.dumps(asdict(read)) == json.dumps(asdict(WHOLE))  # a whole number stays one


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["part", "count"], "x", "part.count must be a whole number of at least 1, not 'x'"),
        (["part", "count"], True, "part.count must be a whole number of at least 1, not True"),
        (["part", "count"], 0, "part.count must be a whole number of at least 1, not 0"),
        (["part", "count"], 10**400, f"part.count must be a whole number of at least 1, not 1{'0' * 59}…"),
        (["sizes", "x", 0], 10**400, f"sizes.x[0] must be a number, not 1{'0' * 59}…"),
        (["part", "name"], "", "part.name must be some text, not ''"),
        (["part", "why"], 3, "part.why must be text, not 3"),
        (["part"], [], "part must be an object, not []"),
        (["part", "more"], 1, "part has the unknown field 'more'"),
        (["more\nlines"], 1, "unknown field 'more\\nlines'"),
        (["parts", 1, "count"], 1.5, "parts[1].count must be a whole number of at least 1, not 1.5"),
        (["free"], 5, "free must be an object, not 5"),
        (["parts"], "ab", "parts must be a list, not 'ab'"),
        (["sizes", "x", 0], False, "sizes.x[0] must be a number, not False"),
        (["sizes"], [], "sizes must be an object, not []"),
        (["ratio"], "9" * 80, f"ratio must be a number, not '{'9' * 59}…"),
        (["ratio"], 10, "ratio is more than all parts"),
        (["good"], 1, "good must be true or false, not 1"),
    ],
)
def test_one_line_says_where_and_what(path, value, words):
    with pytest.raises(InputError) as error:
        from_json(Whole, json.dumps(with_value(path, value)), "file.json", "write it again")
    assert str(error.value) == f"file.json: {words}; write it again"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (["good"], "field 'good' is missing"),
        (["part", "why"], "part lacks 'why'"),
        (["parts", 1, "why"], "parts[1] lacks 'why'"),
        (["parts", 0, "name"], "parts[0] lacks 'name'"),
    ],
)
def test_a_file_gives_every_field_even_those_with_a_default(path, words):
    content = json.loads(json.dumps(CONTENT))
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    with pytest.raises(InputError, match=rf"^here: {words.replace('[', '.')}; export".replace("]", ".")):
        from_json(Whole, json.dumps(content), "here")


@refusing
@dataclass(frozen=True, config=STRICT)
class Bounded:
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    tries: Annotated[int, Field(ge=0, le=9)] = 3
    mode: Literal["quick", "sure"] = "quick"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("share", 0.0, "above 0.0"),
        ("share", 1.0, "below 1.0"),
        ("tries", -1, "0 or more"),
        ("tries", 10, "9 or less"),
        ("mode", "both", "'quick' or 'sure'"),
    ],
)
def test_a_bound_is_told_in_words(field, value, words):
    with pytest.raises(InputError, match=f"bounded: {field} must be {words}, not {value!r}$"):
        Bounded(**{field: value})


def test_too_many_entries():
    many = with_value(["parts"], [CONTENT["part"]] * 3)
    with pytest.raises(InputError, match="parts must be a list of at most 2 entries, not "):
        from_json(Whole, json.dumps(many), "here")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, b"\xff\xfe", '{"a": "\\ud800"}', "9" * 9999, b"\xef\xbb\xbf{}", "NaN", "null"]
)
def test_what_is_no_json_object(text):
    with pytest.raises(InputError, match=r"^here: [^\n]*; export the bundle again$"):
        from_json(Whole, text, "here")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    ["part"],
    ["part", "name"],
    ["parts"],
    ["parts", 0],
    ["sizes"],
    ["sizes", "x"],
    ["free"],
    ["ratio"],
    ["é"],
]


@given(st.sampled_from(PLACES), JSON)
def test_any_value_anywhere_is_one_line_or_a_record(path, value):
    try:
        record = from_json(Whole, json.dumps(with_value(path, value)), "here")
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(record, Whole)


def test_a_record_is_right_from_the_moment_it_is_made():
    with pytest.raises(ValidationError):
        Part("", 1)
    with pytest.raises(InputError, match=r"^whole: ratio must be a number, not 'x'$"):
        Whole(PART, (), {}, {}, ratio="x")
    with pytest.raises(AttributeError):
        PART.name = "b"


def test_only_a_later_format_is_newer():
    versions = [
        {"format_version": 2},
        {"format_version": 1},
        {"format_version": True},
        {"format_version": "2"},
        {},
        [],
    ]
    assert [newer_version(content, 1) for content in versions] == [2, None, None, None, None, None]
