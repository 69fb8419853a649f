"""Candidate-state reasoners: symmetric by construction, and a search that is what its description says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from hrm_edge.errors import InputError
from hrm_edge.models import load_checkpoint, save_checkpoint
from hrm_edge.models.deduce import Deduce, DeduceConfig, intersections, possible
from hrm_edge.tasks import Task, get_task

SMALL = DeduceConfig(hidden_size=8, L_cycles=3, trained_cycles=2, rule_rounds=1, search_steps=0, strike_below=0.3)
TASK = get_task("sudoku-4x4")


def network(task: Task = TASK, seed: int = 0, arch: DeduceConfig = SMALL) -> Deduce:
    torch.manual_seed(seed)
    net = Deduce(arch, task).eval().requires_grad_(False)
    for block in net.blocks:
        torch.nn.init.normal_(block.mlp.down_proj.weight, std=0.3)
    return net


def puzzle(task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    questions, answers = task.generate(1, np.random.default_rng(seed))
    return questions[0], answers[0]


class Scripted(Deduce):
    """The search alone, with heads that a test decides."""

    def __init__(self, task: Task, keep: Tensor, symbol: Tensor, **changes: int):
        super().__init__(dataclasses.replace(SMALL, **changes), task)
        self.kept, self.symbols = keep, symbol

    def read(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.kept.expand(len(h), -1, -1), self.symbols.expand(len(h), -1, -1), torch.full((len(h), 1), -9.0)


@given(seed=st.integers(0, 2**20), name=st.sampled_from(["sudoku-4x4", "sudoku-6x6", "sudoku-9x9"]))
@settings(max_examples=8, deadline=None)
def test_a_variant_of_a_puzzle_gets_the_variant_of_every_logit(seed, name):
    task = get_task(name)
    rng = np.random.default_rng(seed)
    net = network(task, seed)
    question, _ = puzzle(task, seed)
    (symmetry,) = task.symmetries(rng, 1)
    values = np.asarray(task.value_tokens)
    symbols = [int(np.flatnonzero(values == token)[0]) for token in symmetry.values[values]]  # old → new
    e, struck, *_ = net.start(torch.from_numpy(question[None]))
    struck = torch.from_numpy((rng.random(struck.shape) < 0.3).astype(np.float32))
    other = net.start(torch.from_numpy(symmetry.apply(question)[None]))[0]

    def turned(x: Tensor) -> Tensor:
        moved = torch.empty_like(x)
        moved[..., symbols] = x[:, symmetry.cells]
        return moved

    assert torch.equal(turned(e), other)
    heads, others = (_heads(net, *pair) for pair in ((struck, e), (turned(struck), other)))
    for mine, theirs in zip(heads[:2], others[:2], strict=True):
        assert torch.allclose(turned(mine), theirs, atol=1e-4)
    assert torch.allclose(heads[2], others[2], atol=1e-4)


def _heads(net: Deduce, struck: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = net.embedded(*possible(struck, e))
    h = torch.zeros_like(x)
    for _ in range(net.arch.L_cycles):
        h = net.cycle(h, x)
    return net.read(h)


# -- the search -----------------------------------------------------------------------------------------


def follow(cells: list[set[int]], groups: list[tuple[int, ...]], size: int) -> None:
    """Once, what follows from cells with one candidate, and then from groups with one place for a symbol."""
    known = {cell: next(iter(each)) for cell, each in enumerate(cells) if len(each) == 1}
    for cell, each in enumerate(cells):
        each -= {known[p] for group in groups if cell in group for p in group if p in known and p != cell}
    only: dict[int, set[int]] = {}
    for group in groups:
        for k in range(size):
            where = [cell for cell in group if k in cells[cell]]
            if len(where) == 1:
                only.setdefault(where[0], set()).add(k)
    for cell, symbols in only.items():
        cells[cell] &= symbols


class Stack:
    """The same search as people write it: a stack of sets."""

    def __init__(self, task: Task, question: np.ndarray, symbol: np.ndarray, rounds: int):
        values = [int(token) for token in task.value_tokens]
        self.groups = [tuple(map(int, group)) for group in task.groups]
        self.symbol, self.size, self.rounds = symbol, len(values), rounds
        self.first = [
            set(range(self.size)) if token == task.blank else {values.index(int(token))} for token in question
        ]
        self.stack = [[set(cell) for cell in self.first]]
        self.pins: list[tuple[int, int]] = []
        self.attempts, self.solved = 0, False

    def step(self) -> None:
        cells = self.stack[-1]
        for _ in range(self.rounds):
            follow(cells, self.groups, self.size)
        every = all(set().union(*(cells[c] for c in group)) == set(range(self.size)) for group in self.groups)
        if not every or not all(cells):
            self._back()
        elif all(len(cell) == 1 for cell in cells):
            self.solved = True
        else:
            self._pin(cells)

    def _pin(self, cells: list[set[int]]) -> None:
        def liking(cell: int, k: int) -> float:
            some = np.exp([self.symbol[cell, other] for other in cells[cell]])
            return float(np.exp(self.symbol[cell, k]) / some.sum()) + 1 / len(cells[cell])

        cell, k = max(
            ((cell, k) for cell, left in enumerate(cells) if len(left) > 1 for k in sorted(left)),
            key=lambda pair: (round(liking(*pair), 6), -pair[0], -pair[1]),
        )
        following = [set(each) for each in cells]
        following[cell] = {k}
        self.stack.append(following)
        self.pins.append((cell, k))

    def _back(self) -> None:
        self.stack.pop()
        if not self.pins:
            self.attempts += 1
            self.stack = [[set(cell) for cell in self.first]]
            return
        cell, k = self.pins.pop()
        self.stack[-1][cell].discard(k)


@given(seed=st.integers(0, 2**20), rounds=st.integers(1, 3), steps=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_the_search_is_depth_first_with_a_stack_of_sets(seed, rounds, steps):
    """Heads that strike nothing and like at random: what remains is the search, against one that shares no code."""
    rng = np.random.default_rng(seed)
    question, _ = puzzle(TASK, seed)
    question = np.where(rng.random(TASK.seq_len) < rng.uniform(0, 1), TASK.blank, question)  # many answers
    if rng.random() < 0.5:  # or none
        question[rng.integers(TASK.seq_len)] = rng.choice(TASK.value_tokens)
    liked = rng.normal(size=(TASK.seq_len, 4)).astype(np.float32)
    keep, symbol = torch.full((1, TASK.seq_len, 4), 9.0), torch.from_numpy(liked)[None]
    net = Scripted(TASK, keep, symbol, rule_rounds=rounds, search_steps=steps)
    stack = Stack(TASK, question, liked, rounds)
    e, *state = net.start(torch.from_numpy(question[None]))
    for _ in range(40):
        *state, logits, q = net.segment(*state, e)
        for _ in range(1 + steps):
            if not stack.solved:
                stack.step()
        assert bool(q[0, 0] > 0) == stack.solved
        alive = possible(state[0], e)[0][0].numpy() > 0
        assert [set(np.flatnonzero(cell)) for cell in alive] == stack.stack[-1]
        assert int(state[1].max()) == len(stack.pins)
        assert int(state[2]) == stack.attempts
        if stack.solved:
            break
    answers = TASK.count_solutions(question)
    assert stack.solved == (answers > 0), "a complete search finds an answer where there is one"
    assert stack.solved == TASK.verify(question[None], logits.argmax(-1).numpy()).all()
    assert stack.attempts == 0 or not answers


@given(seed=st.integers(0, 2**20), rounds=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_the_rules_strike_what_follows_from_single_candidates_and_single_places(seed, rounds):
    """Against the same in sets, on boards of which a random part is struck, right or wrong."""
    rng = np.random.default_rng(seed)
    net = network(arch=dataclasses.replace(SMALL, rule_rounds=rounds))
    left = rng.random((TASK.seq_len, 4)) < rng.uniform(0.3, 1)
    cells = [set(np.flatnonzero(cell).tolist()) for cell in left]
    for _ in range(rounds):
        follow(cells, [tuple(map(int, group)) for group in TASK.groups], 4)
    found = net.followed(torch.from_numpy(left[None].astype(np.float32)))[0].numpy() > 0
    assert [set(np.flatnonzero(cell).tolist()) for cell in found] == cells


def test_who_likes_the_right_symbols_takes_nothing_back():
    _, answer = puzzle(TASK, 3)
    question = np.full_like(answer, TASK.blank)  # all grids are answers, and it has one in mind
    right = torch.from_numpy(np.eye(4, dtype=np.float32)[answer - int(TASK.value_tokens[0])])[None]
    net = Scripted(TASK, torch.full_like(right, 9.0), 5 * right)
    e, *state = net.start(torch.from_numpy(question[None]))
    depths = []
    while len(depths) < 20:
        *state, logits, q = net.segment(*state, e)
        depths.append(float(state[1].max()))
        if q > 0:
            break
    assert depths == [*range(1, len(depths)), len(depths) - 1], "a pin at each step, and none at the last"
    assert len(depths) > 3
    assert np.array_equal(logits[0].argmax(-1).numpy(), answer)


def test_a_wrong_strike_is_found_out_and_believed_less_next_time():
    """The heads strike a right candidate. No answer is left: the search begins anew, and takes stronger words."""
    question, answer = puzzle(TASK, 5)
    right = torch.from_numpy(np.eye(4, dtype=np.float32)[answer - int(TASK.value_tokens[0])])[None]
    cell = int(np.flatnonzero(question == TASK.blank)[0])
    keep = torch.full_like(right, 9.0)
    keep[0, cell] = torch.where(right[0, cell] > 0, -1.0, 9.0)  # below the logit of 0.3, above twice that
    net = Scripted(TASK, keep, right)
    e, *state = net.start(torch.from_numpy(question[None]))
    for _ in range(300):
        *state, logits, q = net.segment(*state, e)
        if q > 0:
            break
    assert float(state[2]) == 1
    assert np.array_equal(logits[0].argmax(-1).numpy(), answer)


def test_what_is_solved_stays_so_whatever_the_heads_say():
    _, answer = puzzle(TASK, 7)
    net = Scripted(TASK, torch.full((1, TASK.seq_len, 4), -9.0), torch.zeros(1, TASK.seq_len, 4))
    e, *state = net.start(torch.from_numpy(answer[None]))
    for _ in range(3):
        *state, logits, q = net.segment(*state, e)
        assert q > 0
        assert np.array_equal(logits[0].argmax(-1).numpy(), answer)


def test_a_puzzle_without_an_answer_is_given_up():
    question = np.full(TASK.seq_len, TASK.blank)
    question[[0, 1]] = TASK.value_tokens[0]
    net = network()
    e, *state = net.start(torch.from_numpy(question[None]))
    for _ in range(20):
        *state, _, q = net.segment(*state, e)
        assert q <= 0
    assert float(state[2]) > 0


# -- as a checkpoint ------------------------------------------------------------------------------------


def test_weights_of_one_size_serve_another(tmp_path):
    model = SMALL.build(TASK)
    for name in ("sudoku-6x6", "sudoku-9x9"):
        other = SMALL.build(get_task(name))
        other.load_state_dict(model.state_dict())
        tokens = torch.from_numpy(puzzle(get_task(name), 0)[0][None]).long()
        e, *state = other.start(tokens)
        assert torch.isfinite(other.segment(*state, e)[-2]).all()


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    model = SMALL.build(TASK)
    save_checkpoint(tmp_path / "c", model, TASK, "a card", {"steps": 1})
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.model.source == SMALL
    assert loaded.config.halting == "solved"
    assert not loaded.config.learns_halting
    tokens = torch.from_numpy(puzzle(TASK, 1)[0][None]).long()
    for one, other in zip(model.start(tokens), loaded.model.start(tokens), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        e, *state = model.start(tokens)
        for one, other in zip(model.segment(*state, e), loaded.model.segment(*state, e), strict=True):
            assert torch.equal(one, other)
    changed = dataclasses.replace(SMALL, strike_below=0.2).build(TASK)
    save_checkpoint(tmp_path / "d", changed, TASK, "a card")
    assert load_checkpoint(tmp_path / "d").content_hash != loaded.content_hash


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("hidden_size", 0, "1 or more"),
        ("hidden_size", 10**9, "at most"),
        ("L_cycles", 10**6, "at most"),
        ("strike_below", 0.5, "below 0.5"),
        ("rule_rounds", 0, "from 1 to"),
        ("search_steps", 10**4, "from 0 to"),
        ("expansion", float("nan"), "of type float|at least"),
        ("intersections", 1, "of type bool"),
        ("H_layers", 1, "unknown field"),
    ],
)
def test_a_config_says_what_is_wrong_with_it(field, value, told):
    with pytest.raises(InputError, match=told):
        DeduceConfig.from_dict({"kind": "deduce", field: value}, "[arch]")


def test_a_strangers_sizes_are_compared_before_memory_is_taken(tmp_path):
    save_checkpoint(tmp_path / "c", SMALL.build(TASK), TASK, "")
    config = tmp_path / "c" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 8', '"hidden_size": 8192'))
    with pytest.raises(InputError, match="has shape"):
        load_checkpoint(tmp_path / "c")
    save_file({"x": torch.zeros(1)}, tmp_path / "c" / "model.safetensors")
    with pytest.raises(InputError, match="is missing"):
        load_checkpoint(tmp_path / "c")


def test_a_task_without_groups_is_refused():
    with pytest.raises(InputError, match=r"maze-15x15: .* needs a task with groups"):
        SMALL.build(get_task("maze-15x15"))


def test_intersections_of_sudoku_are_three_cells_of_a_line_in_a_box():
    task = get_task("sudoku-9x9")
    member = np.zeros((27, 81), np.float32)
    np.put_along_axis(member, np.asarray(task.groups, np.int64), 1, axis=1)
    found = intersections(member)
    assert found.shape == (54, 81)
    assert set(found.sum(1)) == {3}
