"""`hrm-edge env` and the public names: what is usable, why not, and nothing heavy until it is asked for."""

import builtins
import importlib.util
import json
import subprocess
import sys

import pytest
import toys

import hrm_edge
from hrm_edge import environment
from hrm_edge.bundle import Gate
from hrm_edge.cli import main


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["env", *arguments])
        output = capsys.readouterr()
        return stopped.value.code or 0, output.out, output.err

    return run


def without(monkeypatch, *packages):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in packages else found(name))


def backends(out):
    return {row["name"]: row for row in json.loads(out)["backends"]}


def test_every_backend_is_listed_with_its_reason(run):
    code, out, err = run("--json")
    assert (code, err) == (0, "")
    rows = backends(out)
    assert set(rows) == {"onnx", "openvino", "tensorrt", "coreml", "torch", "torch+onnx"}
    for row in rows.values():
        assert row["usable"] == (row["why_not"] is None)
        assert not row["usable"] or row["version"]
    content = json.loads(out)
    assert content["hrm_edge"] == hrm_edge.__version__
    assert content["threads"] >= 1
    assert content["bundles"] == []


@pytest.mark.parametrize("name", ["tensorrt", "coreml"])
def test_what_does_not_exist_yet_is_not_promised(run, name):
    row = backends(run("--json")[1])[name]
    assert not row["usable"]
    assert row["install"] is None
    assert "this version of hrm-edge" in row["why_not"]


def test_what_is_missing_says_what_to_install(run, monkeypatch):
    without(monkeypatch, "openvino", "torch", "onnx")
    rows = backends(run("--json")[1])
    assert rows["openvino"]["why_not"] == "openvino is not installed"
    assert rows["openvino"]["install"] == "pip install 'hrm-edge[openvino]'"
    assert rows["torch"]["why_not"] == "torch is not installed"
    assert rows["torch"]["install"] == "pip install 'hrm-edge[train]'"
    assert rows["torch+onnx"]["install"] == "pip install 'hrm-edge[export]'"
    text = run()[1]
    assert "openvino   no   openvino is not installed" in text
    assert "run: pip install 'hrm-edge[openvino]'" in text


def test_text_names_the_machine(run):
    _, out, _ = run()
    assert f"hrm-edge {hrm_edge.__version__}, Python " in out
    assert "CPU: " in out
    assert "\nrun bundles\n" in out


def test_bundles_under_the_folder_are_found_and_the_ungated_named(run, tmp_path):
    toys.write_hollow_bundle(tmp_path / "bundles" / "good")
    toys.write_hollow_bundle(tmp_path / "bundles" / "hasty", gate=Gate(False, None, "asked for with --no-gate"))
    toys.write_hollow_bundle(tmp_path / "bundles" / "alien", target="tensorrt")
    broken = toys.write_hollow_bundle(tmp_path / "bundles" / "broken")
    (broken / "start.onnx").unlink()
    states = {state["path"].split("/")[-1]: state for state in json.loads(run("--json")[1])["bundles"]}
    assert set(states) == {"good", "hasty", "alien", "broken"}
    assert (states["good"]["gated"], states["good"]["ungated"]) == (True, None)
    assert not states["hasty"]["gated"]
    assert "never checked" in states["hasty"]["ungated"]
    assert states["alien"]["problem"] == "tensorrt is not usable here"
    assert "is missing" in states["broken"]["problem"]
    text = run()[1]
    assert "NOT GATED" in text
    assert "BROKEN" in text


def test_given_bundles(run, tmp_path):
    toys.write_hollow_bundle(tmp_path / "bundles" / "ignored")
    path = toys.write_hollow_bundle(tmp_path / "mine")
    assert [state["path"] for state in json.loads(run("--json", str(path))[1])["bundles"]] == [str(path)]
    code, out, err = run(str(tmp_path / "none"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_a_broken_torch_is_reported(monkeypatch):
    importing = builtins.__import__

    def broken(name, *rest):
        if name == "torch":
            raise OSError("libtorch.so: wrong ELF class\nand more")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    rows = {row.name: row for row in environment.look_around().backends}
    assert not rows["torch"].usable
    assert rows["torch"].why_not == "torch does not load: libtorch.so: wrong ELF class"


def test_public_names():
    for name in hrm_edge.__all__:
        assert getattr(hrm_edge, name).__name__ == name
        assert name in dir(hrm_edge)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = hrm_edge.nothing_like_it


def test_importing_the_package_imports_nothing_else():
    script = "import sys, hrm_edge; print(sorted({'numpy', 'torch', 'typer', 'onnxruntime'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
