"""A new rule is one function: the spec, measuring, verdicts, tables, JSON, JUnit and help know it at once."""

import json
import xml.etree.ElementTree as ET

import commands
import pytest
from toys import write_toy_bundle

from hrm_edge.check.findings import Finding
from hrm_edge.check.rules import NO_MOST, RULES, Unit, rule

pytest.importorskip("onnxruntime")

SPEC = """\
[[check]]
name = "toy"
bundle = "toy"
data = "generated:20"
max_segments = 2.5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a bundle and a spec; the whole rule is what stands here."""

    @rule(Unit("segments", 1, NO_MOST, " segments"), "data")
    def max_segments(measured, limit, data):
        """the mean number of segments is at most this"""
        mean = float(measured.samples[data].answers.steps.mean())
        return Finding(mean, f"{mean:.2f} segments a puzzle", mean <= limit, n=len(measured.samples[data].right))

    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_toy_bundle(tmp_path / "toy")
    (tmp_path / "spec.toml").write_text(SPEC)
    yield tmp_path
    del RULES["max_segments"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    return commands.run(capsys, "check", *arguments)


def test_a_new_rule_goes_through_a_whole_check(folder, capsys):
    code, out, _ = run(capsys, "spec.toml", "--json")
    (result,) = json.loads(out)["results"]
    mean = result["figure"]
    assert (code, result["rule"], result["limit"], result["n"]) == (1, "max_segments", 2.5, 20)
    assert result["reason"] == f"max_segments = 2.5: {mean:.2f} segments a puzzle"

    code, out, err = run(capsys, "spec.toml", "--markdown", "check.md", "--junit", "check.xml")
    assert code == 1
    row = f"max_segments  generated:20  2.50 segments  {mean:.2f} segments"
    assert " ".join(row.split()) in " ".join(out.split())
    assert err == f"hrm-edge: spec.toml:5: toy / toy / generated:20: {result['reason']}\n"
    shown = (folder / "check.md").read_text()
    assert f"| max\\_segments | generated:20 | 2.50 segments | {mean:.2f} segments |  | 20 | FAIL |" in shown
    case = ET.parse(folder / "check.xml").getroot().find("testsuite/testcase")
    assert case.get("name") == "max_segments on generated:20"
    assert case.find("failure").get("message") == result["reason"]

    (folder / "spec.toml").write_text(SPEC.replace("2.5", "8"))
    assert run(capsys, "spec.toml")[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2.5", "0", "spec.toml:5: max_segments must be a number of at least 1 (segments), not 0"),
        ("max_segments", "max_segmnets", "spec.toml:5: unknown key 'max_segmnets'; did you mean 'max_segments'?"),
        ('data = "generated:20"\n', "", "spec.toml:4: max_segments needs data; add data ="),
        (
            "max_segments = 2.5",
            "",
            "this check has no rule; add one of min_exact, max_drop, ",
        ),
    ],
)
def test_mistakes_about_a_new_rule_are_told(folder, capsys, old, new, words):
    (folder / "spec.toml").write_text(SPEC.replace(old, new))
    code, _, err = run(capsys, "spec.toml")
    assert code == 2
    assert words in err


def test_help_lists_a_new_rule(folder, capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "a number of at least 1 (segments): the mean number of segments is at most this" in " ".join(out.split())
