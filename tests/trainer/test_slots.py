"""ACT slots: refills, halting and exploration."""

import numpy as np
import torch

from hrm_edge.models import HRMConfig, build_model
from hrm_edge.tasks import get_task
from hrm_edge.trainer.data import Sampler, Source
from hrm_edge.trainer.slots import Slots

TASK = get_task("sudoku-4x4")


def make(batch=64, **changes):
    config = HRMConfig(
        vocab_size=TASK.vocab_size,
        seq_len=TASK.seq_len,
        hidden_size=16,
        num_heads=2,
        H_layers=1,
        L_layers=1,
        halt_max_steps=6,
        **changes,
    )
    model = build_model(config, TASK)
    rng = np.random.default_rng(0)
    questions, answers = TASK.generate(20, rng)
    sampler = Sampler(TASK, [Source("x", questions, answers, 1.0)], augment=True)
    slots = Slots.empty(model, batch, torch.device("cpu"))
    return model, sampler, rng, slots


def test_first_refill_fills_every_slot_with_a_consistent_puzzle():
    model, sampler, rng, slots = make()
    assert slots.refill(model, sampler, rng) == 64
    tokens, labels = slots.tokens.numpy(), slots.labels.numpy()
    assert TASK.verify(tokens.astype(np.int32), labels.astype(np.int32)).all()
    assert (slots.steps == 0).all()


def test_only_finished_slots_are_refilled_and_reset():
    model, sampler, rng, slots = make()
    slots.refill(model, sampler, rng)
    before = slots.tokens.clone()
    z = torch.randn_like(slots.state[0])
    q = torch.full((64, 2), -1.0)
    q[:5, 0] = 2.0
    slots.min_steps[:] = 1
    slots.advance((z.clone(), z.clone()), q, no_ACT_continue=False)
    assert slots.halted.sum() == 5
    assert slots.refill(model, sampler, rng) == 5
    assert torch.equal(slots.tokens[5:], before[5:])
    assert torch.equal(slots.state[0][5:], z[5:])
    torch.testing.assert_close(slots.state[0][:5], model.H_init.expand_as(slots.state[0][:5]))
    assert slots.steps.tolist() == [0] * 5 + [1] * 59


def test_halts_at_the_limit_and_never_before_the_explored_minimum():
    model, sampler, rng, slots = make(halt_exploration_prob=0.5)
    slots.refill(model, sampler, rng)
    least = slots.min_steps.clone()
    assert set(least.tolist()) == {1, 2, 3, 4, 5, 6}
    assert 0.2 < (least > 1).float().mean() < 0.8
    eager = torch.tensor([[1.0, 0.0]]).expand(64, 2)
    for step in range(1, 7):
        slots.advance(slots.state, eager, no_ACT_continue=False)
        assert torch.equal(slots.halted, least <= step)
    reluctant = -eager
    slots.steps[:] = 0
    for step in range(1, 7):
        slots.advance(slots.state, reluctant, no_ACT_continue=False)
        assert slots.halted.all() == (step == 6)


def test_staggered_slots_finish_at_different_steps():
    model, sampler, rng, slots = make()
    slots.refill(model, sampler, rng)
    slots.stagger()
    finished = []
    for _ in range(6):
        slots.advance(slots.state, torch.full((64, 2), -1.0), no_ACT_continue=True)
        finished.append(int(slots.halted.sum()))
        slots.refill(model, sampler, rng)
    assert min(finished) >= 10


def test_sampler_draws_sources_by_weight():
    questions, answers = TASK.generate(3, np.random.default_rng(0))
    sources = [Source("a", questions[:1], answers[:1], 1.0), Source("b", questions[1:2], answers[1:2], 3.0)]
    drawn, _, _ = Sampler(TASK, sources, augment=False).draw(np.random.default_rng(1), 4000)
    share = (drawn == questions[1]).all(1).mean()
    assert 0.72 < share < 0.78


def test_a_slot_gets_the_same_puzzle_however_slots_are_spread():
    """Two processes' slots, one after the other, are one process's; who needs a puzzle changes nobody else's."""
    model, sampler, _, whole = make(batch=8, halt_exploration_prob=0.5)
    parts = [make(batch=4)[3] for _ in range(2)]
    for step in range(3):
        for slots in (whole, *parts):
            slots.halted[:] = step == 0
        whole.halted[[1, 6]] = True
        parts[0].halted[1], parts[1].halted[2] = True, True
        whole.refill(model, sampler, np.random.default_rng(step))
        for rank, slots in enumerate(parts):
            slots.refill(model, sampler, np.random.default_rng(step), rank, 2)
        for field in ("tokens", "labels", "min_steps"):
            joined = torch.cat([getattr(slots, field) for slots in parts])
            assert torch.equal(joined, getattr(whole, field))


def test_in_a_curriculum_every_puzzle_has_a_limit_of_its_own():
    model, sampler, rng, slots = make()
    slots.refill(model, sampler, rng, most_segments=4)
    assert set(slots.max_steps.tolist()) == {1, 2, 3, 4}
    for step in range(1, 5):
        slots.advance(slots.state, torch.full((64, 2), -1.0), no_ACT_continue=True)
        assert torch.equal(slots.halted, slots.max_steps <= step)
    slots.refill(model, sampler, rng)
    assert (slots.max_steps == 6).all()
