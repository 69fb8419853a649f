"""`hrm-edge check` from the outside: honest, degraded, malformed, and every sabotage with its own reason."""

import dataclasses
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from toys import TASK, accuracy, host_engine, manifest, write_bundle, write_hollow_bundle, write_toy_bundle

from hrm_edge.bundle import Gate, Manifest, seal_bundle
from hrm_edge.bundle import folder as folder_module
from hrm_edge.bundle.quantization import QUANTIZATION, Calibration, Products, Quantization
from hrm_edge.check.baseline import pack, read_baseline, write_baseline
from hrm_edge.check.measure import Runner
from hrm_edge.cli import main
from hrm_edge.data.leaks import distinct_puzzles, fingerprints
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles, load_puzzles, save_puzzles
from hrm_edge.exporters import audit
from hrm_edge.files import sha256
from hrm_edge.records import from_json
from hrm_edge.runtimes import backend

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from hrm_edge.measure import reference  # noqa: E402
from hrm_edge.models import HRMConfig, build_model, load_checkpoint, save_checkpoint  # noqa: E402

SPEC = """\
baseline = "baseline.json"

[[check]]
name = "toy"
bundle = "toy"
data = "puzzles.csv"
checkpoint = "float"
min_exact = 0.9
max_drop = 5
max_drop_vs_baseline = 5
min_agreement = 0.9
max_size_mb = 1
"""


def different(seed: int) -> PuzzleSet:
    """200 puzzles, none of them another one turned or renamed."""
    return distinct_puzzles(generate_puzzles(TASK, 300, seed)).select(np.arange(200))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A float checkpoint, another one, and bundles that say they were made from the first."""
    folder = tmp_path_factory.mktemp("made")
    config = HRMConfig(TASK.vocab_size, TASK.seq_len, hidden_size=16, num_heads=2, H_layers=1, L_layers=1)
    for seed, name in enumerate(("float", "retrained")):
        torch.manual_seed(seed)
        save_checkpoint(folder / name, build_model(config, TASK), TASK.name, "# test", {})
    source = {"name": "float", "content_hash": load_checkpoint(folder / "float").content_hash}
    write_toy_bundle(folder / "honest", source=source)
    write_variant(folder / "degraded", source, threshold=7.5)
    save_puzzles(different(0), folder / "puzzles.csv")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A working folder with the honest bundle in place; the float checkpoint answers as the toy does."""
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "TorchEngine", lambda *_: host_engine())
    monkeypatch.chdir(tmp_path)
    for name in ("float", "retrained", "puzzles.csv", "honest", "degraded"):
        (tmp_path / name).symlink_to(made / name)
    (tmp_path / "toy").symlink_to(made / "honest")
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path


def write_variant(path: Path, source, threshold: float = 15.5, record: Quantization | None = None) -> None:
    """The toy with a record of quantization, or halting as soon as `threshold` of its 16 cells are filled."""
    import toy_graphs
    from onnx import numpy_helper

    def produce(scratch: Path) -> None:
        for name, model in toy_graphs.models("host", "dynamic").items():
            for constant in model.graph.initializer:
                if constant.name == "threshold":
                    constant.CopyFrom(numpy_helper.from_array(np.float32(threshold), "threshold"))
            toy_graphs.save(model, scratch / name, "onnx")
        if record is not None:
            (scratch / QUANTIZATION).write_text(record.to_json())

    precision = "fp32" if record is None else record.precision
    write_bundle(path, manifest(source=source, precision=precision), produce, accuracy())


def degrade(folder: Path) -> None:
    (folder / "toy").unlink()
    (folder / "toy").symlink_to((folder / "degraded").resolve())


def run(capsys, *arguments):
    """(exit code, stdout, stderr)"""
    with pytest.raises(SystemExit) as stopped:
        main(["check", *map(str, arguments)])
    output = capsys.readouterr()
    return stopped.value.code or 0, output.out, output.err


@pytest.fixture
def based(folder, capsys):
    """The folder after its baseline was written."""
    code, out, _ = run(capsys, "spec.toml", "--update-baseline")
    assert code == 0
    assert "toy / toy / puzzles.csv: new, exact" in out
    return folder


def refusal(capsys, *arguments) -> str:
    """The one line of an input error."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), (out, err)
    assert len(err.strip().splitlines()) == 1
    return err.strip()


# -- what must be shown --------------------------------------------------------------------------------


def test_an_honest_bundle_passes(based, capsys):
    code, out, err = run(capsys, "spec.toml")
    assert code == 0
    assert "5 of 5 rules hold" in out
    assert "FAIL" not in out
    assert err == ""


def test_a_degraded_bundle_fails_by_name_figure_and_worst_puzzles(based, capsys):
    degrade(based)
    code, out, err = run(capsys, "spec.toml")
    assert code == 1
    assert out.count("FAIL") == 4
    assert "fail on puzzles.csv: max_drop = 5: exact-solve accuracy dropped" in out
    assert "max_drop_vs_baseline on puzzles.csv: the worst puzzles" in out
    drawn = re.findall(r"puzzle (\d+): \d+ cells differ from the right answer \(marked \*\)", out)
    assert len(drawn) == len(set(drawn)) == 5  # the worst of three rules are the same: drawn once
    assert re.search(r"spec.toml:8: toy / toy / puzzles.csv: min_exact = 0.9: \d+\.\d\d % solved", err)
    assert err.strip().endswith("(and 3 more: max_drop, max_drop_vs_baseline, min_agreement)")


def test_a_malformed_spec_names_its_line(folder, capsys):
    (folder / "spec.toml").write_text(SPEC.replace("max_drop = 5", "max_dorp = 5"))
    line = refusal(capsys, "spec.toml")
    assert line == "hrm-edge: spec.toml:9: unknown key 'max_dorp'; did you mean 'max_drop'?"


# -- sabotage ------------------------------------------------------------------------------------------


def test_a_baseline_edited_by_hand(based, capsys):
    path = based / "baseline.json"
    content = json.loads(path.read_text())
    content["checks"]["toy"]["toy"]["data"]["puzzles.csv"]["exact"] = 0.5
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    line = refusal(capsys, "spec.toml")
    assert "baseline.json: was edited by hand" in line
    assert line.endswith("`hrm-edge check spec.toml --update-baseline`")


def record(source, seen: tuple[str, ...], products: Products) -> Quantization:
    """Of a bundle that was calibrated on puzzles with these fingerprints."""
    how = {"puzzles": "some", "n": 8, "segments": "all", "estimator": "mse", "smooth": 0.0, "samples": 8}
    calibration = Calibration(**how, fingerprints=seen)
    return Quantization("int8", source["content_hash"], 1, 4, (), calibration=calibration, products=products)


def test_calibration_data_in_the_test_set(folder, capsys, monkeypatch):
    monkeypatch.setattr(audit, "compare_products", lambda *_: Products(4, 4, {}, ()))
    source = {"name": "float", "content_hash": load_checkpoint(folder / "float").content_hash}
    seen = fingerprints(different(0))[:3]
    whole, fake = Products(4, 4, {}, ()), Products(4, 1, {}, ("a", "b", "c"))
    write_variant(folder / "leaky", source, record=record(source, seen, whole))
    write_variant(folder / "clean", source, record=record(source, ("0" * 16,), whole))
    write_variant(folder / "fake", source, record=record(source, ("0" * 16,), fake))
    spec = "[[check]]\nname = 'q'\nbundle = 'leaky'\ndata = 'puzzles.csv'\nmin_exact = 0\nquantized = true\n"
    (folder / "spec.toml").write_text(spec)
    line = refusal(capsys, "spec.toml")
    assert "spec.toml:4: leaky on puzzles.csv: " in line
    assert "or their solutions, were used for calibration" in line
    (folder / "spec.toml").write_text(spec.replace("leaky", "clean"))
    assert run(capsys, "spec.toml")[0] == 0
    (folder / "spec.toml").write_text(spec.replace("leaky", "fake"))
    code, _, err = run(capsys, "spec.toml")
    assert code == 1
    assert (
        "quantized: 1 of 4 expected low-precision products were compiled as such at its export; not a, b, c" in err
    )


@pytest.mark.parametrize("counted", [4, 1])
def test_a_float_graph_with_a_record_of_int8(folder, capsys, counted):
    """What the record says of the export is no proof of what runs."""
    source = {"name": "float", "content_hash": load_checkpoint(folder / "float").content_hash}
    write_variant(folder / "swapped", source, record=record(source, (), Products(counted, counted, {}, ())))
    (folder / "spec.toml").write_text("[[check]]\nname = 'q'\nbundle = 'swapped'\nquantized = true\n")
    code, _, err = run(capsys, "spec.toml")
    assert code == 1
    assert f"quantized: 0 of {counted} expected low-precision products are compiled as such here" in err


@pytest.mark.parametrize("wrong", ["precision", "checkpoint"])
def test_a_record_of_another_bundle(folder, capsys, wrong):
    source = {"name": "float", "content_hash": load_checkpoint(folder / "float").content_hash}
    made = record(source, (), Products(4, 4, {}, ()))
    write_variant(folder / "swapped", source, record=made)
    other = {"precision": "int4-weights", "checkpoint": "0" * 64}[wrong]
    (folder / "swapped" / QUANTIZATION).write_text(dataclasses.replace(made, **{wrong: other}).to_json())
    seal_bundle(folder / "swapped", open_manifest(folder / "swapped"), accuracy())
    (folder / "spec.toml").write_text("[[check]]\nname = 'q'\nbundle = 'swapped'\nmax_size_mb = 1\n")
    line = refusal(capsys, "spec.toml")
    assert "spec.toml:3: swapped/quantization.json: is of " in line
    assert line.endswith("export it again")


def open_manifest(path: Path) -> Manifest:
    """Of a bundle in which something else was changed."""
    content = json.loads((path / "manifest.json").read_text())
    del content["digest"]
    return from_json(Manifest, json.dumps(content), path)


def test_a_bundle_replaced_while_it_is_measured(folder, capsys, monkeypatch):
    """Neither verified nor in the baseline: what was measured is not what stands there."""
    measure, seen = Runner.measure, []

    def replaced(self, case):
        found = measure(self, case)
        degrade(folder)
        return found

    monkeypatch.setattr(Runner, "measure", replaced)
    monkeypatch.setattr(type(backend("onnx")), "mark_verified", lambda self, bundle: seen.append(bundle))
    assert "toy: was replaced while it was measured" in refusal(capsys, "spec.toml", "--update-baseline")
    assert not (folder / "baseline.json").exists()
    assert seen == []


def test_only_answers_verify_a_bundle(folder, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(type(backend("onnx")), "mark_verified", lambda self, bundle: seen.append(bundle.sha256))
    sized = SPEC.replace("min_exact = 0.9", "max_size_mb = 1").split("checkpoint")[0] + "max_size_mb = 1\n"
    (folder / "spec.toml").write_text(sized)
    assert run(capsys, "spec.toml")[0] == 0
    assert seen == []
    (folder / "spec.toml").write_text(sized + "min_exact = 0.9\n")
    assert run(capsys, "spec.toml")[0] == 0
    assert seen == [sha256(folder / "toy" / "manifest.json")]


def test_a_bundle_that_vanished_from_a_pattern(folder, capsys):
    (folder / "also").symlink_to((folder / "toy").resolve())
    (folder / "spec.toml").write_text(SPEC.replace('"toy"\ndata', '["toy", "als*"]\ndata'))
    assert run(capsys, "spec.toml", "--update-baseline")[0] == 0
    assert run(capsys, "spec.toml")[0] == 0
    (folder / "also").unlink()
    (folder / "als").symlink_to((folder / "toy").resolve())
    line = refusal(capsys, "spec.toml")
    assert "baseline.json: has no entry for als" in line
    (folder / "spec.toml").write_text(SPEC.replace("max_drop_vs_baseline = 5\n", ""))
    line = refusal(capsys, "spec.toml")
    assert "baseline.json: has toy / also, which is no longer there to be measured; when that is meant" in line
    assert line.endswith("`hrm-edge check spec.toml --update-baseline`")
    assert run(capsys, "spec.toml", "--update-baseline")[0] == 0
    assert run(capsys, "spec.toml")[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "toy"', 'name = "other"', "has no entry for other / toy"),
        ('"puzzles.csv"', '["puzzles.csv", "generated:9@3"]', "has no entry for toy / toy on generated:9@3"),
        ('"puzzles.csv"', '"generated:9@3"', "has toy / toy on puzzles.csv, which is no longer measured"),
    ],
)
def test_what_no_rule_compares_must_be_in_the_baseline_too(based, capsys, old, new, words):
    (based / "spec.toml").write_text(SPEC.replace("max_drop_vs_baseline = 5\n", "").replace(old, new))
    line = refusal(capsys, "spec.toml")
    assert words in line
    assert line.endswith("`hrm-edge check spec.toml --update-baseline`")


def test_copies_count_once(folder, capsys):
    """400 copies of one puzzle are one, not 99.05 to 100 %."""
    one = different(0).select(np.zeros(400, int))
    questions, answers = TASK.augment(np.random.default_rng(0), one.questions, one.answers)
    (folder / "puzzles.csv").unlink()
    save_puzzles(dataclasses.replace(one, questions=questions, answers=answers), folder / "puzzles.csv")
    (folder / "spec.toml").write_text("[[check]]\nname='c'\nbundle='toy'\ndata='puzzles.csv'\nmin_exact=0.1\n")
    _, out, err = run(capsys, "spec.toml", "--json")
    assert json.loads(out)["results"][0]["n"] == 1
    assert "399 of 400 puzzles are others again" in err


def test_a_baseline_that_lies_about_how_many_puzzles_there_were(based, capsys):
    """Its digest is no signature: whoever lies can compute it."""
    before = read_baseline(based / "baseline.json", "")
    ((key, entry),) = [(key, entry) for key, entry in before.items() if entry.data]
    fewer = {
        label: dataclasses.replace(sample, n=3, right=pack(np.ones(3, bool)), exact=1.0)
        for label, sample in entry.data.items()
    }
    write_baseline(based / "baseline.json", {**before, key: dataclasses.replace(entry, data=fewer)})
    assert "held other puzzles" in refusal(capsys, "spec.toml")


def test_a_bundle_is_read_whole_once_before_and_once_after_it_is_measured(based, capsys, monkeypatch):
    opened = []
    real = folder_module._open
    monkeypatch.setattr(folder_module, "_open", lambda path: opened.append(path) or real(path))
    assert run(capsys, "spec.toml")[0] == 0
    assert len(opened) == 2 * len({str(path) for path in opened})


def test_a_swapped_checkpoint(based, capsys):
    (based / "spec.toml").write_text(SPEC.replace('checkpoint = "float"', 'checkpoint = "retrained"'))
    made_from, other = [load_checkpoint(based / name).content_hash[:12] for name in ("float", "retrained")]
    line = refusal(capsys, "spec.toml")
    assert line == (
        f"hrm-edge: spec.toml:7: toy was made from the checkpoint {made_from}, but retrained is {other}: it was "
        "swapped or changed since; name the right one, or export the bundle again"
    )


def test_other_puzzles_than_in_the_baseline(based, capsys):
    (based / "puzzles.csv").unlink()
    save_puzzles(different(5), based / "puzzles.csv")
    line = refusal(capsys, "spec.toml")
    assert "baseline.json: puzzles.csv held other puzzles" in line
    assert "max_drop_vs_baseline of 'toy' (spec.toml:10) can not be judged" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "min_exact = 0.9",
            "halt = 'verified'",
            "was measured with learned halting and at most 8 segments, now verif",
        ),
        ("min_exact = 0.9", "max_think_steps = 3", "and at most 8 segments, now learned and 3"),
        ('name = "toy"', 'name = "other"', "has no entry for toy"),
        ("puzzles.csv", "generated:9@3", "has no entry for toy on generated:9@3"),
        ("max_drop = 5", "max_speed_loss = 0.2", "has no speed for toy"),
        ('bundle = "toy"', 'bundle = "absent"', "spec.toml:5: absent: no such bundle folder"),
        ('bundle = "toy"', 'bundle = "float"', "spec.toml:5: float: is a checkpoint, not a bundle"),
        ('bundle = "toy"', 'bundle = "hollow"', "spec.toml:5: "),
        ("puzzles.csv", "absent.csv", "spec.toml:6: there is no file absent.csv"),
        ("puzzles.csv", "generated:9:absurd", "spec.toml:6: sudoku-4x4 has no difficulty 'absurd'"),
        ('"float"', '"honest"', "spec.toml:7: honest: is a bundle; name the float checkpoint it was made from"),
        ('"float"', '"absent"', "spec.toml:7: absent: no such checkpoint"),
        (
            "baseline.json",
            "absent.json",
            "absent.json: there is no baseline yet; write it with `hrm-edge check spec.t",
        ),
    ],
)
def test_what_can_not_be_judged_is_one_line(based, capsys, old, new, words):
    write_hollow_bundle(based / "hollow", source={"name": "float", "content_hash": "0" * 64})
    (based / "spec.toml").write_text(SPEC.replace(old, new))
    assert words in refusal(capsys, "spec.toml", "--json")


# -- the baseline --------------------------------------------------------------------------------------


def test_an_update_tells_what_changed_and_is_the_same_every_time(based, capsys):
    before = (based / "baseline.json").read_bytes()
    _, out, _ = run(capsys, "spec.toml", "--update-baseline")
    assert "baseline written; nothing changed" in out
    assert (based / "baseline.json").read_bytes() == before
    (based / "spec.toml").write_text(
        "\n".join(line for line in SPEC.splitlines() if not line.startswith(("min_", "max_drop = ", "checkpoint")))
    )
    degrade(based)
    code, out, _ = run(capsys, "spec.toml", "--update-baseline")
    assert code == 0
    assert re.search(r"toy / toy / puzzles.csv: exact 1 → 0\.\d+", out)
    assert re.search(r"toy / toy / puzzles.csv: \d+ puzzles lost, 0 won", out)
    assert run(capsys, "spec.toml")[0] == 0


def test_a_bundle_that_fails_is_no_baseline(based, capsys):
    before = (based / "baseline.json").read_bytes()
    degrade(based)
    code, out, err = run(capsys, "spec.toml", "--update-baseline")
    assert code == 1
    assert "the baseline was not written" in err
    assert "max_drop_vs_baseline" not in out
    assert (based / "baseline.json").read_bytes() == before


def test_an_update_replaces_what_was_edited_and_says_so(based, capsys):
    good = (based / "baseline.json").read_bytes()
    (based / "baseline.json").write_text("{}")
    code, _, err = run(capsys, "spec.toml", "--update-baseline")
    assert code == 0
    assert "replacing the old baseline unread: baseline.json: was edited by hand" in err
    assert (based / "baseline.json").read_bytes() == good


def test_nothing_to_update(folder, capsys):
    (folder / "spec.toml").write_text("[[check]]\nname = 'x'\nbundle = 'toy'\nmax_size_mb = 1\n")
    assert "spec.toml:1: names no baseline to write" in refusal(capsys, "spec.toml", "--update-baseline")


# -- outputs -------------------------------------------------------------------------------------------


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


# -- many at once --------------------------------------------------------------------------------------


def test_every_bundle_and_every_data_set_is_answered_once(folder, capsys, monkeypatch):
    from hrm_edge.check import measure

    calls = []
    real = measure.answer_all
    monkeypatch.setattr(measure, "answer_all", lambda *a, **k: calls.append(k["halt"]) or real(*a, **k))
    check = "[[check]]\nname = '{}'\nbundle = ['hon*', 'degraded']\ndata = ['puzzles.csv', 'generated:20@4']\n{}\n"
    rules = "min_exact = 0.1\nmin_agreement = 0\ncheckpoint = 'float'"
    (folder / "spec.toml").write_text(check.format("one", rules) + check.format("two", "min_exact = 0.2"))
    code, out, _ = run(capsys, "spec.toml", "--json")
    results = json.loads(out)["results"]
    assert len(results) == 2 * 2 * 3
    assert len({(r["check"], r["bundle"], r["data"], r["rule"]) for r in results}) == 12
    assert len(calls) == 4
    assert code in (0, 1)


def test_n_caps_a_data_set(folder, capsys):
    (folder / "spec.toml").write_text(
        "[[check]]\nname = 'x'\nbundle = 'toy'\ndata = ['puzzles.csv', 'generated:90']\nn = 30\nmin_exact = 0\n"
    )
    results = json.loads(run(capsys, "spec.toml", "--json")[1])["results"]
    assert [result["n"] for result in results] == [30, 30]


def test_speed_is_measured_and_kept_only_where_a_rule_asks(based, capsys, monkeypatch):
    from hrm_edge.measure import speed as bench

    monkeypatch.setattr(bench, "_SGEMM", 32)
    threads = torch.get_num_threads()
    assert json.loads((based / "baseline.json").read_text())["checks"]["toy"]["toy"]["speed_ratio"] is None
    speed = "checkpoint = 'float'\nmin_speed_ratio = 0\nmax_speed_loss = 1\n"
    (based / "spec.toml").write_text(f"baseline = 'b.json'\n[[check]]\nname = 'x'\nbundle = 'toy'\n{speed}")
    # The engine that stands in for PyTorch must be told apart from the bundle's.
    eager = host_engine()
    eager.backend = "torch"
    monkeypatch.setattr(reference, "TorchEngine", lambda *_: eager)
    assert run(capsys, "spec.toml", "--update-baseline")[0] == 0
    assert json.loads((based / "b.json").read_text())["checks"]["x"]["toy"]["speed_ratio"] > 0
    code, out, _ = run(capsys, "spec.toml", "--json")
    assert code == 0
    assert [result["rule"] for result in json.loads(out)["results"]] == ["max_speed_loss", "min_speed_ratio"]
    torch.set_num_threads(threads)


def test_an_unchecked_bundle_is_pointed_out(folder, capsys):
    (folder / "toy").unlink()
    write_toy_bundle(folder / "toy", gate=Gate(False, None, "--no-gate"))
    (folder / "spec.toml").write_text("[[check]]\nname = 'x'\nbundle = 'toy'\nmax_size_mb = 1\n")
    code, _, err = run(capsys, "spec.toml", "--json")
    assert code == 0
    assert "warning: toy: its accuracy was never checked" in err


def test_no_torch_is_needed_without_a_checkpoint(folder):
    lines = [line for line in SPEC.splitlines() if not line.startswith(("checkpoint", "max_drop = ", "min_agree"))]
    (folder / "spec.toml").write_text("\n".join(lines))
    code = "import sys; sys.modules['torch'] = None; from hrm_edge.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "check", "spec.toml"]
    for extra in (["--update-baseline"], []):
        done = subprocess.run([*command, *extra], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "3 of 3 rules hold" in done.stdout
    (folder / "spec.toml").write_text(SPEC)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert "spec.toml:7: " in done.stderr
    assert "needs PyTorch" in done.stderr
