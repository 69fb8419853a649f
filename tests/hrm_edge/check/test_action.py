"""The composite GitHub Action: well formed, its flags exist, and its scripts really run."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from toys import write_toy_bundle

from hrm_edge.cli import command_line
from hrm_edge.packages import TORCH

yaml = pytest.importorskip("yaml")

ACTION = yaml.safe_load((Path(__file__).parents[3] / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
SCRIPTS = {step["name"]: step for step in STEPS if "run" in step}


def test_it_has_what_a_composite_action_must_have():
    assert ACTION["runs"]["using"] == "composite"
    assert {"name", "description", "inputs", "outputs", "runs"} <= set(ACTION)
    for step in STEPS:
        assert ("run" in step) != ("uses" in step)
        assert "uses" in step or step["shell"] == "bash"
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+", step.get("uses", "a/b@v1"))
    for name, described in ACTION["inputs"].items():
        assert described["description"].strip(), name
        assert described.get("required") or isinstance(described["default"], str), name


def test_every_input_is_used_and_every_used_one_declared():
    text = yaml.safe_dump(STEPS)
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])
    ids = {step["id"] for step in STEPS if "id" in step}
    assert set(re.findall(r"steps\.(\w+)\.", yaml.safe_dump(ACTION))) <= ids


def test_no_input_is_pasted_into_a_script():
    for step in SCRIPTS.values():
        assert "${{" not in step["run"]


def test_every_flag_exists():
    command = command_line().commands["check"]
    known = {name for parameter in command.params for name in parameter.opts}
    used = set(re.findall(r"--[a-z][a-z-]+", SCRIPTS["Check"]["run"]))
    assert {"--markdown", "--junit", "--update-baseline"} <= used <= known


def test_what_is_left_when_the_check_fails_is_still_shown():
    for step in STEPS[STEPS.index(SCRIPTS["Check"]) + 1 :]:
        assert step["if"] == "always()"


# -- the scripts themselves, as the runner starts them -------------------------------------------------


@pytest.fixture
def runner(tmp_path):
    """A function that runs one step's script with its variables → (exit code, what it printed, its outputs)."""
    for name in ("output", "summary"):
        (tmp_path / name).write_text("")
    (tmp_path / "temp").mkdir()

    def run(name: str, **variables: str) -> tuple[int, str, dict[str, str]]:
        assert set(variables) == set(SCRIPTS[name]["env"])
        environment = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "RUNNER_TEMP": str(tmp_path / "temp"),
            **variables,
        }
        (tmp_path / "script.sh").write_text(SCRIPTS[name]["run"])
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(tmp_path / "script.sh")]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        lines = (tmp_path / "output").read_text().splitlines()
        return done.returncode, done.stdout + done.stderr, dict(line.split("=", 1) for line in lines)

    return run


@pytest.mark.parametrize(
    ("limit", "code", "summary"),
    [
        ("1", 0, "### ✅ hrm-edge check: 1 of 1"),
        ("0.0001", 1, "### ❌ hrm-edge check: 0 of 1"),
        ("x", 2, "could not run"),
    ],
)
def test_the_check_step_and_the_summary(runner, tmp_path, limit, code, summary):
    pytest.importorskip("onnxruntime")
    write_toy_bundle(tmp_path / "toy")
    spec = tmp_path / "a spec.toml"
    spec.write_text(f"baseline = 'b.json'\n[[check]]\nname = 'x'\nbundle = 'toy'\nmax_size_mb = {limit}\n")
    got, printed, outputs = runner("Check", SPEC=spec.name, UPDATE_BASELINE="true" if code == 0 else "false")
    assert got == code, printed
    assert (tmp_path / "b.json").exists() == (code == 0)
    assert Path(outputs["junit"]).exists() == (code != 2)
    if code != 2:
        assert ET.parse(outputs["junit"]).getroot().get("failures") == str(code)
    assert runner("Job summary", MARKDOWN=outputs["markdown"])[0] == 0
    assert summary in (tmp_path / "summary").read_text()


@pytest.mark.parametrize(
    ("extras", "asked"),
    [("onnx,train", "/an action[onnx,train]"), ("openvino", "/an action[openvino]"), ("", "/an action")],
)
def test_what_is_installed(runner, tmp_path, extras, asked):
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    code, printed, _ = runner("Install hrm-edge", EXTRAS=extras, HERE="/an action")
    assert code == 0
    *flags, constraint, file, last = printed.splitlines()
    assert flags[:3] == ["-m", "pip", "install"]
    assert last == asked
    assert constraint == "--constraint"
    assert Path(file).read_text() == f"{TORCH}\n"
