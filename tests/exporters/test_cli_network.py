"""Networks of others from the command line and from Python: with a file of weights, or as the module itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from commands import run
from foreign_networks import LoopedEncoder, Smallest
from small_networks import TASK, by_torch

import hrm_edge
from hrm_edge.errors import InputError
from hrm_edge.models.weights import read_weights_of
from hrm_edge.runtimes import load_engine

QUESTIONS = TASK.generate(6, np.random.default_rng(0))[0]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Weights as a trainer leaves them, puzzles, and the folder that holds both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    torch.manual_seed(3)
    trained = LoopedEncoder(TASK, tolerance=None)
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in trained.state_dict().items()}
    torch.save({"model": wrapped, "step": 7}, tmp_path / "step_7.pt")
    questions, answers = TASK.generate(40, np.random.default_rng(5))
    lines = [f"{TASK.format(q)},{TASK.format(a)}" for q, a in zip(questions, answers, strict=True)]
    (tmp_path / "p.csv").write_text("question,answer\n" + "\n".join(lines) + "\n")
    return trained


def test_a_network_and_a_file_of_weights_become_a_bundle(saved, tmp_path, capsys):
    command = ("export", "--network", "foreign_networks:LoopedEncoder", "--weights", "step_7.pt")
    command += ("--task", TASK.name, "--data", "p.csv", "-o", "b", "--not-judged", "--gate-puzzles", "16")
    code, out, err = run(capsys, *command)
    assert code == 0, err
    assert "hrm-edge eval b --data FILE" in out
    engine = load_engine(tmp_path / "b")
    saved.tolerance = 1e-3  # as the factory has it
    theirs = by_torch(saved).solve(QUESTIONS)
    np.testing.assert_array_equal(engine.solve(QUESTIONS).tokens, theirs.tokens)
    assert run(capsys, "eval", "b", "--data", "p.csv", "--n", "8")[0] == 0
    assert run(capsys, "selftest", "b")[0] in (0, 2)  # 2: nothing was proven, so nothing is carried


def test_python_takes_the_module_itself(tmp_path, recwarn):
    """Its states and logits come back out of the bundle, segment by segment."""
    torch.manual_seed(0)
    network = Smallest()
    made = hrm_edge.export(network=network, task=TASK, loop="host", gate=False, output=tmp_path / "b")
    trace = hrm_edge.load(made).trace(QUESTIONS[0], tokens=True)
    tokens = torch.from_numpy(QUESTIONS[:1])
    e, z = network.start(tokens)
    for step in range(3):
        z, logits = network.segment(z, e)
        np.testing.assert_allclose(trace.states["z"][step], z[0].detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(trace.logits[step], logits[0].detach().numpy(), atol=1e-5)
    assert (trace.steps, list(trace.states)) == (3, ["z"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "say what it solves with --task"),
        ({"task": "sudoku-4x4", "weights": "step_7.pt"}, "load them into it"),
        ({"task": "sudoku-4x4", "checkpoint": "sudoku-9x9"}, "not both"),
        ({"task": "sudoku-4x4"}, "give some with --data"),
    ],
)
def test_what_does_not_go_with_a_module_is_refused(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        hrm_edge.export(network=Smallest(), **options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "step_7.pt"], "--weights: has no meaning without --network"),
        ([], "give a checkpoint, or a network of others with --network"),
        (["sudoku-9x9", "--network", "a:b"], "give either the checkpoint sudoku-9x9 or --network, not both"),
        (["--network", "foreign_networks:LoopedEncoder"], "say what it solves with --task"),
        (["--network", "foreign_networks:SingleZ", "--task", "sudoku-4x4", "--weights", "step_7.pt"], "is missing"),
        (["--network", "foreign_networks:SingleZ", "--task", "sudoku-4x4", "--weights", "p.csv"], "p.csv"),
        (["--network", "foreign_networks:LoopedEncoder", "--task", "sudoku-4x4"], "--data"),
    ],
)
def test_mistakes_are_one_line(saved, capsys, arguments, said):
    code, _, err = run(capsys, "export", *arguments)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_several_tables_are_told_apart_by_key(saved, tmp_path):
    weights = saved.state_dict()
    ema = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save({"model": weights, "ema": {"shadow": ema}, "optimizer": {"state": {0: torch.zeros(3)}}}, "both.pt")
    with pytest.raises(InputError, match=r"several tables of weights \('model', 'ema.shadow'\).*--key"):
        read_weights_of(tmp_path / "both.pt", weights)
    got = read_weights_of(tmp_path / "both.pt", weights, "ema")
    assert torch.equal(got["norm.weight"], ema["norm.weight"])
    with pytest.raises(InputError, match="no weights under --key 'best'"):
        read_weights_of(tmp_path / "both.pt", weights, "best")
