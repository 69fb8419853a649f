"""Ranges of identifiers: read back as written, and never larger in memory than a table can be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.errors import InputError
from hrm_edge.identifiers import Numbering, format_ranges, hash_of_names, parse_ranges, require_same
from hrm_edge.limits import IDENTIFIERS


@given(st.sets(st.integers(0, 10**6), max_size=30))
def test_what_is_written_is_read(identifiers):
    rising = np.array(sorted(identifiers), np.int32)
    if len(rising):
        assert np.array_equal(parse_ranges(format_ranges(rising), "here"), rising)


@pytest.mark.parametrize(
    "text",
    [
        f"0-{IDENTIFIERS}",
        "0-999999999",
        "0-9999999," * 100_000 + "1",  # 160 GB, if each were made
        "0-5000000 5000000-9999999 7",
    ],
)
def test_more_than_any_table_has_are_refused_before_they_are_made(text, monkeypatch):
    monkeypatch.setattr(np, "arange", lambda *_: np.zeros(0, np.int64))
    with pytest.raises(InputError, match=f"names more than {IDENTIFIERS} identifiers") as caught:
        parse_ranges(text, "here")
    assert len(str(caught.value)) < 200


A, B = hash_of_names(["<blank>", "a", "b"]), hash_of_names(["<blank>", "b", "a"])


@pytest.mark.parametrize(
    ("data", "model", "said"),
    [
        (None, Numbering(7, A), None),
        (Numbering(7, A), None, None),
        (Numbering(7), Numbering(7), None),
        (Numbering(7, A), Numbering(7, A), None),
        (Numbering(7, A), Numbering(7), None),  # nobody knows better
        (Numbering(6, A), Numbering(7, A), None),
        (Numbering(7, A), Numbering(7, B), "arc1: its identifiers.json names the 7 puzzles otherwise"),
        (Numbering(6, A), Numbering(7, B), "arc1: has 6 puzzle identifiers, and the model was trained with 7: "),
        (
            Numbering(1921253),
            Numbering(1045829, A),
            "arc1: has 1921253 puzzle identifiers, and the model was trained with 1045829: ",
        ),
    ],
)
def test_identifiers_of_other_data_are_told_by_their_names_or_else_their_number(data, model, said):
    if said is None:
        require_same(data, model, "arc1")
        return
    with pytest.raises(InputError) as caught:
        require_same(data, model, "arc1")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
