"""What was swapped, edited or replaced behind `hrm-edge check`: every sabotage with its own reason."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from toy_checks import SPEC, degrade, different, refusal, run, write_variant
from toys import TASK, accuracy, write_hollow_bundle

from hrm_edge.bundle import Manifest, seal_bundle
from hrm_edge.bundle import folder as folder_module
from hrm_edge.bundle.quantization import QUANTIZATION, Calibration, Products, Quantization
from hrm_edge.check.baseline import pack, read_baseline, write_baseline
from hrm_edge.check.measure import Runner
from hrm_edge.data.leaks import fingerprints
from hrm_edge.data.puzzles import save_puzzles
from hrm_edge.exporters import audit
from hrm_edge.files import sha256
from hrm_edge.records import from_json
from hrm_edge.runtimes import backend

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from hrm_edge.models import load_checkpoint


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
