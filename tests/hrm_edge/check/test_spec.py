"""The spec reader: what is right becomes dataclasses, what is wrong one line with the right line number."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_edge.check.rules import RULES
from hrm_edge.check.spec import read_spec
from hrm_edge.check.toml_lines import Lines
from hrm_edge.data.choose import HELD_OUT_SEED, MARGIN_SEED, TRAINING_SEED
from hrm_edge.errors import InputError

GOOD = """\
baseline = "baseline.json"   # comment

[[check]]
name = "first"
bundle = ["one", "two*"]
data = ["generated:400", "sets/hard.csv"]
checkpoint = "sudoku-9x9"
min_exact = 0.7
max_drop = 1

[[check]]
name = "second"
bundle = "one"
quantized = true
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two-a", "two-b"):
        (tmp_path / name).mkdir()
    (tmp_path / "two-file").write_text("")
    return tmp_path


def read(folder: Path, text: str):
    (folder / "spec.toml").write_text(text, encoding="utf-8")
    return read_spec(folder / "spec.toml")


def refusal(folder: Path, text: str) -> tuple[int, str]:
    """(line, message) of the one line a wrong spec comes to."""
    with pytest.raises(InputError) as caught:
        read(folder, text)
    where = re.escape(str(folder / "spec.toml"))
    found = re.fullmatch(rf"{where}:(\d+): ([^\n]+)", str(caught.value))
    assert found, str(caught.value)
    return int(found[1]), found[2]


def test_a_good_spec_comes_out_as_it_was_meant(folder):
    spec = read(folder, GOOD)
    assert (spec.baseline, spec.when_unsure) == (folder / "baseline.json", "estimate")
    first, second = spec.checks
    assert first.bundles == {name: folder / name for name in ("one", "two-a", "two-b")}  # no files
    generated, file = first.data
    assert (generated.path, generated.n, generated.seed) == (None, 400, HELD_OUT_SEED)
    assert generated.difficulty == "ordinary"
    assert file.path == folder / "sets/hard.csv"
    assert [(each.rule.name, each.limit, each.line) for each in first.requirements] == [
        ("min_exact", 0.7, 8),
        ("max_drop", 1, 9),
    ]
    assert (first.halt, first.max_think_steps, first.n) == ("learned", None, None)
    assert [(each.rule.name, each.line) for each in second.requirements] == [("quantized", 14)]
    assert not second.needs("data")
    assert not second.needs("checkpoint")


def test_generated_puzzles_may_name_their_seed_and_difficulty(folder):
    text = GOOD.replace("generated:400", "generated:20:hard@7")
    data = read(folder, text).checks[0].data[0]
    assert (data.n, data.difficulty, data.seed) == (20, "hard", 7)


def test_generated_puzzles_are_by_default_those_no_training_saw():
    assert HELD_OUT_SEED not in (TRAINING_SEED, MARGIN_SEED)


WRONG = [
    # (text to replace in GOOD, by what, line, words)
    ("min_exact = 0.7", "min_exakt = 0.7", 8, "unknown key 'min_exakt'; did you mean 'min_exact'?"),
    ("min_exact = 0.7", "colour = 1", 8, "unknown key 'colour'; there are name, bundle"),
    ("min_exact = 0.7", "min_exact = 95", 8, "between 0 and 1 (a fraction), not 95"),
    ("min_exact = 0.7", "min_exact = true", 8, "min_exact must be a number"),
    ("min_exact = 0.7", "min_exact = nan", 8, "min_exact must be a number"),
    ("min_exact = 0.7", "min_exact = '0.7'", 8, "min_exact must be a number"),
    ("max_drop = 1", "max_drop = -1", 9, "between 0 and 100 (points), not -1"),
    ("max_drop = 1", "max_size_mb = inf", 9, "of at least 0 (10⁶ bytes), not inf"),
    ("max_drop = 1", "max_drop = 0x" + "f" * 5000, 9, "max_drop must be a number"),
    ("quantized = true", "quantized = false", 14, "leave the line out"),
    ("quantized = true", "min_exact = 0.5", 14, 'min_exact needs data; add data = "puzzles.csv"'),
    ("quantized = true", "data = 'generated:5'\nmin_agreement = 1", 15, "min_agreement needs checkpoint; add"),
    ("quantized = true", "checkpoint = 'sudoku-9x9'\nquantized = true", 14, "no rule of this check uses its chec"),
    ("quantized = true", "", 11, "this check has no rule; add one of min_exact"),
    ('name = "second"', "", 11, "this check has no name"),
    ('name = "second"', 'name = "first"', 12, "a check called 'first' stands above"),
    ('name = "second"', 'name = "a\\nb"', 12, "name must be text on one line"),
    ('name = "second"', "name = 2", 12, "name must be text on one line, not 2"),
    ('bundle = "one"', 'bundle = "nothing*"', 13, "bundle 'nothing*' matches no folder"),
    ('bundle = "one"', "bundle = []", 13, "bundle names none"),
    ('bundle = "one"', "bundle = ['one', 3]", 13, "bundle must be text on one line, not 3"),
    ("generated:400", "generated:x", 6, "is not generated:N"),
    ("generated:400", "generated:0", 6, "is not generated:N"),
    ("sets/hard.csv", "generated:400", 6, "data names 'generated:400' twice"),
    ("max_drop = 1", "max_drop = 1\nn = 0", 10, "n must be a whole number of at least 1, not 0"),
    ("max_drop = 1", "max_drop = 1\nmax_think_steps = 2.5", 10, "max_think_steps must be a whole number"),
    ("max_drop = 1", "max_drop = 1\nhalt = 'soon'", 10, "halt must be one of 'learned'"),
    ("max_drop = 1", "max_drop = 1\nbaseline = 'x'", 10, "it stands at the top, above the first [[check]]"),
    ("max_drop = 1", "max_drop = 1\n[check.limits]\nx = 1", 10, "unknown key 'limits'"),
    ("max_drop = 1", "max_drop = 1\nlimits.x = 1", 10, "unknown key 'limits'"),
    ('baseline = "baseline.json"', "min_exact = 1", 1, "unknown key 'min_exact'; rules stand below a [[check]]"),
    (
        'baseline = "baseline.json"',
        "when_unsure = 'hope'",
        1,
        "when_unsure must be one of 'estimate', 'fail', 'pass'",
    ),
    ('baseline = "baseline.json"', "baseline = 1", 1, "baseline must be text"),
    ("max_drop = 1", "max_drop = ", 9, "is not valid TOML"),
    ("max_drop = 1", "max_drop 1", 9, "is not valid TOML"),
    ("max_drop = 1", "min_exact = 0.8", 9, "is not valid TOML"),
    ("quantized = true", "quantized = [", 14, "is not valid TOML"),
]


@pytest.mark.parametrize(("old", "new", "line", "words"), WRONG)
def test_a_mistake_is_one_line_with_its_line(folder, old, new, line, words):
    at, message = refusal(folder, GOOD.replace(old, new))
    # tomllib tells of a key that stands twice, and of an open bracket, only at the end of what it read.
    assert abs(at - line) <= ("valid TOML" in words)
    assert words in message


def test_a_rule_that_needs_a_baseline_says_so(folder):
    text = GOOD.replace("max_drop = 1", "max_drop_vs_baseline = 1").replace("baseline =", "# baseline =", 1)
    line, message = refusal(folder, text)
    assert line == 9
    assert message == 'max_drop_vs_baseline needs baseline; add baseline = "baseline.json" at the top of the file'


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "check = 1", "check = []", "[check]\nname = 'x'", "check = ['x']"]
)
def test_nothing_to_check_is_said(folder, text):
    line, message = refusal(folder, text)
    assert line == 1
    assert "nothing to check" in message


def test_an_inline_array_of_checks_is_blamed_on_its_line(folder):
    line, message = refusal(folder, "\n\ncheck = [{name = 'x', bundle = 'one', min_exact = 2}]")
    assert (line, "min_exact" in message) == (3, True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_text(folder, encoding):
    plain = read(folder, GOOD)
    (folder / "spec.toml").write_text(GOOD, encoding)
    assert read_spec(folder / "spec.toml") == plain


def test_a_folder_that_has_a_patterns_name_is_taken_as_it_is(folder):
    def bundles(text):
        (folder / "s.toml").write_text(f"[[check]]\nname = 'x'\nbundle = '{text}'\nmax_size_mb = 1\n")
        return sorted(read_spec(folder / "s.toml").checks[0].bundles)

    for name in ("my[1]", "my1", "deep[a]/x1", "deep[a]/x2", "deepa/x3"):
        (folder / name).mkdir(parents=True)
    assert bundles("my[1]") == ["my[1]"]
    assert bundles("my[12]") == ["my1"]
    assert bundles("deep[a]/x*") == ["deep[a]/x1", "deep[a]/x2"]
    assert bundles("deep[a-b]/x*") == ["deepa/x3"]


def test_files_that_are_no_text(folder):
    (folder / "spec.toml").write_bytes(b"[[check]]\nname = '\xff'\n")
    with pytest.raises(InputError, match=r"spec.toml:2: is not UTF-8"):
        read_spec(folder / "spec.toml")
    with pytest.raises(InputError, match=r"absent.toml': can not be read \(No such file"):
        read_spec(folder / "absent.toml")
    with pytest.raises(InputError, match="can not be read"):
        read_spec(folder)
    (folder / "spec.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert read_spec(folder / "spec.toml").checks[1].requirements[0].line == 14


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"^[^\n]*any.toml:\d+: [^\n]+$"):
        read_spec(path)


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.sampled_from(["one", "generated:5", "x" * 400])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*RULES, "name", "bundle", "data", "n", "halt", "checkpoint"]), VALUES))
def test_any_values_are_read_or_blamed_on_a_line_that_is_there(tmp_path_factory, table):
    folder = tmp_path_factory.getbasetemp() / "values"
    (folder / "one").mkdir(parents=True, exist_ok=True)
    lines = ["[[check]]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    (folder / "values.toml").write_text("\n".join(lines))
    try:
        spec = read_spec(folder / "values.toml")
    except InputError as error:
        found = re.fullmatch(r"[^\n]*values.toml:(\d+): [^\n]+", str(error))
        assert found
        assert 1 <= int(found[1]) <= len(lines)
    else:
        assert spec.checks[0].requirements


def _toml(value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


# Values of one line that hold what looks like headers, keys and comments.
TRICKY = [
    "1",
    '"[[check]]"',
    "'# no comment'",
    '["a", "b = 1"]',
    '"quote \\" [x"',
    "{a = 1, b = [2]}",
    "'''x = 1'''",
    '""""[["""',
    "1979-05-27",
]
BETWEEN = ["", "# [[check]]", "   ", "#'''", '# "']


@given(
    st.lists(
        st.tuples(
            st.booleans(),  # a new [[check]] first
            st.sampled_from(["name", '"quoted"', "'single'", "dotted.x", "bare-1"]),
            st.sampled_from(TRICKY),
            st.lists(st.sampled_from(BETWEEN), max_size=2),
        ),
        max_size=8,
    )
)
def test_lines_are_those_at_which_the_key_appears_to_tomllib(statements):
    """Independent: the key is in what tomllib makes of the text up to that line, and not of the text before it."""
    lines: list[str] = []
    used: set[str] = set()
    for new, key, value, between in statements:
        lines += between
        if new:
            used = set()
            lines.append("[[check]]")
        if key not in used:
            used.add(key)
            lines.append(f"{key} = {value}")
    text = "\n".join(lines)
    where, content = Lines(text), tomllib.loads(text)
    for key in content:
        _appears(lines, where.top(key), lambda part, key=key: key in part)
    for index, table in enumerate(content.get("check", [])):
        _appears(lines, where.within("check", index), lambda part, i=index: len(part.get("check", [])) > i)
        for key in table:
            _appears(
                lines,
                where.within("check", index, key),
                lambda part, i=index, key=key: len(part.get("check", [])) > i and key in part["check"][i],
            )


def _appears(lines, at, holds):
    assert holds(tomllib.loads("\n".join(lines[:at])))
    assert not holds(tomllib.loads("\n".join(lines[: at - 1])))


def test_values_of_several_lines_do_not_move_what_follows():
    text = 'a = """\n[[check]]\nname = 1\n"""\nb = [\n  1, # ]\n  "]",\n]\n[[check]]\n'
    text += "long = '''\n\n'''\nname = 2\n"
    lines = Lines(text)
    assert (lines.top("a"), lines.top("b"), lines.top("check")) == (1, 5, 9)
    assert (lines.within("check", 0, "long"), lines.within("check", 0, "name")) == (10, 13)
    assert lines.within("check", 0, "absent") == 9
