"""Figures and names as people read them."""

import pytest

from hrm_edge.report import words
from hrm_edge.report.layer_plots import short_name


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (words.percent, 0.6875, "68.75 %"),
        (words.percent, 0.0, "0.00 %"),
        (words.percent, 0.00002, "0.002 %"),
        (words.percent, None, "–"),
        (words.points, -0.5, "−0.50"),
        (words.points, -0.001, "0.00"),
        (words.span, [-1.234, 5], "−1.23 to 5.00"),
        (words.cosine, 1.0, "1"),
        (words.cosine, 0.99999, "0.9999"),
        (words.number, 0.012345, "0.0123"),
        (words.number, 123456.0, "123 456"),
        (words.number, 0, "0"),
        (words.number, 1e-9, "1.00e−09"),
        (words.chance, 0.00001, "< 0.0001"),
        (words.chance, 1.0, "1"),
        (words.chance, 0.0312, "0.031"),
        (words.size, 734_123, "0.73 MB"),
        (words.size, 9_400, "9.4 kB"),
        (words.times, 0.5, "0.50×"),
        (words.times, 3.05, "3.0×"),
        (words.times, 12.3, "12×"),
        (words.count, 530946, "530 946"),
    ],
)
def test_figures_as_people_read_them(function, value, text):
    assert function(value) == text


def test_short_names():
    assert short_name("L_level.layers.3.mlp.gate_up_proj") == "L.3 gate_up"
    assert short_name("H_level.layers.0.self_attn.o_proj") == "H.0 o"
    assert short_name("L_level.layers.0.mlp_t.down_proj/3") == "L.0 mix down/3"  # not the other SwiGLU's "L.0 down"
    assert short_name("lm_head") == "lm_head"
    assert len(short_name("x" * 50)) <= 22
