"""The architecture of a network as plain data: the public configs' field names, checked at construction."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from .. import limits
from ..errors import InputError
from .mixers import MIXERS, Mixer

PosEncodings = Literal["rope", "learned", "grid", "axial", "none"]
# hrm, trm, and the HRM paper's own comparison points: one transformer, recurrent or in a single pass.
Kind = Literal["hrm", "trm", "recurrent", "direct"]
_TITLES = {"hrm": "HRM", "trm": "TRM", "recurrent": "Recurrent transformer", "direct": "Transformer, one pass"}

# What a kind leaves no choice about.
FIXED: dict[str, dict[str, int]] = {
    "trm": {"H_layers": 0},  # L_layers serve both updates
    "direct": {"H_cycles": 1, "L_cycles": 1, "halt_max_steps": 1},
}

INFINITE = 1e30  # no field's value comes near it, nor are its square and its root far from a float


def of_type(value: Any, annotation: str) -> tuple[bool, str]:
    """Whether a config's value is of its field's type, and what that is called: one with choices holds text."""
    kinds: dict[str, Any] = {"int": int, "float": int | float, "bool": bool}
    right = isinstance(value, kinds.get(annotation, str)) and (annotation == "bool" or not isinstance(value, bool))
    return right, annotation if annotation in kinds else "str"


@dataclasses.dataclass(frozen=True)
class HRMConfig:
    """What fixes a network's shape and halting (paper section 2; field names of the public code)."""

    vocab_size: int
    seq_len: int  # S: tokens of a puzzle, prefix not counted
    num_puzzle_identifiers: int = 1
    puzzle_emb_ndim: int = 0  # width of one puzzle's embedding; 0: no prefix
    H_cycles: int = 2  # N
    L_cycles: int = 2  # T
    H_layers: int = 4
    L_layers: int = 4
    hidden_size: int = 512  # D
    expansion: float = 4.0
    num_heads: int = 8
    pos_encodings: PosEncodings = "rope"
    # grid: rope, and learned row, column and box embeddings; axial: the same, but rope turns half of each head by
    # the row and half by the column, not by the place in the flattened grid
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    halt_max_steps: int = 16  # segments; the paper's M_max
    halt_exploration_prob: float = 0.1
    no_ACT_continue: bool = False  # halt on q_halt > 0 alone, without the continue head's target
    # From here on: fields that the first checkpoints do not have.
    kind: Kind = "hrm"
    mlp_t: bool = False  # a SwiGLU over the sequence in attention's place, which leaves rope nothing to turn
    puzzle_emb_len: int = 0  # P, given; 0: as many tokens as puzzle_emb_ndim needs
    conv_kernel: int = 0  # K of a depthwise K x K convolution over the grid in attention's place; 0: none
    unit_means: bool = False  # with it, each cell also takes the means over its row, its column (and its box)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            right, kind = of_type(value, str(field.type))
            self._require(field.name, right and (kind != "float" or abs(value) < INFINITE), f"of type {kind}")
        positive: tuple[str, ...] = ("vocab_size", "seq_len", "num_puzzle_identifiers", "hidden_size", "num_heads")
        positive += ("H_cycles", "L_cycles", "L_layers", "halt_max_steps")
        kinds = get_args(Kind)
        self._require("kind", self.kind in kinds, f"one of {', '.join(kinds)}")
        if self.kind == "hrm":
            positive += ("H_layers",)
        for name in positive:
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("puzzle_emb_ndim", "puzzle_emb_len", "H_layers"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name, most in limits.OF_FIELD.items():
            self._require(name, getattr(self, name, 0) <= most, f"at most {most}")
        for name, value in FIXED.get(self.kind, {}).items():
            self._require(name, getattr(self, name) == value, f"{value} where kind is {self.kind}")
        narrowest = min(self.hidden_size, self.sequence_len) if self.mlp_t else self.hidden_size
        self._require(
            "expansion", self.expansion * narrowest >= 1, f"at least 1 / {narrowest}: a layer has a width"
        )
        self._require("rms_norm_eps", self.rms_norm_eps > 0, "above 0")
        self._require("rope_theta", self.rope_theta > 0, "above 0")
        self._require("halt_exploration_prob", 0 <= self.halt_exploration_prob <= 1, "between 0 and 1")
        choices = get_args(PosEncodings)
        self._require("pos_encodings", self.pos_encodings in choices, f"one of {', '.join(choices)}")
        self._require(
            "num_heads", self.hidden_size % self.num_heads == 0, f"a divisor of hidden_size ({self.hidden_size})"
        )
        if self.rotary:
            self._require(
                "num_heads", self.head_dim % 2 == 0, f"such that head_dim ({self.head_dim}) is even for rope"
            )
        if self.pos_encodings == "axial" and self.rotary:
            self._require(
                "num_heads",
                self.head_dim % 4 == 0,
                f"such that head_dim ({self.head_dim}) is a multiple of 4 for axial",
            )
        if self.puzzle_emb_len:
            self._require("puzzle_emb_len", self.puzzle_emb_ndim > 0, "0 where puzzle_emb_ndim is 0")
            needed = -(-self.puzzle_emb_ndim // self.hidden_size)
            self._require(
                "puzzle_emb_len", self.puzzle_emb_len >= needed, f"0, or the {needed} that hold puzzle_emb_ndim"
            )
        runs = f"such that a segment runs at most {limits.BLOCK_CALLS} blocks, not {self.block_calls}"
        self._require("L_cycles", self.block_calls <= limits.BLOCK_CALLS, runs)
        for mixer in MIXERS:
            mixer.check(self, self._require)
        if self.num_puzzle_identifiers > 1:
            self._require("puzzle_emb_ndim", self.puzzle_emb_ndim > 0, "above 0 with several puzzle identifiers")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise InputError(f"config field {name} is {repr(getattr(self, name))[:60]}; it must be {allowed}")

    @property
    def prefix_len(self) -> int:
        """P: prefix tokens that hold the puzzle embedding."""
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def sequence_len(self) -> int:
        """S' = P + S."""
        return self.prefix_len + self.seq_len

    @property
    def learns_halting(self) -> bool:
        """Whether it has a halting head to train: always."""
        return True

    @property
    def keeps_answers(self) -> bool:
        """Whether a row that has halted would give the same answer in every further segment: its state goes on."""
        return False

    @property
    def state_values(self) -> int:
        """Numbers in the state of one puzzle, z_H and z_L together."""
        return 2 * self.sequence_len * self.hidden_size

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mixer(self) -> type[Mixer]:
        """What mixes the tokens in every block."""
        return next(mixer for mixer in MIXERS if mixer.wanted(self))

    @property
    def rotary(self) -> bool:
        """Whether the mixer turns by rotary tables; `grid` is rope with learned embeddings beside it."""
        return self.pos_encodings in ("rope", "grid", "axial") and self.mixer.rotary

    @property
    def on_grid(self) -> bool:
        """Whether the task's rows and columns are needed: they are embedded and added to the input."""
        return self.pos_encodings in ("grid", "axial")

    @property
    def placed_by(self) -> str | None:
        """What needs the task's position_ids, if anything does."""
        return self.mixer.placed_by or (f"pos_encodings {self.pos_encodings!r}" if self.on_grid else None)

    @property
    def title(self) -> str:
        """What people call such a network."""
        return _TITLES[self.kind]

    @property
    def structure(self) -> str:
        """What it is made of, for people."""
        return (
            f"{self.hidden_size} wide, {self.H_layers} + {self.L_layers} layers, {self.num_heads} heads, "
            f"{self.H_cycles} x {self.L_cycles} cycles a segment"
        )

    @property
    def block_calls(self) -> int:
        """Blocks that run in one segment."""
        H, L = self.H_layers, self.L_layers
        if self.kind in ("hrm", "trm"):
            return self.H_cycles * (self.L_cycles * L + (H or L))
        return self.H_cycles * self.L_cycles * (H + L)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> HRMConfig:
        """Build from JSON or YAML values; an unknown field is an error, never ignored."""
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected a table of fields, found {type(values).__name__}")
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(str(name) for name in set(values) - set(known))
        if unknown:
            raise InputError(f"{where}: unknown field {unknown[0]!r}; known fields are {', '.join(sorted(known))}")
        missing = [n for n, f in known.items() if f.default is dataclasses.MISSING and n not in values]
        if missing:
            raise InputError(f"{where}: field {missing[0]!r} is missing")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """The fields to hash: later ones only where they say something new, so that old checkpoints keep theirs."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        names = list(defaults)
        later = names[names.index("kind") :]
        return {k: v for k, v in self.to_dict().items() if k not in later or v != defaults[k]}

    @classmethod
    def paper(cls, **changes: Any) -> HRMConfig:
        """The paper's Sudoku model: 27 M parameters (section 4)."""
        settings: dict[str, Any] = {"vocab_size": 11, "seq_len": 81, "puzzle_emb_ndim": 512, **changes}
        return cls(**settings)
