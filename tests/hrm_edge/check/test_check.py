"""`hrm-edge check` from the outside: honest, degraded, malformed, its baseline, and many at once."""

import json
import re
import subprocess
import sys

import pytest
from toy_checks import SPEC, degrade, refusal, run
from toys import host_engine, write_toy_bundle

from hrm_edge.bundle import Gate

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from hrm_edge.measure import reference  # noqa: E402

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
    threads = torch.get_num_threads()
    assert json.loads((based / "baseline.json").read_text())["checks"]["toy"]["toy"]["speed_ratio"] is None
    speed = "checkpoint = 'float'\nmin_speed_ratio = 0\nmax_speed_loss = 1\n"
    (based / "spec.toml").write_text(f"baseline = 'b.json'\n[[check]]\nname = 'x'\nbundle = 'toy'\n{speed}")
    # The engine that stands in for PyTorch must be told apart from the bundle's.
    eager = host_engine()
    eager.backend = "torch"
    monkeypatch.setattr(reference, "TorchEngine", lambda *_, **__: eager)
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
