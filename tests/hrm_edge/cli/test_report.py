"""`hrm-edge report` as typed: a summary, the page copied out, one line when there is nothing to show."""

import json
import shutil

import commands
import pytest
from sample_report import report
from toys import manifest, write_hollow_bundle

from hrm_edge.bundle import Gate, seal_bundle
from hrm_edge.packages import install
from hrm_edge.report import write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle with a report in it."""
    folder = tmp_path_factory.mktemp("bundles") / "toy-int8"
    facts = manifest(name="toy-int8", precision="int8")
    write_hollow_bundle(folder, precision="int8")
    write_report(report(), folder)
    seal_bundle(folder, facts)
    return folder


def run(capsys, *arguments):
    return commands.run(capsys, "report", *arguments)


def test_the_summary(made, capsys):
    code, out, err = run(capsys, made)
    assert (code, err) == (0, "")
    assert out.startswith(f"{made}: passed on n=20")
    for shown in ("70.00 %", "60.00 %", "p = 0.62", "6 of 6", "more bits: H_level.layers.0.self_attn.qkv_proj"):
        assert shown in out
    assert f"page: {made / 'report.html'}" in out
    assert max(map(len, out.splitlines())) < 200


@pytest.mark.parametrize("kind", ["html", "md", "json"])
def test_copied_out_as_it_is(made, tmp_path, capsys, kind):
    target = tmp_path / "deep" / f"copy.{kind.upper()}"
    code, out, err = run(capsys, made, "-o", target)
    assert (code, out) == (0, "")
    assert str(target) in err
    assert target.read_bytes() == (made / f"report.{kind}").read_bytes()


def test_json_is_one_object_and_nothing_else(made, tmp_path, capsys):
    code, out, err = run(capsys, made, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((made / "report.json").read_text())
    _, again, _ = run(capsys, made, "--json", "-o", tmp_path / "x.html")
    assert again == out
    assert (tmp_path / "x.html").is_file()


def test_needs_nothing_that_draws(made, tmp_path, capsys, monkeypatch):
    """A device may look at the report that its bundle brings."""
    for package in ("jinja2", "matplotlib", "torch"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    assert run(capsys, made)[0] == 0
    assert run(capsys, made, "-o", tmp_path / "x.json")[0] == 0
    assert install("report") in refused(capsys, made, "-o", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def refused(capsys, *arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    return err


def test_bundles_without_a_report(tmp_path, capsys):
    kinds = {
        "fp32": ({}, "nothing is quantized in it"),
        "ungated": ({"precision": "int8", "gate": Gate(False, None, "--no-gate")}, "without its accuracy gate"),
        "old": ({"precision": "int8"}, "before there were reports"),
    }
    for name, (changes, why) in kinds.items():
        write_hollow_bundle(tmp_path / name, **changes)
        message = refused(capsys, tmp_path / name)
        assert why in message
        assert "hrm-edge export CHECKPOINT --precision int8" in message


def test_wrong_outputs(made, tmp_path, capsys):
    assert "written as .html, .md or .json" in refused(capsys, made, "-o", tmp_path / "x.pdf")
    (tmp_path / "folder.md").mkdir()
    assert "is a folder" in refused(capsys, made, "-o", tmp_path / "folder.md")
    assert "may not change" in refused(capsys, made, "-o", made / "new.html")
    assert "no such bundle" in refused(capsys, tmp_path / "nowhere")


def test_a_changed_report_is_noticed(made, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    page = copy / "report.html"
    page.write_text(page.read_text().replace("60.00 %", "70.00 %"))
    assert "its content was changed" in refused(capsys, copy)


def test_a_damaged_report_is_one_line(made, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    content = json.loads((copy / "report.json").read_text())
    content["gate"]["n"] = "many"
    (copy / "report.json").write_text(json.dumps(content))
    seal_bundle(copy, manifest(name="toy-int8", precision="int8"))
    assert "gate.n must be a whole number" in refused(capsys, copy)
