"""What `hrm-edge check` writes: JSON, Markdown, JUnit and its table, with whatever text of strangers."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from toy_checks import SPEC, degrade, refusal, run
from toys import TASK, host_engine

from hrm_edge.cli import main
from hrm_edge.data.puzzles import load_puzzles

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")


def test_json_is_one_object_and_nothing_else(based, capsys):
    degrade(based)
    code, out, _ = run(capsys, "spec.toml", "--json")
    content = json.loads(out)
    assert (code, content["passed"], content["updated"]) == (1, False, None)
    by_rule = {result["rule"]: result for result in content["results"]}
    assert set(by_rule) == {"min_exact", "max_drop", "max_drop_vs_baseline", "min_agreement", "max_size_mb"}
    assert by_rule["max_drop"]["figure"] == by_rule["max_drop_vs_baseline"]["figure"] > 5
    assert by_rule["max_drop"]["n"] == 200
    assert len(by_rule["max_drop"]["worst"]) == 5
    worst = by_rule["max_drop"]["worst"][0]
    assert TASK.parse(worst["question"]).shape == (16,)
    assert sum(a != b for a, b in zip(worst["answer"], worst["wanted"], strict=True)) == worst["cells"]
    assert by_rule["max_size_mb"]["passed"]


def test_puzzles_without_a_label_are_in_no_figure(folder, capsys, monkeypatch):
    """As in an ARC set whose outputs are secret: half of the 200."""
    puzzles = load_puzzles(folder / "puzzles.csv", TASK)
    right = (host_engine().solve(puzzles.questions).tokens == puzzles.answers).all(axis=1)
    labels = np.zeros_like(puzzles.answers)
    labels[np.flatnonzero(right)[:100]] = puzzles.answers[right][:100]
    secret = dataclasses.replace(puzzles, answers=labels)
    monkeypatch.setattr("hrm_edge.data.choose.load_puzzles", lambda path, task: secret)
    monkeypatch.setattr(type(TASK), "has_rules", False)  # nothing but the label tells
    lines = [line for line in SPEC.splitlines() if "baseline" not in line]
    (folder / "spec.toml").write_text("\n".join(lines))
    code, out, _ = run(capsys, "spec.toml", "--json")
    by_rule = {result["rule"]: result for result in json.loads(out)["results"]}
    assert code == 0
    assert (by_rule["min_exact"]["figure"], by_rule["min_exact"]["n"]) == (1.0, 100)
    assert (by_rule["min_agreement"]["figure"], by_rule["min_agreement"]["n"]) == (1.0, 100)


def test_markdown_and_junit_hold_every_rule(based, capsys):
    degrade(based)
    assert run(capsys, "spec.toml", "--markdown", "out/check.md", "--junit", "out/check.xml")[0] == 1
    text = (based / "out/check.md").read_text()
    assert text.startswith("### ❌ hrm-edge check: 1 of 5 rules hold, 4 failed")
    assert len([line for line in text.splitlines() if line.startswith("| m")]) == 5
    assert text.count("<details>") == text.count("</details>") == 4
    suite = ET.parse(based / "out/check.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("5", "4")
    failed = {case.get("name"): case.find("failure") for case in suite if case.find("failure") is not None}
    assert set(failed) == {
        f"{rule} on puzzles.csv" for rule in ("min_exact", "max_drop", "max_drop_vs_baseline", "min_agreement")
    }
    assert failed["max_drop on puzzles.csv"].get("message").startswith("max_drop = 5: exact-solve accuracy dropped")
    assert "question" in failed["max_drop on puzzles.csv"].text


def test_names_from_the_spec_can_not_break_the_outputs(folder, capsys):
    name = "a|b <c> & `d` *e* \\ ]]> \U0001f600"
    (folder / "spec.toml").write_text(f"[[check]]\nname = '{name}'\nbundle = 'toy'\nmax_size_mb = 0.0001\n")
    assert run(capsys, "spec.toml", "--markdown", "m.md", "--junit", "j.xml")[0] == 1
    (case,) = ET.parse(folder / "j.xml").getroot().iter("testcase")
    assert case.get("classname") == f"{name}/toy"
    assert "a\\|b &lt;c&gt;" in (folder / "m.md").read_text()


# Of JUnit's schema, as strict readers have it: element → its attributes, and the elements in it.
JUNIT = {
    "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        {
            "name",
            "tests",
            "failures",
            "errors",
            "time",
            "disabled",
            "skipped",
            "timestamp",
            "hostname",
            "id",
            "package",
        },
        {"testcase"},
    ),
    "testcase": (
        {"name", "assertions", "time", "classname", "status"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def test_junit_is_valid_for_strict_readers(based, capsys):
    """Nothing but what the schema has, in whatever text, and every count is what is there."""
    degrade(based)
    (based / "toy\x0b").symlink_to(based / "toy")
    run(capsys, "spec.toml", "--junit", "j.xml")
    root = ET.parse(based / "j.xml").getroot()
    for element in root.iter():
        attributes, inside = JUNIT[element.tag]
        assert set(element.attrib) <= attributes
        assert {child.tag for child in element} <= inside
    cases, failures = len(list(root.iter("testcase"))), len(list(root.iter("failure")))
    assert (cases, failures) == (5, 4)
    for element in (root, *root):
        counts = (element.get("tests"), element.get("failures"), element.get("errors"), element.get("skipped", "0"))
        assert counts == (str(cases), str(failures), "0", "0")


def test_strangers_text_in_the_outputs_is_written_out():
    """Control characters, which XML may not hold at all, and what a page or a log would take for a command."""
    from hrm_edge.check import output
    from hrm_edge.check.findings import Finding
    from hrm_edge.check.rules import RULES
    from hrm_edge.check.run import CheckReport
    from hrm_edge.check.verdicts import Verdict

    text = "[/x] \x1b[2J\x00\x0b\ufffe\ud800\r\n::error::y\u202e </td><script>`|*a*|` ##[error]z"
    finding = Finding(0.5, text, good=False)
    verdicts = tuple(
        Verdict(text, text, text, rule, 0.9, 1, finding, False, "fail") for rule in list(RULES.values())[:2]
    )
    report = CheckReport(text, "fail", verdicts, (text,))
    root = ET.fromstring(output.junit(report))
    assert root.get("failures") == "2"
    for shown in (output.junit(report), output.markdown(report)):
        assert all(line.isprintable() for line in shown.split("\n"))
        assert not any(line.lstrip().startswith("::") for line in shown.split("\n"))
        assert "<script" not in re.sub("`` .* ``", "", shown)  # a code span is literal
        assert "##[" not in shown
    assert len([line for line in output.markdown(report).splitlines() if line.startswith("| ")]) == 4


def test_a_failed_check_fails_whatever_becomes_of_its_table(based, monkeypatch, capsys):
    import io

    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    degrade(based)
    for more in ([], ["--json"]):
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", Closed())
            with pytest.raises(SystemExit) as stopped:
                main(["check", "spec.toml", *more])
        assert stopped.value.code == 1


def test_a_folder_to_write_to_is_refused_before_any_work(folder, capsys):
    assert "is a folder; give the name of a file" in refusal(capsys, "spec.toml", "--junit", folder)
