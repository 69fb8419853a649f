"""A step's cost by arithmetic against the operations that PyTorch counts in a real one."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hrm_edge.models import build_model
from hrm_edge.models.checkpoint import sketch_model
from hrm_edge.tasks import get_task
from hrm_edge.trainer import load_recipe
from hrm_edge.trainer.cost import step_flops
from hrm_edge.trainer.data import Sampler, Source
from hrm_edge.trainer.distributed import World
from hrm_edge.trainer.run import Run
from hrm_edge.trainer.slots import Slots

TASK = get_task("sudoku-4x4")


@pytest.mark.parametrize(
    "settings",
    [
        ["train.gradient=one_step"],
        ["train.gradient=last_cycle", "arch.L_layers=2", "arch.L_cycles=3", "arch.no_ACT_continue=false"],
        ["train.gradient=full", "arch.mlp_t=true", "train.rollout=3"],
        ["train.gradient=last_cycle", "arch.kind=trm", "arch.L_layers=2"],
        ["train.gradient=last_cycle", "arch.kind=recurrent", "arch.H_cycles=3"],
        ["train.gradient=one_step", "arch.kind=recurrent", "arch.H_layers=0", "arch.L_layers=2"],
        ["arch.kind=direct"],
    ],
)
def test_step_flops_are_those_of_a_step(settings):
    arch, config = load_recipe(TASK.name, "tiny", None, ["train.steps=1", "train.batch_size=8", *settings])
    model = build_model(arch, TASK).train()
    questions, answers = TASK.generate(4, np.random.default_rng(0))
    sampler = Sampler(TASK, [Source("x", questions, answers, 1.0)], augment=True)
    world = World(0, 1, torch.device("cpu"))
    run = Run(TASK, config, world, model, sampler, [Slots.empty(model, 8, world.device)], None)
    with FlopCounterMode(display=False) as counted:
        run.train_step()
    assert step_flops(sketch_model(arch, TASK), config) == pytest.approx(counted.get_total_flops(), rel=0.1)
