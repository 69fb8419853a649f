"""One process's part of a run: a training step on its slots, what is saved of it, and what is published."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.choose import HELD_OUT
from ..models import HRM, save_checkpoint
from ..models.deduce import Deduce
from ..models.fake_quant import plain_model
from ..models.network import Wrapped, bare
from ..tasks import Task
from . import qat
from .card import describe
from .config import TrainConfig
from .data import Sampler
from .deduction import MOST_CALLS, Deduction
from .distributed import World
from .losses import IGNORE, act_losses, q_continue_target, solved
from .optim import Average, lr_factor, make_optimizers
from .slots import Slots
from .state import load_state, save_state


def step_rng(config: TrainConfig, step: int, segment: int = 0) -> np.random.Generator:
    """What draws puzzles for a step's segment, both counted from 0; before them, step −1 draws the first ones."""
    return np.random.default_rng([config.seed, step + 1, segment])


class Part(NamedTuple):
    """What a part of the slots came to in a step, detached."""

    state: tuple[Tensor, ...]
    q: Tensor
    measured: Tensor  # loss, token loss, halt loss, exact, token accuracy
    of_puzzles: Tensor | None  # gradient of each slot's puzzle embedding, where there are several


@dataclasses.dataclass
class Run:
    """One process's training run: what changes from step to step, and what it was made from."""

    task: Task
    config: TrainConfig
    world: World
    model: HRM | Wrapped
    sampler: Sampler
    batches: list[Slots]  # that take turns
    average: Average | None
    step: int = 0
    seconds: float = 0.0  # training time, summed over resumes
    halt_margin: float = 0.0  # logits by which the published q_halt is lowered

    def __post_init__(self) -> None:
        self.optimizers = make_optimizers(self.model, self.config)
        self._segment = torch.compile(self._forward, dynamic=False) if self.config.compile else self._forward
        # How far back the gradient flows is said for the networks here; another's says it itself.
        said: dict[str, Any] = {"gradient": self.config.gradient} if isinstance(self.model, HRM) else {}
        self._think = functools.partial(self.model.segment, **said)
        own = bare(self.model)
        self._deduction = Deduction(own, self.config.compile) if isinstance(own, Deduce) else None

    @property
    def slots(self) -> Slots:
        """The batch whose turn it is."""
        return self.batches[self.step % len(self.batches)]

    def fill(self) -> None:
        """First puzzles for every slot of a run that starts."""
        rng = step_rng(self.config, -1)
        for slots in self.batches:
            self._refill(slots, rng)
            if self.config.rollout < self.model.config.halt_max_steps:  # else every step holds all depths already
                slots.stagger(self.world.rank)

    def _refill(self, slots: Slots, rng: np.random.Generator) -> None:
        slots.refill(self.model, self.sampler, rng, self.world.rank, self.world.size, self.most_segments)

    def _forward(self, tokens: Tensor, state: Sequence[Tensor], fresh: Tensor, puzzles: dict[str, Tensor]) -> Any:
        """``(*state, logits, q)`` after a segment; ``fresh`` rows begin with a state that may be learned itself."""
        e, *first = self.model.start(tokens, **puzzles)
        begun = [
            torch.where(fresh.view(-1, *[1] * (z.ndim - 1)), start, z) if start.requires_grad else z
            for start, z in zip(first, state, strict=True)
        ]
        return self._think(*[*begun, e])

    def _puzzles(self, rows: Tensor) -> dict[str, Tensor]:
        """How the model is told whose puzzles the slots have; nothing where it tells none apart.

        The networks here have their rows of the table of puzzle embeddings, as a leaf: the table may have a million
        rows, and its gradient is only ever made for those of the batch.
        """
        if self.model.config.num_puzzle_identifiers == 1:
            return {}
        identifiers = self.slots.identifiers[rows]
        if isinstance(self.model, Wrapped):
            return {"puzzle_identifiers": identifiers}
        return {"puzzle_rows": self.model.puzzle_emb.weight.detach()[identifiers].requires_grad_()}

    def _give_gradient(self, of_rows: Tensor) -> None:
        """All ranks' gradients of their slots' rows to the table, sparse."""
        assert isinstance(self.model, HRM)
        table = self.model.puzzle_emb.weight
        identifiers, values = self.world.gather(self.slots.identifiers), self.world.gather(of_rows)
        given = torch.sparse_coo_tensor(identifiers[None], values, table.shape, check_invariants=False)
        table.grad = given if table.grad is None else table.grad + given

    @property
    def most_segments(self) -> int:
        """Segments a puzzle taken up now may take: all, or in a curriculum what its part of the run allows."""
        most, part = self.model.config.halt_max_steps, self.config.segment_curriculum
        if self._deduction is not None:
            most = min(most, MOST_CALLS)
        if not part:
            return most
        done = min(1.0, self.config.progress(self.step, self.seconds) / part)
        return min(most, 2 + int(done * (most - 1)))

    def train_step(self) -> Tensor:
        """One update; returns means of (loss, token loss, halt loss, exact, token accuracy, segments)."""
        # A generator for each segment, the same in every process: who draws which slots changes nothing.
        rngs = [step_rng(self.config, self.step, segment) for segment in range(self.config.rollout)]
        measured = torch.stack([self._take_segment(rng) for rng in rngs]).mean(0)
        self._update()
        self.step += 1
        return measured

    def _take_segment(self, rng: np.random.Generator) -> Tensor:
        """A segment of every slot, refilled where it had finished; gradients are added, as a part of the step's."""
        slots = self.slots
        self._refill(slots, rng)
        parts = []
        for rows in torch.arange(len(slots.steps), device=self.world.device).chunk(self.config.accumulate):
            parts.append(self._forward_backward(rows) if self._deduction is None else self._deduce(rows, rng))
        of_puzzles = [part.of_puzzles for part in parts if part.of_puzzles is not None]
        if of_puzzles:
            self._give_gradient(torch.cat(of_puzzles))
        state = [torch.cat(tensors) for tensors in zip(*(part.state for part in parts), strict=True)]
        slots.advance(state, torch.cat([part.q for part in parts]), self.model.config.no_ACT_continue)
        measured = torch.stack([part.measured for part in parts]).mean(0)
        return torch.cat([measured, slots.steps.float().mean()[None]])

    def _forward_backward(self, rows: Tensor) -> Part:
        """A segment of the slots ``rows``; its gradients are added, as a part of the step's."""
        arch, config, slots = self.model.config, self.config, self.slots
        tokens, labels, puzzles = slots.tokens[rows], slots.labels[rows], self._puzzles(rows)
        before, fresh = [tensor[rows] for tensor in slots.state], slots.fresh[rows]
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=config.bf16):
            *state, logits, q = self._segment(tokens, before, fresh, puzzles)
            after = tuple(tensor.detach().float() for tensor in state)
            target = None
            if not arch.no_ACT_continue:
                with torch.no_grad():
                    *_, next_q = self._segment(tokens, after, torch.zeros_like(fresh), puzzles)
                target = q_continue_target(next_q, slots.steps[rows] + 1 >= slots.max_steps[rows])
        halts = q if arch.learns_halting else None
        losses = act_losses(
            logits, halts, labels, config.loss, config.halt_loss_weight, target, config.label_smoothing
        )
        (losses.total / (config.accumulate * config.rollout)).backward()
        right = (logits.detach().argmax(-1) == labels).float().sum() / (labels != IGNORE).sum()
        exact = solved(logits.detach(), labels).float().mean()
        measured = torch.stack([*(x.detach() for x in losses), exact, right])
        of_puzzles = puzzles["puzzle_rows"].grad if "puzzle_rows" in puzzles else None
        return Part(after, q.detach(), measured, of_puzzles)

    def _deduce(self, rows: Tensor, rng: np.random.Generator) -> Part:
        """The same for a network that learns on the states that it comes to."""
        assert self._deduction is not None
        slots, device = self.slots, self.world.device
        draws = torch.Generator(device).manual_seed(int(rng.integers(2**31)) + self.world.rank)
        before, labels = [tensor[rows] for tensor in slots.state], slots.labels[rows]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bf16):
            e, *_ = self.model.start(slots.tokens[rows])
            after, logits, q, losses = self._deduction.call(before, e, labels, slots.fresh[rows], draws)
        (losses.total / (self.config.accumulate * self.config.rollout)).backward()
        right = (logits.argmax(-1) == labels).float().sum() / (labels != IGNORE).sum()
        measured = torch.stack([*(x.detach() for x in losses), solved(logits, labels).float().mean(), right])
        return Part(after, q, measured, None)

    def _update(self) -> None:
        self.world.average_gradients(self.model)
        if self.config.grad_clip:
            # All but a table of several puzzle embeddings, whose gradient is sparse and counts by its sign alone.
            dense = [p for p in self.model.parameters() if p.grad is None or not p.grad.is_sparse]
            torch.nn.utils.clip_grad_norm_(dense, self.config.grad_clip)
        factor = lr_factor(self.config, self.step, self.config.progress(self.step, self.seconds))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)

    def evaluated_model(self) -> HRM | Wrapped:
        """A copy with the weights that count: the moving average where there is one, rounded as it is stored.

        In quantization-aware training it is fake-quantized, as that is what ships, and the average covers the
        learned scales as well: they belong to the averaged weights, not to the last ones.
        """
        model = copy.deepcopy(self.model).eval().requires_grad_(False)
        if self.average is not None:
            model.load_state_dict(self.average.weights)
        model.distrust(self.halt_margin)
        return qat.as_stored(model, getattr(torch, self.config.checkpoint_dtype))

    def publish(self, folder: Path, facts: dict[str, Any], last: bool = False) -> None:
        """Write the checkpoint: weights, recipe and whatever accuracy ``facts`` hold; ``last``: the run is over."""
        metadata = {**facts, "steps": self.step, "train_seconds": round(self.seconds, 1)}
        if self.task.generates:
            metadata["held_out"] = dict(HELD_OUT)
        model, dtype = self.evaluated_model(), getattr(torch, self.config.checkpoint_dtype)
        if self.config.qat != "off":
            metadata |= qat.metadata(model, self.config, facts["recipe"]["started_from"])
        model = plain_model(model)
        card = describe(metadata, model, self.task.has_symmetries)
        save_checkpoint(folder, model, self.task, card, metadata, dtype, result=last)

    def save(self, folder: Path) -> None:
        shared: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        if self.average is not None:
            shared["average"] = {"weights": self.average.weights, "updates": self.average.updates}
        save_state(folder, self.world, shared, Slots.to_dict(self.batches, self.model.state))

    def restore(self, folder: Path) -> bool:
        state = load_state(folder, self.world)
        if state is None:
            return False
        shared, own = state
        self.step, self.seconds = shared["step"], shared["seconds"]
        self.model.load_state_dict(shared["model"])
        for optimizer, values in zip(self.optimizers, shared["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        if self.average is not None:
            self.average.updates = shared["average"]["updates"]
            self.average.weights = {k: v.to(self.world.device) for k, v in shared["average"]["weights"].items()}
        self.batches = Slots.from_dict(own, self.model.state, self.world.device, self.model.config.halt_max_steps)
        return True
