"""The halting margin on a scripted model: right only from segment 3 on, sure of itself from segment 1."""

from types import SimpleNamespace

import pytest
import torch

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.tasks import get_task
from hrm_edge.trainer.halting import halting_margin

TASK = get_task("sudoku-4x4")
PUZZLES = generate_puzzles(TASK, 5, seed=3)


class Scripted:
    """Wants to halt by ``wants[k]`` after segment k + 1; its guesses are right from segment 3."""

    def __init__(self, wants, no_ACT_continue):
        self.wants = wants
        config = {"halt_max_steps": len(wants), "no_ACT_continue": no_ACT_continue, "keeps_answers": False}
        self.config = SimpleNamespace(**config)
        self.answers = torch.from_numpy(PUZZLES.answers).long()

    def state_dict(self):
        return {}

    def start(self, tokens, identifiers):
        return tokens, torch.zeros(()), torch.zeros(())

    def segment(self, z_H, z_L, e):
        k = int(z_H)
        guess = self.answers if k >= 2 else torch.zeros_like(self.answers)
        logits = torch.nn.functional.one_hot(guess, TASK.vocab_size).float()
        q = torch.tensor([[self.wants[k], 0.0 if self.config.no_ACT_continue else -1.0]])
        return z_H + 1, z_L, logits, q.expand(len(e), 2)


@pytest.mark.parametrize(("no_ACT_continue", "margin"), [(True, 2.5), (False, 3.5)])
def test_distrusts_just_enough(no_ACT_continue, margin):
    assert halting_margin(Scripted([2.1, 2.3, 4.0, 6.0], no_ACT_continue), PUZZLES) == margin


def test_a_model_that_halts_well_is_left_alone():
    assert halting_margin(Scripted([-1.0, -2.0, 3.0, 6.0], True), PUZZLES) == 0
