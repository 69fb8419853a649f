"""Text on its way out and in: nothing in it breaks a line, commands a terminal or a log, or is taken for markup."""

import io
import json
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.text import best_effort, code, decoded, echo, echo_json, markdown, printable

HOSTILE = (
    "[/hard] \x1b[31m\x1b]8;;x\x07\r\n::error::x\u202egnp\u200b\u2028 ##[error]y <script> | `z` \x00\x85\ud800"
)


@given(text=st.text())
def test_any_text_is_one_line_that_commands_nothing(text):
    shown = printable(text)
    assert shown.isprintable()
    assert not shown.lstrip().startswith("::")
    assert not re.search(r"##\w*\[", shown)
    assert printable(shown) == shown


@given(text=st.text(alphabet=":# []ab\n\\"))
def test_no_mixture_of_marks_is_left_a_command(text):
    shown = printable(text)
    assert not re.search(r"(?:^|\s)::|##\w*\[", shown)


@pytest.mark.parametrize(
    "text", ["[/hard] [hard] [bold]x[/]", "a::b {c} :smile: #1 ##", "Größe 漢字 ✅ → –", "C:\\new", "<b>&amp;</b>"]
)
def test_what_is_harmless_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u200bb\u2060\ufeff", r"a\u200bb\u2060\ufeff"),
        ("\u3164\u034f\ufe0f\U000e0100", r"\u3164\u034f\ufe0f\U000e0100"),
        ("\x85\u2028\u2029", r"\x85\u2028\u2029"),
        ("p\udcff", r"p\udcff"),
        ("::error file=x::y", r"\x3a:error file=x::y"),
        ("  ::set-output name=x::y", r"  \x3a:set-output name=x::y"),
        ("x ::stop-commands::t", r"x \x3a:stop-commands::t"),
        ("##[group]x ##vso[task.x]y", r"\x23#[group]x \x23#vso[task.x]y"),
    ],
)
def test_what_is_not_is_written_out(text, shown):
    assert printable(text) == shown


def test_no_format_character_of_unicode_is_let_through():
    characters = map(chr, range(sys.maxunicode + 1))
    hidden = [c for c in characters if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert len(hidden) > 2000
    assert all(printable(c).isascii() for c in hidden)


@given(text=st.text())
def test_markdown_has_no_markup_left(text):
    shown = markdown(text)
    assert shown.isprintable()
    assert not re.search(r"[<>]|(?<!\\)(?:\\\\)*[*_`|\[\]]", shown)
    assert not re.match(r"[-+=]\s|\d+[.)]\s", shown)


def test_markdown_of_names():
    assert markdown("sudoku-9x9-onnx 2.55 points") == "sudoku-9x9-onnx 2.55 points"
    assert markdown("a|b <c> [d](http://e) *f* `g`") == (r"a\|b &lt;c&gt; \[d\](http\://e) \*f\* \`g\`")
    assert [markdown(text) for text in ("- x", "1. x", "# x", "---")] == [r"\- x", r"1\. x", r"\# x", r"\---"]


@given(text=st.text(alphabet="`ab\n"))
def test_a_code_span_is_not_left(text):
    shown = code(text)
    fence = re.match("`+", shown)[0] if text else "``"
    inner = shown[len(fence) : -len(fence)]
    assert not re.search(f"(?<!`){fence}(?!`)", inner)
    assert "\n" not in shown


def test_texts_with_and_without_a_mark_are_the_same():
    text = "ä → 1"
    forms = [text.encode(form) for form in ("utf-8", "utf-8-sig", "utf-16")]
    forms += [b"\xfe\xff" + text.encode("utf-16-be"), b"\xff\xfe" + text.encode("utf-16-le")]
    assert [decoded(form) for form in forms] == [text] * 5
    for wrong in (b"\xff", b"\xff\xfea", b"\x80abc"):
        with pytest.raises(UnicodeDecodeError):
            decoded(wrong)


def test_a_line_is_a_line_whatever_is_in_it(capsys):
    echo(HOSTILE, "", f"name: {HOSTILE}")
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)


def test_json_is_ascii_says_the_same_and_commands_nothing(capsys):
    content = {"a": HOSTILE, "##[error]": ["####[x]", 1.5, None]}
    for indent in (None, 2):
        echo_json(content, indent)
        out = capsys.readouterr().out
        assert json.loads(out) == content
        assert out.isascii()
        assert "##" not in out


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_what_is_told_of_work_that_is_done_may_get_lost(monkeypatch, capsys):
    for stream, said in ((Full(), "No space left"), (Closed(), "")):
        monkeypatch.setattr("sys.stdout", stream)
        with pytest.raises(OSError, match=r"No space|Broken"):
            echo("lost")
        with best_effort():
            echo("lost")
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == bool(said)
