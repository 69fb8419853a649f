"""The contract of a network, and the adapter that makes any recurrent-depth network in PyTorch fit it.

Everything downstream of a checkpoint speaks of *state tensors*: ``start(tokens, puzzle_identifiers)`` gives the
input embedding ``e`` and the first state, ``segment(*state, e)`` the next state, logits and q. The networks of this
room offer that themselves. Another's is wrapped once in a :class:`Wrapped`, which asks it what it has, and turns
the ways in which networks halt into the one that is exported.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from .. import limits
from ..errors import InputError
from ..tasks import Task
from .flops import count_flops
from .products import Exchange, Place, Products, find_layers

WRAPPED = "network"  # where a wrapped network stands in its wrapper, and so the first part of its layers' names
_PROBE_ROWS = 2
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Attributes of a network that whoever names it may set in its place.
OPTIONS = ("halt_max_steps", "no_ACT_continue", "tolerance", "halt_exploration_prob", "halt_margin")
_TAKEN = ("e", "tokens", "logits", "q", "puzzle_identifiers", "fresh", "max_think_steps", "halt", "answer", "steps")


@runtime_checkable
class Network(Protocol):
    """A network that thinks in segments: these two methods. Dimension 0 of all tensors is the batch.

    ``start(tokens int64[B, S]) → (e, *state)``: what every segment reads of the question, and the state before the
    first, float32 each, of any shape. A network with several puzzle identifiers takes
    ``puzzle_identifiers int64[B]`` as a second argument.

    ``segment(*state, e) → (*state, logits float[B, S, V], q)``: the state after the segment, its guess, and what
    says whether to think on: ``q[B, 2]`` (halt, continue: it stops where halt is the greater), ``q[B, 1]`` or
    ``q[B]`` (it stops above zero), or None or nothing at all: then it stops when its state stands still within
    ``tolerance``, or, without one, after ``halt_max_steps`` segments.

    Optional attributes, with their defaults: ``state`` (names of the state tensors: "z", or "z_0", "z_1", …),
    ``halt_max_steps`` (16), ``num_puzzle_identifiers`` (1), ``tolerance`` (None: a part of the state's size),
    ``no_ACT_continue`` (False: ``q[B, 2]`` is read as HRM's; True: its first column alone), ``float_layers`` (names
    of layers that are never quantized), ``halts_when_solved`` (False: True where q is no guess), ``repeated``
    (methods of tensors with the batch first that a segment calls over and over: an export traces each once). And
    for training ``halt_exploration_prob`` (0.1: how often a puzzle is thought about past the halting that is
    learned), and what it ends with, ``halt_margin`` (0: logits by which q's first column is lowered).
    :data:`OPTIONS` can be set from outside.
    """

    def start(self, tokens: Tensor) -> Sequence[Tensor]: ...

    def segment(self, *tensors: Tensor) -> Sequence[Tensor]: ...


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What is known of a wrapped network, under the names that :class:`HRMConfig` has for it."""

    name: str  # of its class
    seq_len: int
    vocab_size: int
    hidden_size: int  # last dimension of its first state tensor
    halt_max_steps: int
    num_puzzle_identifiers: int
    no_ACT_continue: bool
    halting: str  # what says stop: "halt > continue", "halt", "converged", "none", or "solved", which is no guess
    state: dict[str, tuple[int, ...]]  # shape of one row of each state tensor, by name
    segment_flops: int  # of the products of one segment, one puzzle
    halt_exploration_prob: float = 0.0
    halt_margin: float = 0.0  # logits
    prefix_len: int = 0
    kind: str = "network"

    @property
    def title(self) -> str:
        """What people call such a network."""
        return self.name

    @property
    def learns_halting(self) -> bool:
        """Whether it has a halting head to train."""
        return self.halting.startswith("halt")

    @property
    def keeps_answers(self) -> bool:
        """Whether a row that has halted would give the same answer in every further segment."""
        return self.halting == "solved"

    @property
    def state_values(self) -> int:
        """Numbers in the state of one puzzle."""
        return sum(math.prod(shape) for shape in self.state.values())

    @property
    def structure(self) -> str:
        """What it is made of, for people."""
        states = ", ".join(f"{name} {list(shape)}" for name, shape in self.state.items())
        return f"state {states} a puzzle, halting: {self.halting}"

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {**values, "state": {name: list(shape) for name, shape in self.state.items()}}

    identity = to_dict


class Wrapped(nn.Module):
    """Another's network as one of this room: checked, with named state tensors and ``q[B, 2]``.

    InputError says what of the contract it does not keep.
    """

    config: NetworkConfig
    source: Any = None  # what made it, where that has a name: a models.source.NetworkSource
    graphs: Any = None  # its start and segment, once they were traced
    reads_e = True  # whether a segment does: told once it was traced
    layers: dict[str, Place]  # all that a segment multiplies by
    quantized_layers: tuple[str, ...]  # those among them that the next state depends on; others are heads

    def __init__(self, network: nn.Module, task: Task, halt_max_steps: int | None = None):
        super().__init__()
        what = type(network).__name__
        if not isinstance(network, nn.Module) or not isinstance(network, Network):
            raise InputError(f"network {what}: is no torch.nn.Module with the methods start and segment")
        # A copy: whoever made it may go on training it.
        self.add_module(WRAPPED, copy.deepcopy(network).float())
        self.eval()
        self.tolerance = _option(network, "tolerance", None, float)
        identifiers = _option(network, "num_puzzle_identifiers", 1, int)
        self.takes_identifiers = identifiers > 1
        self.classes = task.vocab_size
        device = device_of(self)
        tokens = torch.as_tensor(task.question_tokens[:1]).to(device).expand(_PROBE_ROWS, task.seq_len)
        e, *state = _told(what, "start", lambda: self._started(tokens, torch.zeros(_PROBE_ROWS, dtype=torch.int64)))
        self.state = _names(network, what, len(state))
        for name, tensor in zip(("e", *self.state), (e, *state), strict=True):
            _check(tensor, f"network {what}: start gives {name}")
        self.e_shape = tuple(e.shape[1:])
        self.width = self._halting_width(what, state, e, task)
        own = self._network
        found = find_layers(own, f"{WRAPPED}.", lambda: tuple(own.segment(*state, e)), len(state))
        spared = {f"{WRAPPED}.{name}" for name in getattr(network, "float_layers", ())}
        self.layers = {name: place for name, place in found.places.items() if name not in spared}
        self.quantized_layers = tuple(name for name in found.inside if name not in spared)
        learned = self.width > 0
        explored = _option(network, "halt_exploration_prob", 0.1, float, least=0)
        if not explored <= 1:
            raise InputError(f"network {what}: halt_exploration_prob is {explored}; it must be between 0 and 1")
        steps = halt_max_steps or _option(network, "halt_max_steps", 16, int)
        if not 1 <= steps <= limits.SEGMENTS:
            raise InputError(f"network {what}: halt_max_steps is {steps}; it must be from 1 to {limits.SEGMENTS}")
        self.config = NetworkConfig(
            name=what,
            seq_len=task.seq_len,
            vocab_size=task.vocab_size,
            hidden_size=state[0].shape[-1],
            halt_max_steps=steps,
            num_puzzle_identifiers=identifiers,
            no_ACT_continue=self.width < 2 or _option(network, "no_ACT_continue", False, bool),
            halting=_halting(network, self.width, self.tolerance),
            state={name: tuple(tensor.shape[1:]) for name, tensor in zip(self.state, state, strict=True)},
            segment_flops=count_flops(self._network.segment, [tensor[:1] for tensor in (*state, e)]),
            halt_exploration_prob=explored if learned else 0.0,
            halt_margin=_option(network, "halt_margin", 0.0, float, least=0) if learned else 0.0,
        )

    @property
    def _network(self) -> Any:
        return cast(Any, self.get_submodule(WRAPPED))

    # -- the contract ------------------------------------------------------------------------------------

    def start(self, tokens: Tensor, puzzle_identifiers: Tensor | None = None) -> tuple[Tensor, ...]:
        """``(e, *state)`` of tokens ``[B, S]``; a token that there is not becomes the nearest that there is."""
        if puzzle_identifiers is None:
            puzzle_identifiers = torch.zeros_like(tokens[:, 0])
        return self._started(tokens.clamp(0, self.classes - 1), puzzle_identifiers)

    def segment(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """``(*state, e) → (*state, logits[B, S, V], q[B, 2])``."""
        outputs = tuple(self._network.segment(*tensors))
        count = len(self.state)
        state, logits = outputs[:count], outputs[count]
        halt = self._halt(tensors[:count], state, logits, outputs[count + 1] if len(outputs) > count + 1 else None)
        if not self.reads_e:  # some backends drop an input that nothing reads
            halt = halt + 0 * tensors[-1].flatten(1)[:, :1]
        q = halt if halt.shape[1] == 2 else torch.cat((halt, torch.zeros_like(halt)), dim=1)
        return (*state, logits, q)

    forward = segment

    @property
    def segment_flops(self) -> int:
        """As :attr:`HRM.segment_flops`."""
        return self.config.segment_flops

    def distrust(self, margin: float) -> None:
        """Lower what says halt by so many logits."""
        if margin and self.config.learns_halting:
            lowered = self.config.halt_margin + margin
            self.config = dataclasses.replace(self.config, halt_margin=lowered)
            if self.source is not None:
                self.source = self.source.having(halt_margin=lowered)

    def layer_weights(self) -> dict[str, Tensor]:
        """Layer → its weight ``[out, in]``."""
        tensors = self._network.state_dict()
        return {layer: place.of(tensors) for layer, place in self.layers.items()}

    def stored_layers(self) -> dict[str, str]:
        """Layer → the layer that a graph stores its weight for: the first that has the very same one."""
        first: dict[str, Tensor] = {}
        found = {}
        for layer, weight in self.layer_weights().items():
            found[layer] = next((name for name, other in first.items() if torch.equal(other, weight)), layer)
            first.setdefault(found[layer], weight)
        return found

    def products(self, exchange: Exchange) -> Products:
        """A context in which the segment's products go through ``exchange`` (see :mod:`models.products`)."""
        return Products(self._network, self.layers, exchange)

    # -- what it makes of the other's --------------------------------------------------------------------

    def _started(self, tokens: Tensor, puzzle_identifiers: Tensor) -> tuple[Tensor, ...]:
        asked = (tokens.long(), puzzle_identifiers.long()) if self.takes_identifiers else (tokens.long(),)
        return tuple(self._network.start(*asked))

    def _halt(self, before: Sequence[Tensor], after: Sequence[Tensor], logits: Tensor, q: Tensor | None) -> Tensor:
        """float32[B, 1 or 2]: what halts a row."""
        if q is not None:
            q = q.float().reshape(q.shape[0], -1)
            margin = self.config.halt_margin
            return torch.cat((q[:, :1] - margin, q[:, 1:]), dim=1) if margin else q
        if self.tolerance is None:
            return 0 * logits[:, 0, :1] - 1  # never
        moved = sum(
            (new - old).flatten(1).square().mean(1, keepdim=True) for old, new in zip(before, after, strict=True)
        )
        size = sum(new.flatten(1).square().mean(1, keepdim=True) for new in after)
        return self.tolerance**2 * size - moved

    def _halting_width(self, what: str, state: Sequence[Tensor], e: Tensor, task: Task) -> int:
        """Columns of q, 0 without one; InputError where a segment does not give what it has to."""
        outputs = _told(what, "segment", lambda: tuple(self._network.segment(*state, e)))
        count = len(state)
        if not count + 1 <= len(outputs) <= count + 2:
            names = ", ".join(self.state)
            raise InputError(
                f"network {what}: segment gives {len(outputs)} tensors; it must give {names}, logits and, if it "
                "has one, q (the attribute `state` names the state tensors)"
            )
        for name, old, new in zip(self.state, state, outputs, strict=False):
            _check(new, f"network {what}: segment gives {name}")
            if new.shape != old.shape:
                raise InputError(
                    f"network {what}: state {name} is {list(old.shape)} before a segment, {list(new.shape)} after"
                )
        logits = outputs[count]
        wanted = (_PROBE_ROWS, task.seq_len, task.vocab_size)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"network {what}: segment gives logits {shape}; for {task.name} they must be "
                f"[B, {task.seq_len}, {task.vocab_size}]"
            )
        q = outputs[count + 1] if len(outputs) > count + 1 else None
        if q is None:
            return 0
        width = q.numel() // _PROBE_ROWS if isinstance(q, Tensor) and len(q) == _PROBE_ROWS else 0
        if width not in (1, 2):
            raise InputError(f"network {what}: segment gives a q that is none of [B], [B, 1] and [B, 2]")
        return width


def device_of(model: nn.Module) -> torch.device:
    """Where a network's first weight lies."""
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))


def bare(model: nn.Module) -> nn.Module:
    """Whose weights a checkpoint of the model holds, by names of its own: another's network without its wrapper."""
    return model.get_submodule(WRAPPED) if isinstance(model, Wrapped) else model


def _halting(network: nn.Module, width: int, tolerance: float | None) -> str:
    if getattr(network, "halts_when_solved", False):
        return "solved"
    return {2: "halt > continue", 1: "halt"}.get(width, "converged" if tolerance else "none")


def _option(network: nn.Module, name: str, default: Any, kind: type, least: float | None = None) -> Any:
    """A number must be above 0, or with ``least`` 0 or more."""
    value = getattr(network, name, default)
    if value is default:
        return default
    right = isinstance(value, int | float) if kind is float else type(value) is kind
    if right and kind is not bool:
        right = value < math.inf and (value > 0 if least is None else value >= least)
    if not right:
        allowed = _KINDS[kind].format("above 0" if least is None else f"of at least {least}")
        raise InputError(f"network {type(network).__name__}: {name} is {str(value)[:60]!r}; it must be {allowed}")
    return value


_KINDS = {int: "a whole number {}", float: "a number {}", bool: "True or False"}


def _names(network: nn.Module, what: str, count: int) -> tuple[str, ...]:
    """The state tensors' names, given or made."""
    if not count:
        raise InputError(f"network {what}: start must give e and at least one state tensor")
    given = getattr(network, "state", None)
    if given is None or callable(given):
        return ("z",) if count == 1 else tuple(f"z_{i}" for i in range(count))
    names = (given,) if isinstance(given, str) else tuple(given)
    if len(names) != count:
        raise InputError(f"network {what}: `state` names {len(names)} tensors, and start gives {count} beside e")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN or name.endswith("_next"):
            raise InputError(f"network {what}: {name!r} cannot name a state tensor; take letters, digits and _")
    if len(set(names)) != count:
        raise InputError(f"network {what}: two state tensors have one name")
    return names


def _check(tensor: Any, where: str) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or tensor.ndim < 2:
        kind = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(f"{where} as {kind}; it must be float32 with the batch first and at least two dimensions")
    if len(tensor) != _PROBE_ROWS:
        raise InputError(f"{where} for {len(tensor)} rows where it was asked for {_PROBE_ROWS}")


def _told(what: str, method: str, call: Any) -> Any:
    """What another's method gives; what it raises becomes one line."""
    try:
        with torch.no_grad():
            found = call()
            return tuple(found)
    except InputError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"network {what}: {method} fails on {_PROBE_ROWS} puzzles ({first[:200]})") from error
