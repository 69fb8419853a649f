"""Candidate-state reasoners: the state is what is still possible, and a segment is one call that strikes from it.

After the Lattice Deduction Transformer (arXiv 2605.08605), over the exact-cover graph of a task's groups: a token
for every cell and symbol, mixed by means over the constraints that it stands in, so that every symmetry of a puzzle
is one of the network. What it strikes, what it tries and what it takes back when that contradicts the rules is part
of the segment too, as plain tensor operations: the search runs wherever a segment does, and carries whole numbers
alone, in which no rounding adds up.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import limits
from ..errors import InputError
from ..tasks import Task
from .config import INFINITE, of_type
from .layers import Linear, shapes_alone
from .network import Wrapped

KIND = "deduce"  # what such an architecture calls itself in configs
_EPS = 1e-5
_NEVER = -40.0  # logit of a token that an answer cannot have


@dataclasses.dataclass(frozen=True)
class DeduceConfig:
    """What fixes such a network, under the names that :class:`HRMConfig` has for it."""

    hidden_size: int = 32  # D, of a candidate
    L_layers: int = 1
    L_cycles: int = 8  # times that a call goes through the layers
    trained_cycles: int = 8  # times that a call did so in training
    expansion: float = 2.0  # of a layer's last unit
    intersections: bool = True  # cells that two groups share are a kind of constraint too
    halt_max_steps: int = 128  # calls
    rule_rounds: int = 2  # times that the rules strike at each step of the search
    search_steps: int = 32  # more steps of the search in a call, by the rules and what the network said before them
    strike_below: float = 0.1  # probability of being kept, below which a candidate is struck
    conflict_above: float = 0.5  # probability of a contradiction, above which the last pin is taken back
    kind: str = KIND
    factory: ClassVar[str] = KIND  # what made it, for messages

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            right, kind = of_type(value, str(field.type))
            self._require(field.name, right and (kind != "float" or abs(value) < INFINITE), f"of type {kind}")
        for name in ("hidden_size", "L_layers", "L_cycles", "trained_cycles", "halt_max_steps"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name, most in limits.OF_FIELD.items():
            self._require(name, getattr(self, name, 0) <= most, f"at most {most}")
        runs = self.L_layers * max(self.L_cycles, self.trained_cycles)
        self._require(
            "L_cycles", runs <= limits.BLOCK_CALLS, f"such that a call runs at most {limits.BLOCK_CALLS} layers"
        )
        self._require("expansion", self.expansion * self.hidden_size >= 1, f"at least 1 / {self.hidden_size}")
        self._require("rule_rounds", 1 <= self.rule_rounds <= limits.CYCLES, f"from 1 to {limits.CYCLES}")
        self._require("search_steps", 0 <= self.search_steps <= limits.CYCLES, f"from 0 to {limits.CYCLES}")
        # From a half on, a new attempt would not strike less than the one before.
        self._require("strike_below", 0 < self.strike_below < 0.5, "above 0 and below 0.5")
        self._require("conflict_above", 0 < self.conflict_above < 1, "above 0 and below 1")
        self._require("kind", self.kind == KIND, KIND)

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise InputError(f"config field {name} is {repr(getattr(self, name))[:60]}; it must be {allowed}")

    @property
    def structure(self) -> str:
        """What it is made of, for people."""
        shared = " and any cells that two of these share" if self.intersections else ""
        return (
            f"a candidate-state reasoner, {self.hidden_size} wide for each cell and symbol, {self.L_layers} "
            f"layer{'s'[: self.L_layers > 1]} mixing by means over cells, groups{shared}, "
            f"{self.L_cycles} cycles a call, {self.trained_cycles} in training"
        )

    def having(self, **changes: Any) -> DeduceConfig:
        """The same with these fields changed."""
        return self.from_dict({**self.to_dict(), **changes}, "[arch]")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in recipes and checkpoints."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> DeduceConfig:
        """InputError where a field is unknown or cannot be what it says."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(str(name) for name in set(values) - set(known))
        if unknown:
            raise InputError(
                f"{where}: unknown field {unknown[0]!r} for kind {KIND}; known fields are {', '.join(known)}"
            )
        return cls(**values)

    def sketch(self, task: Task) -> Deduce:
        """The network without memory for a single weight."""
        with shapes_alone():
            return Deduce(self, task)

    def build(self, task: Task) -> Wrapped:
        """The network for a task, wrapped."""
        model = Wrapped(Deduce(self, task), task)
        model.source = self
        return model


def _rms_norm(x: Tensor) -> Tensor:
    wide = x.float()
    return (wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + _EPS)).to(x.dtype)


class GatedUnit(nn.Module):
    """SwiGLU of any width: the family's own is a multiple of 256, many times what a candidate needs."""

    def __init__(self, fan_in: int, width: int, fan_out: int):
        super().__init__()
        self.gate_proj, self.up_proj = Linear(fan_in, width), Linear(fan_in, width)
        self.down_proj = Linear(width, fan_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Constraints(nn.Module):
    """One kind of constraint: each takes the mean of its candidates, thinks about it, and tells them all.

    ``member`` float32 ``[U, S]``: 1 for the cells of each, which is one for every symbol; None: a cell's candidates
    are the constraint.
    """

    spread: Tensor
    pool: Tensor

    def __init__(self, member: np.ndarray | None, width: int):
        super().__init__()
        self.unit = GatedUnit(width, width, width)
        self.in_cells = member is None
        if member is not None:
            self.register_buffer("spread", torch.as_tensor(member.T.copy()), persistent=False)
            pool = member / member.sum(1, keepdims=True)
            self.register_buffer("pool", torch.as_tensor(pool), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x[B, S, K, D]`` → what its constraints tell each candidate, of the same shape or ``[B, S, 1, D]``."""
        if self.in_cells:
            return self.unit(x.mean(2, keepdim=True))
        K, D = x.shape[2:]
        pooled = (self.pool.to(x.dtype) @ x.flatten(2)).unflatten(2, (K, D))
        return (self.spread.to(x.dtype) @ self.unit(pooled).flatten(2)).unflatten(2, (K, D))


class Block(nn.Module):
    """Pre-norm: the state of each candidate takes what its constraints tell it, and thinks."""

    def __init__(self, kinds: Sequence[np.ndarray | None], width: int, expansion: float):
        super().__init__()
        self.constraints = nn.ModuleList(Constraints(member, width) for member in kinds)
        self.mlp = GatedUnit(width, round(expansion * width), width)
        nn.init.zeros_(self.mlp.down_proj.weight)

    def forward(self, h: Tensor) -> Tensor:
        x = _rms_norm(h)
        for constraint in self.constraints:
            h = h + constraint(x)
        return h + self.mlp(_rms_norm(h))


class Deduce(nn.Module):
    """A network that keeps the contract of :class:`models.network.Network`; candidates are ``[B, S, K]``.

    Its state: ``struck``, 0 where a candidate is possible, else 1 more than the number of pins at which it was
    struck; ``pinned``, the number of the pin that chose a candidate, else 0; ``attempts``, how often everything was
    taken back. ``e`` says what the question leaves: 0 nothing, 1 possible, 2 given.

    A call strikes candidates that the network does not keep, and then what the rules rule out. A cell or a group
    that nothing is left for is a contradiction, and so is what the network says is one: the last pin is taken back
    with what was struck since, and its candidate is struck in its place. Else a cell is pinned to the candidate
    that the network likes most. That is depth-first search: complete, without a random source. Where nothing is
    left to take back, a wrong strike or a false alarm must have been believed: all begins anew, the next attempt
    believing less.
    """

    state = ("struck", "pinned", "attempts")
    repeated = ("cycle", "step")
    halt_exploration_prob = 0.0
    halts_when_solved = True
    table: Tensor
    member: Tensor
    peers: Tensor

    def __init__(self, arch: DeduceConfig, task: Task):
        super().__init__()
        if task.groups is None or task.value_tokens is None:
            raise InputError(
                f"{task.name}: an architecture of kind {KIND} needs a task with groups of cells that each hold "
                "every value once"
            )
        self.arch, self.halt_max_steps = arch, arch.halt_max_steps
        self.strike_logit, self.conflict_logit = _logit(arch.strike_below), _logit(arch.conflict_above)
        D, S, V, values = arch.hidden_size, task.seq_len, task.vocab_size, np.asarray(task.value_tokens)
        table = np.ones((V, len(values)), np.float32)
        table[values] = 2 * np.eye(len(values), dtype=np.float32)
        member = np.zeros((len(task.groups), S), np.float32)
        np.put_along_axis(member, np.asarray(task.groups, np.int64), 1, axis=1)
        self.register_buffer("table", torch.as_tensor(table), persistent=False)
        self.register_buffer("member", torch.as_tensor(member), persistent=False)
        peers = np.minimum(member.T @ member, 1) - np.eye(S, dtype=np.float32)
        self.register_buffer("peers", torch.as_tensor(peers), persistent=False)
        self.places_of = [int(np.flatnonzero(values == token)[0]) if token in values else -1 for token in range(V)]
        kinds = [None, member]
        if arch.intersections and len(shared := intersections(member)):
            kinds.append(shared)
        self.embed = nn.Embedding(3, D)
        nn.init.normal_(self.embed.weight, std=1.0)
        self.blocks = nn.ModuleList(Block(kinds, D, arch.expansion) for _ in range(arch.L_layers))
        # A hair decides whether a candidate is struck; and of what the last unit multiplies, one channel grew to
        # thirty times the others in training, which leaves these no bits.
        downs = [f"blocks.{index}.mlp.down_proj" for index in range(arch.L_layers)]
        self.float_layers = ("heads", "conflict_head", *downs)
        self.heads = nn.Linear(D, 3)  # of each candidate: keep it, it is the one, something is wrong
        self.conflict_head = nn.Linear(2, 1)

    # -- a call ------------------------------------------------------------------------------------------

    def start(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """``(e, struck, pinned, attempts)`` of tokens ``[B, S]``."""
        e = F.embedding(tokens, self.table)
        none = torch.zeros_like(e)
        return e, none, none.clone(), none[:, :1, 0].clone()

    def embedded(self, alive: Tensor, given: Tensor) -> Tensor:
        """``[B, S, K, D]`` of what each candidate is: struck, possible or given."""
        struck, possible, fixed = self.embed.weight.unbind(0)
        return struck + alive[..., None] * (possible - struck) + given[..., None] * (fixed - possible)

    def cycle(self, h: Tensor, x: Tensor) -> Tensor:
        """Once through the layers, from the state ``h`` and the input ``x``, each ``[B, S, K, D]``."""
        h = h + x
        for block in self.blocks:
            h = block(h)
        return h

    def read(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the three heads: keep ``[B, S, K]``, symbol ``[B, S, K]``, conflict ``[B, 1]``."""
        keep, symbol, wrong = self.heads(_rms_norm(h)).float().unbind(-1)
        wrong = wrong.flatten(1)
        seen = torch.cat((wrong.amax(1, keepdim=True), wrong.mean(1, keepdim=True)), 1)
        return keep, symbol, self.conflict_head(seen).float()

    def segment(self, struck: Tensor, pinned: Tensor, attempts: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        """One call: ``(struck, pinned, attempts, logits[B, S, V], q[B, 1])``; q is above 0 where it is solved."""
        alive, given = possible(struck, e)
        x = self.embedded(alive, given)
        h = torch.zeros_like(x)
        for _ in range(self.arch.L_cycles):
            h = self.cycle(h, x)
        keep, symbol, conflict = self.read(h)
        doubt = self.strike_logit * (1 + attempts[..., None])  # each attempt strikes less
        strike = alive * (1 - given) * (keep < doubt).float()
        strike = strike * (1 - self.judged(alive)[1])  # what is solved stays so
        trusted = self.conflict_logit - _NEVER * attempts  # after the first attempt it believes the rules alone
        alarm = (conflict > trusted).float()[..., None]
        liked = torch.softmax(symbol, 2)
        step = self.moved(struck, pinned, attempts, alive, alive - strike, alarm, liked)
        asked = (e > 0.5).float()
        for _ in range(self.arch.search_steps):
            struck, pinned, attempts, *_ = step
            step = self.step(struck, pinned, attempts, asked, liked)
        struck, pinned, attempts, left, solved = step
        return struck, pinned, attempts, self.tokens(symbol + _NEVER * (1 - left)), 2 * solved[..., 0] - 1

    def step(
        self, struck: Tensor, pinned: Tensor, attempts: Tensor, asked: Tensor, liked: Tensor
    ) -> tuple[Tensor, ...]:
        """A step of the search by the rules alone, as :meth:`moved`; ``asked``: 1 for what the question leaves."""
        alive = asked * F.relu(1 - struck)
        return self.moved(struck, pinned, attempts, alive, alive, None, liked)

    def moved(
        self,
        struck: Tensor,
        pinned: Tensor,
        attempts: Tensor,
        alive: Tensor,
        left: Tensor,
        alarm: Tensor | None,
        liked: Tensor,
    ) -> tuple[Tensor, ...]:
        """A step of the search: the next ``struck, pinned, attempts``, what was left, and 1 where that is solved.

        Of the candidates that are ``alive`` the network leaves those in ``left``, and likes each so much in its
        cell; ``alarm`` is 1 where it says that something is wrong. Numbers are whole, which is what makes 1 or 0 of
        a difference that is cut off.
        """
        left = self.followed(left)
        wrong, solved = self.judged(left)
        if alarm is not None:
            wrong = torch.maximum(wrong, alarm * (1 - solved))
        depth = pinned.amax((1, 2), keepdim=True)
        # Onwards: what is struck now, and one more pin.
        pin, others = self.choose(left, liked)
        on = struck + (alive - left) * (depth + 1) + others * (depth + 2)
        # Back: all since the last pin, which is struck itself. Without one, everything.
        last = torch.minimum(F.relu(pinned - depth + 1), pinned)
        back = struck * (struck <= depth).float() + last * depth
        return (
            on + wrong * (back - on),
            pinned * (1 - wrong * last) + (1 - wrong) * pin * (depth + 1),
            attempts + (wrong * F.relu(1 - depth)).squeeze(2),
            left,
            solved,
        )

    def followed(self, left: Tensor) -> Tensor:
        """Candidates ``[B, S, K]`` less those that the rules rule out, ``rule_rounds`` times over.

        The only candidate of a cell is none elsewhere in its groups, and the only place for a symbol in a group has
        no other candidate.
        """
        for _ in range(self.arch.rule_rounds):
            single = left * F.relu(2 - left.sum(2, keepdim=True))
            left = left * (1 - (self.peers @ single).clamp(max=1))
            only = left * (self.member.T @ F.relu(2 - self.member @ left)).clamp(max=1)
            left = left - only.amax(2, keepdim=True) * (left - only)
        return left

    def judged(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """``wrong, solved``, each ``[B, 1, 1]``, of candidates.

        Wrong is 1 where a cell has none, or a group no place for a symbol; solved, where it is not and each cell
        has one. Two cells with the same one are found wrong once the rules have struck both.
        """
        count = left.sum(2, keepdim=True)
        least = torch.minimum(count.amin((1, 2), keepdim=True), (self.member @ left).amin((1, 2), keepdim=True))
        wrong = F.relu(1 - least)
        return wrong, (1 - wrong) * F.relu(2 - count.amax((1, 2), keepdim=True))

    def choose(self, left: Tensor, liked: Tensor) -> tuple[Tensor, Tensor]:
        """The candidate to pin, 1 in ``[B, S, K]``, and the others of its cell. Nothing where no cell is open."""
        count = left.sum(2, keepdim=True)
        among = left * (count - 1).clamp(0, 1)
        likely = among * liked
        likely = likely / likely.sum(2, keepdim=True).clamp(min=_EPS)
        score = likely + among / count.clamp(min=1)
        cell = _first_of_largest(score.amax(2))[..., None] * among
        pin = cell * _first_of_largest((cell * score).amax(1))[:, None]
        return pin, cell - pin

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, S]`` → the candidate that each is, 1 in ``[B, S, K]``; no value at all is none."""
        return (self.table[tokens.clamp(min=0)] > 1.5).float() * (tokens >= 0).float()[..., None]

    def tokens(self, symbol: Tensor) -> Tensor:
        """``[B, S, K]`` of symbols → ``[B, S, V]`` of tokens."""
        other = torch.full_like(symbol[..., :1], 2 * _NEVER)
        return torch.cat([other if k < 0 else symbol[..., k : k + 1] for k in self.places_of], -1)


def possible(struck: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """``alive, given``, 1 or 0 each: candidates that the question and what was struck leave, and those it gives."""
    given = (e > 1.5).float()
    return (struck < 0.5).float() * (e > 0.5).float(), given


def intersections(member: np.ndarray) -> np.ndarray:
    """Of groups float ``[G, S]``, 1 for each cell, the sets of two cells or more that two of them share ``[I, S]``.

    Of Sudoku, the three cells of a line in a box.
    """
    first, second = np.nonzero(np.triu(member @ member.T, 1) > 1)
    return np.unique(member[first] * member[second], axis=0)


def _first_of_largest(x: Tensor) -> Tensor:
    """1 at the first of the largest of ``x[B, n]``, in the operators that every backend has."""
    order = torch.arange(x.shape[1], 0, -1, device=x.device).to(x.dtype)
    largest = (x >= x.amax(1, keepdim=True)).to(x.dtype) * order
    return (largest >= largest.amax(1, keepdim=True)).to(x.dtype)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
