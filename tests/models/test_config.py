"""Configs refuse what cannot be built, and say which field."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.errors import InputError
from hrm_edge.models import HRMConfig

GOOD = HRMConfig(vocab_size=11, seq_len=81).to_dict()


def test_round_trip():
    assert HRMConfig.from_dict(GOOD).to_dict() == GOOD


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_sise": 3}, "unknown field 'hidden_sise'"),
        ({"hidden_size": 100, "num_heads": 3}, "num_heads is 3; it must be a divisor of hidden_size"),
        ({"hidden_size": 24, "num_heads": 8}, "even for rope"),
        ({"H_cycles": 0}, "H_cycles is 0; it must be 1 or more"),
        ({"H_cycles": 2.5}, "H_cycles is 2.5; it must be of type int"),
        ({"halt_max_steps": True}, "halt_max_steps is True"),
        ({"pos_encodings": "sine"}, "one of rope, learned, grid"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"num_puzzle_identifiers": 7}, "puzzle_emb_ndim"),
        ({"halt_exploration_prob": 1.5}, "between 0 and 1"),
    ],
)
def test_refusals_name_the_field(change, said):
    with pytest.raises(InputError, match=said):
        HRMConfig.from_dict({**GOOD, **change})


@given(
    st.dictionaries(
        st.sampled_from([f.name for f in dataclasses.fields(HRMConfig)] + ["other"]),
        st.one_of(st.integers(-3, 2000), st.floats(), st.text(max_size=3), st.none(), st.booleans()),
        max_size=4,
    )
)
def test_any_values_either_build_or_are_refused_in_one_line(changes):
    try:
        config = HRMConfig.from_dict({**GOOD, **changes})
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert config.sequence_len >= config.seq_len
        assert config.head_dim * config.num_heads == config.hidden_size
