"""Training of candidate-state reasoners: what is learned from, where it leaves the pool, and that runs go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hrm_edge.trainer
from hrm_edge.models import load_checkpoint
from hrm_edge.models.deduce import Deduce, DeduceConfig, possible
from hrm_edge.tasks import get_task
from hrm_edge.trainer import load_recipe, train
from hrm_edge.trainer.deduction import Deduction

TASK = get_task("sudoku-4x4")
ARCH = DeduceConfig(hidden_size=8, L_cycles=3, trained_cycles=2)
SETTINGS = ["arch.hidden_size=8", "arch.L_cycles=3", "arch.trained_cycles=2", "train.batch_size=16"]
SETTINGS += ["train.compile=false", "train.bf16=false", "train.final_puzzles=8", "train.eval_puzzles=8"]


def pool(rows: int, seed: int = 0) -> tuple[Deduction, list[torch.Tensor], torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    net = Deduce(ARCH, TASK)
    questions, answers = TASK.generate(rows, np.random.default_rng(seed))
    e, *state = net.start(torch.from_numpy(questions).long())
    return Deduction(net, False), state, e, torch.from_numpy(answers).long()


def test_a_call_never_strikes_the_right_answer_of_a_new_puzzle_itself():
    """Puzzles may begin further on: of these only wrong candidates are gone. Pins and heads do the rest."""
    deduction, state, e, labels = pool(64)
    with torch.no_grad():
        deduction.network.heads.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))  # keeps all
        deduction.network.conflict_head.bias.fill_(-9)
    rng = torch.Generator().manual_seed(0)
    fresh = torch.ones(64, dtype=torch.bool)
    (struck, *_), _, q, _ = deduction.call(state, e, labels, fresh, rng)
    left, _ = possible(struck, e)
    right = deduction.network.of_tokens(labels)
    lost = (left * right).sum(-1) < 0.5
    assert (lost.sum(1) <= 1).all(), "a pin costs one cell its right answer at the most"
    some = (left.sum((1, 2)) < possible(state[0], e)[0].sum((1, 2)) - 3).float().mean()
    assert 0.1 < some < 0.9, "about half of them begin further on"
    assert (left[q[:, 0] > 0].sum(-1) == 1).all(), "only what is solved is left at once"


def test_the_pool_is_left_by_what_is_solved_and_by_contradictions_that_were_seen():
    deduction, state, e, labels = pool(8)
    right = deduction.network.of_tokens(labels)
    rng, fresh = torch.Generator().manual_seed(0), torch.zeros(8, dtype=torch.bool)
    solved = 1 - right
    broken = solved.clone()
    broken[4:, 0] = 1  # nothing is left for a cell
    with torch.no_grad():
        deduction.network.heads.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
        deduction.network.conflict_head.bias.fill_(-9)
    everything = torch.ones_like(e)  # a question that leaves all open, so that strikes count
    *_, q, _ = deduction.call([broken, *state[1:]], everything, labels, fresh, rng)
    assert (q[:, 0] > 0).all()
    with torch.no_grad():
        deduction.network.conflict_head.bias.fill_(9)
    none = torch.zeros_like(solved)
    *_, q, _ = deduction.call([none, *state[1:]], everything, labels, fresh, rng)
    sound = q[:, 0] <= 0
    assert sound.any(), "a false alarm stays, to be learned from"


def test_cells_without_a_label_cost_nothing():
    deduction, state, e, labels = pool(4)
    fresh = torch.zeros(4, dtype=torch.bool)
    labels[:] = -100
    _, _, _, losses = deduction.call(state, e, labels, fresh, torch.Generator().manual_seed(0))
    assert losses.token.item() == 0
    assert torch.isfinite(losses.total)


def test_a_run_learns_and_its_checkpoint_solves(tmp_path):
    arch, config = load_recipe(TASK, "deduce", None, [*SETTINGS, "train.steps=120", "train.lr=1e-2"])
    assert isinstance(arch, DeduceConfig)
    checkpoint = load_checkpoint(train(TASK, arch, config, ["generated:300"], tmp_path / "run", "cpu"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    (accuracy,) = checkpoint.metadata["accuracy"].values()
    assert accuracy["exact_by_segments"]["256"] == 1
    assert "candidate-state reasoner" in checkpoint.card
    assert "halt_margin" not in checkpoint.metadata


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path):
    def run(folder: str, *steps: int) -> dict[str, torch.Tensor]:
        for count in steps:
            arch, config = load_recipe(
                TASK, "deduce", None, [*SETTINGS, f"train.steps={count}", "train.schedule=constant"]
            )
            checkpoint = train(TASK, arch, config, ["generated:100"], tmp_path / folder, "cpu")
        return load_checkpoint(checkpoint).model.state_dict()

    whole, parts = run("whole", 12), run("parts", 5, 12)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_the_script_for_a_lease_goes_on_from_what_it_kept(tmp_path):
    """At toy size on a CPU; the second lease has nothing but the first one's OUT."""
    script = Path(hrm_edge.trainer.__file__).parent / "hard.sh"
    told = []
    for run in ("first", "second"):
        environment = {**os.environ, "PYTHON": sys.executable, "RUN": str(tmp_path / run)}
        command = [str(script), "--dry-run", str(tmp_path / "out")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout + done.stderr)
    assert "30 steps" in told[0]
    assert "already trained" in told[1]
    assert load_checkpoint(tmp_path / "out" / "checkpoint").metadata["steps"] == 30
    assert (tmp_path / "out" / "run.tar").stat().st_size < 16e6
