"""Small networks with random weights, and the plain loop that exported ones are compared with."""

import itertools
from pathlib import Path

import numpy as np
import torch

from hrm_edge.models import HRM, Checkpoint, HRMConfig
from hrm_edge.models.checkpoint import build_model
from hrm_edge.models.config import FIXED
from hrm_edge.models.engine import TorchEngine
from hrm_edge.models.network import Wrapped
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")


def network(seed: int = 0, **changes) -> HRM:
    """A network on 4x4 Sudoku whose halting head has an opinion, so that rows stop after different segments."""
    torch.manual_seed(seed)
    values = {"hidden_size": 32, "num_heads": 2, "H_layers": 1, "L_layers": 1, "pos_encodings": "grid"}
    values |= {"halt_max_steps": 6, **FIXED.get(changes.get("kind"), {}), **changes}
    config = HRMConfig(vocab_size=TASK.vocab_size, seq_len=TASK.seq_len, **values)
    model = build_model(config, TASK).eval().requires_grad_(False)
    model.q_head.weight.normal_(std=0.5)
    if config.puzzle_emb_ndim:
        model.puzzle_emb.weight.normal_(std=0.2)
    for name, parameter in model.named_parameters():
        if name.endswith("grid.gain"):
            parameter.normal_()
    _give_an_opinion(model)
    return model


def _give_an_opinion(model: HRM) -> None:
    """The halting bias that makes rows stop after the most different numbers of segments, none by a hair."""
    questions = torch.from_numpy(TASK.generate(9, np.random.default_rng(1))[0])
    model.q_head.bias.zero_()
    e, (z_H, z_L) = model.embed(questions), model.initial_state(9)
    margins = np.zeros((6, 9))
    for margin in margins:
        z_H, z_L, _, q = model.segment(z_H, z_L, e)
        margin[:] = (q[:, 0] - (0 if model.config.no_ACT_continue else q[:, 1])).numpy()
    steps = np.sort(margins.ravel())
    bars = [(low + high) / 2 for low, high in itertools.pairwise(steps) if high - low > 0.05]
    model.q_head.bias[0] = -max(bars, key=lambda bar: _kinds(margins > bar), default=0.0)


def _kinds(halts: np.ndarray) -> int:
    """How many different numbers of segments rows take, given halts[segment, row]."""
    return len(np.unique(np.where(halts.any(axis=0), halts.argmax(axis=0), len(halts))))


def checkpoint(model: HRM | None = None, **metadata) -> Checkpoint:
    return Checkpoint(model or network(), TASK, "", metadata, content_hash="0" * 64, path=Path("small"))


def by_torch(network) -> TorchEngine:
    """An engine of a network that nothing has traced."""
    return TorchEngine(checkpoint(Wrapped(network, TASK).requires_grad_(False)))


def think(model: HRM, tokens: np.ndarray, steps: int, identifiers: np.ndarray | None = None, learned: bool = True):
    """(answer, steps, q) of each row on its own: the rule of the halting loop written out."""
    rows = [
        _think_one(
            model, tokens[i : i + 1], steps, None if identifiers is None else identifiers[i : i + 1], learned
        )
        for i in range(len(tokens))
    ]
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


def _think_one(model, tokens, steps, identifiers, learned):
    ids = None if identifiers is None else torch.from_numpy(identifiers)
    e = model.embed(torch.from_numpy(tokens), ids)
    z_H, z_L = model.initial_state(1)
    taken, halted = 0, False
    while taken < steps and not halted:
        z_H, z_L, logits, q = model.segment(z_H, z_L, e)
        halt, go_on = q[0].tolist()
        taken, halted = taken + 1, learned and halt > (0 if model.config.no_ACT_continue else go_on)
    return logits.argmax(-1).int().numpy(), np.array([taken], np.int32), q.numpy()
