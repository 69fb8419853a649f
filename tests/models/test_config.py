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
        ({"pos_encodings": "sine"}, "one of rope, learned, grid, axial, none"),
        ({"H_layers": 0}, "H_layers is 0; it must be 1 or more"),
        ({"kind": "gru"}, "kind is 'gru'; it must be one of hrm, trm, recurrent, direct"),
        ({"kind": "trm"}, "H_layers is 4; it must be 0 where kind is trm"),
        (
            {"kind": "direct", "H_cycles": 1, "L_cycles": 1},
            "halt_max_steps is 16; it must be 1 where kind is direct",
        ),
        ({"puzzle_emb_len": 16}, "puzzle_emb_len is 16; it must be 0 where puzzle_emb_ndim is 0"),
        ({"puzzle_emb_len": 1, "puzzle_emb_ndim": 1000}, "must be 0, or the 2 that hold puzzle_emb_ndim"),
        ({"mlp_t": 1}, "mlp_t is 1; it must be of type bool"),
        ({"conv_kernel": 4, "puzzle_emb_ndim": 8}, "conv_kernel is 4; it must be odd, or 0 for none"),
        ({"conv_kernel": -1, "puzzle_emb_ndim": 8}, "conv_kernel is -1; it must be odd, or 0 for none"),
        ({"conv_kernel": 3, "puzzle_emb_ndim": 8, "mlp_t": True}, "it must be false where conv_kernel mixes"),
        ({"unit_means": True}, "unit_means is True; it must be false where conv_kernel is 0"),
        ({"conv_kernel": 3}, "puzzle_emb_ndim is 0; it must be above 0 where conv_kernel is"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"expansion": 1e-9}, "expansion is 1e-09; it must be at least 1 / 512"),
        ({"expansion": 1 / 100, "mlp_t": True}, "it must be at least 1 / 81"),
        ({"num_puzzle_identifiers": 7}, "puzzle_emb_ndim"),
        ({"halt_exploration_prob": 1.5}, "between 0 and 1"),
    ],
)
def test_refusals_name_the_field(change, said):
    with pytest.raises(InputError, match=said):
        HRMConfig.from_dict({**GOOD, **change})


def test_the_prefix_is_as_long_as_given_or_as_needed():
    wide = {"puzzle_emb_ndim": 1000, "hidden_size": 512}
    assert HRMConfig.from_dict({**GOOD, **wide}).prefix_len == 2
    assert HRMConfig.from_dict({**GOOD, **wide, "puzzle_emb_len": 16}).sequence_len == 97


def test_head_dim_may_be_odd_where_nothing_is_rotated():
    odd = {"hidden_size": 24, "num_heads": 8}
    for change in (
        {"mlp_t": True},
        {"conv_kernel": 3, "puzzle_emb_ndim": 8},
        {"pos_encodings": "none"},
        {"pos_encodings": "learned"},
    ):
        assert not HRMConfig.from_dict({**GOOD, **odd, **change}).rotary


def test_what_is_hashed_has_a_later_field_only_where_it_says_something():
    """Bundles and caches know a checkpoint by its hash, which a new version of this package must not change."""
    first = HRMConfig.from_dict(GOOD).identity()
    assert set(GOOD) - set(first) == {"kind", "mlp_t", "puzzle_emb_len", "conv_kernel", "unit_means"}
    assert HRMConfig.from_dict(first).to_dict() == GOOD
    changed = HRMConfig.from_dict({**GOOD, "mlp_t": True}).identity()
    assert set(changed) - set(first) == {"mlp_t"}


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
