"""ACT with deep supervision: a batch is a set of slots, each at its own segment of its own puzzle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..halting import halting_head
from ..models import HRM
from ..models.network import Wrapped
from .data import Sampler
from .losses import labels_of


@dataclasses.dataclass
class Slots:
    """What is carried from one training step to the next; the state is always detached."""

    tokens: Tensor  # int64 [B, S]
    labels: Tensor  # int64 [B, S]; IGNORE where there is nothing to learn
    identifiers: Tensor  # int64 [B]: rows of the table of puzzle embeddings
    state: tuple[Tensor, ...]  # the network's own state tensors, float32 [B, …] each
    steps: Tensor  # int64 [B]: segments run on the puzzle so far
    min_steps: Tensor  # int64 [B]: exploration: no halting before this segment
    max_steps: Tensor  # int64 [B]: the last segment that the puzzle may take
    halted: Tensor  # bool [B]: the puzzle is finished and the slot waits for a new one
    fresh: Tensor  # bool [B]: the state is still the one that a puzzle starts with

    @classmethod
    def empty(cls, model: HRM | Wrapped, batch: int, device: torch.device) -> Slots:
        """All slots finished, so that the first :meth:`refill` fills every one."""
        tokens = torch.zeros(batch, model.config.seq_len, dtype=torch.long, device=device)
        count = torch.zeros(batch, dtype=torch.long, device=device)
        with torch.no_grad():
            _, *state = model.start(tokens)
        return cls(
            tokens,
            tokens.clone(),
            count.clone(),
            tuple(tensor.clone() for tensor in state),
            count,
            count.clone(),
            torch.full_like(count, model.config.halt_max_steps),
            torch.ones(batch, dtype=torch.bool, device=device),
            torch.ones(batch, dtype=torch.bool, device=device),
        )

    def refill(
        self,
        model: HRM | Wrapped,
        sampler: Sampler,
        rng: np.random.Generator,
        rank: int = 0,
        size: int = 1,
        most_segments: int | None = None,
    ) -> int:
        """Give every finished slot a new puzzle and a fresh state; returns how many.

        A puzzle may take ``halt_max_steps`` segments. In a curriculum, where by now the most are fewer, each
        takes a limit of its own below it: one limit for all would keep the slots in step with each other.

        ``rng`` draws a puzzle for each slot of all ``size`` processes, of which these are the ``rank``-th part, so
        that what a slot gets depends neither on the others nor on how slots are spread over processes.
        """
        rows = self.halted.nonzero().squeeze(-1)
        count = len(rows)
        if count:
            config, device = model.config, self.tokens.device
            total, first = len(self.steps) * size, len(self.steps) * rank
            questions, answers, identifiers = sampler.draw(rng, total)
            explore = rng.random(total) < config.halt_exploration_prob
            least = rng.integers(2, max(3, config.halt_max_steps + 1), size=total)
            most = np.full(total, config.halt_max_steps)
            if most_segments is not None and most_segments < config.halt_max_steps:
                most = rng.integers(1, most_segments + 1, size=total)
            own = first + rows.cpu().numpy()
            self.tokens[rows] = torch.from_numpy(questions[own]).long().to(device)
            self.labels[rows] = labels_of(torch.from_numpy(answers[own]).long()).to(device)
            self.identifiers[rows] = torch.from_numpy(identifiers[own]).long().to(device)
            self.min_steps[rows] = torch.from_numpy(np.where(explore, least, 1)[own]).to(device)
            self.max_steps[rows] = torch.from_numpy(most[own]).to(device)
            with torch.no_grad():
                _, *begun = model.start(self.tokens[rows], self.identifiers[rows])
            for tensor, start in zip(self.state, begun, strict=True):
                tensor[rows] = start.to(tensor.dtype)
            self.steps[rows] = 0
            self.fresh[rows] = True
        return count

    def stagger(self, rank: int = 0) -> None:
        """Spread freshly filled slots over the segments.

        Filled together they would stay in step until the model learns to halt, and every batch would hold
        one depth only. The first puzzles pay for it with fewer segments.
        """
        places = torch.arange(len(self.steps), device=self.steps.device) + rank * len(self.steps)
        self.steps = places % self.max_steps
        self.halted = torch.zeros_like(self.halted)

    def advance(self, state: Sequence[Tensor], q: Tensor, no_ACT_continue: bool) -> None:
        """Keep a segment's detached result and decide which slots are finished."""
        self.state = tuple(tensor.detach() for tensor in state)
        self.fresh = torch.zeros_like(self.fresh)
        self.steps = self.steps + 1
        wants = halting_head(no_ACT_continue).says_stop(q.detach()) & (self.steps >= self.min_steps)
        self.halted = wants | (self.steps >= self.max_steps)

    @staticmethod
    def to_dict(batches: list[Slots], names: Sequence[str]) -> dict[str, Tensor]:
        """Each field of all batches as one tensor, [B, batches, ...]; ``names`` of the state tensors."""
        found = {}
        for field in dataclasses.fields(Slots):
            values = [getattr(slots, field.name) for slots in batches]
            if field.name != "state":
                found[field.name] = torch.stack([value.cpu() for value in values], dim=1)
                continue
            for name, tensors in zip(names, zip(*values, strict=True), strict=True):
                found[f"state.{name}"] = torch.stack([tensor.cpu() for tensor in tensors], dim=1)
        return found

    @staticmethod
    def from_dict(
        values: dict[str, Tensor], names: Sequence[str], device: torch.device, halt_max_steps: int
    ) -> list[Slots]:
        # States that were saved before there were identifiers, limits of a slot's own, or any network's states, do
        # not have them.
        steps = values["steps"]
        later = {"identifiers": torch.zeros_like(steps), "max_steps": torch.full_like(steps, halt_max_steps)}
        later["fresh"] = values["steps"] == 0
        values = {**later, **values}
        fields = {name: tensor.to(device).unbind(1) for name, tensor in values.items()}
        kept = [name for name in fields if name in {field.name for field in dataclasses.fields(Slots)}]
        state = [fields[f"state.{name}"] if f"state.{name}" in fields else fields[name] for name in names]
        return [
            Slots(**{name: fields[name][batch] for name in kept}, state=tuple(tensors[batch] for tensors in state))
            for batch in range(steps.shape[1])
        ]
