"""The example's package, installed as any other: made, trained, exported, solved by its name alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hrm_edge.bundle import open_bundle
from hrm_edge.cli import main
from hrm_edge.data import choose
from hrm_edge.tasks import get_task, plugins

EXAMPLE = Path(__file__).parents[2] / "examples" / "takuzu"
TINY = ("hidden_size=32", "puzzle_emb_ndim=32", "num_heads=1", "halt_max_steps=2", "H_cycles=1", "L_cycles=1")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the package is installed, from a copy: pip leaves its work beside what it builds."""
    folder = tmp_path_factory.mktemp("package")
    source = shutil.copytree(EXAMPLE, folder / "takuzu")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    asked = [*pip, "--disable-pip-version-check", "--target", str(folder / "site"), str(source)]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package can be built here: {done.stderr.splitlines()[-1:]}")
    return folder / "site"


def forget():
    plugins.installed.cache_clear()
    get_task.cache_clear()
    sys.modules.pop("hrm_edge_takuzu", None)


@pytest.fixture
def package(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(site))
    forget()
    yield monkeypatch
    forget()


def hrm_edge(*arguments):
    try:
        main([*map(str, arguments)])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_its_rules(package):
    task = get_task("takuzu-4x4")
    questions, answers = task.generate(5, np.random.default_rng(0))
    assert task.verify(questions, answers).all()
    assert all(task.count_solutions(question) == 1 for question in questions)
    assert all(
        np.array_equal(task.solve(question), answer) for question, answer in zip(questions, answers, strict=True)
    )
    assert not task.verify(questions, answers[:, ::-1]).all()
    assert task.verify(*task.augment(np.random.default_rng(1), questions, answers)).all()
    assert len(task._full) == 90  # balanced boards of 4x4 without three alike side by side


def test_the_whole_way(package, tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    for several in ("HELD_OUT_PUZZLES", "MARGIN_PUZZLES"):  # which take a package in Python ten seconds
        package.setattr(choose, several, 40)
    settings = [part for setting in TINY for part in ("--set", f"arch.{setting}")]
    trained = ("train", "--task", "takuzu-4x4", "--preset", "tiny", "--data", "generated:40", "--steps", 3)
    assert hrm_edge(*trained, *settings, "--set", "train.interleave=1", "-o", "run") == 0
    exported = ("export", "run", "--target", "onnx", "--loop", "host", "--gate-puzzles", 20, "--not-judged")
    assert hrm_edge(*exported, "-o", "bundle") == 0
    assert "task.json" in open_bundle("bundle").manifest.files
    capsys.readouterr()
    puzzle = "01.." + "." * 12
    assert hrm_edge("solve", "bundle", puzzle, "--halt", "verified", "--retries", 2, "--json") == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert answer.startswith("01") or set(answer) <= set("01.?")

    package.undo()  # a device without the package
    package.chdir(tmp_path)
    forget()
    assert hrm_edge("solve", "bundle", puzzle) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "hrm-edge: bundle/task.json: the task 'takuzu-4x4' comes from the package hrm-edge-takuzu, which is not "
        "installed here; if you trust its makers, get 0.1.0 from them"
    )
    assert hrm_edge("export", "run", "-o", "again") == 2
    assert "which is not installed here" in capsys.readouterr().err
