"""Every error is one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.errors import GateFailed, HrmEdgeError, InputError


@pytest.mark.parametrize("kind", [HrmEdgeError, InputError, GateFailed])
@given(text=st.text())
def test_any_text_is_shown_in_one_printable_line(kind, text):
    shown = str(kind(f"key {text} is unknown"))
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1
    if text.isascii() and text.isprintable() and "#" not in text and ":" not in text:
        assert shown == f"key {text} is unknown"


def test_what_breaks_lines_or_commands_terminals_is_written_out():
    assert str(InputError("a\nb\u2028c\x1b[31md\ud800")) == r"a\nb\u2028c\x1b[31md\ud800"
