"""What fixes a training run, checked at construction, and the presets to start from."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, overload

from ..errors import InputError
from ..files import read_text
from ..limits import ROWS
from ..models import HRMConfig
from ..models.config import FIXED, INFINITE, of_type
from ..models.deduce import KIND as DEDUCE
from ..models.deduce import DeduceConfig
from ..models.hrm import Gradient
from ..models.source import NetworkSource
from ..tasks import Task, get_task
from .losses import LOSSES
from .optim import OPTIMIZERS, SCHEDULES

CheckpointDtype = Literal["float32", "float16"]
Qat = Literal["off", "learned", "frozen"]


# Of the minutes that a run may take: what it measures its finished model in, on fewer puzzles where it must.
MEASURING = 0.1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run (paper section 2 and appendix; defaults as published, for the paper's model)."""

    batch_size: int = 768  # slots over all processes
    accumulate: int = 1  # parts in which a process takes its slots, one after the other, to need less memory
    # Batches of slots that take turns. A puzzle's segments are then that many steps apart, and a small batch is
    # less easily learned by heart while it is thought about.
    interleave: int = 1
    rollout: int = 1  # segments that every slot takes, one after the other, before the weights change
    gradient: Gradient = "one_step"
    loss: str = "stablemax"
    label_smoothing: float = 0.0  # part of the token target that is spread over the vocabulary
    halt_loss_weight: float = 0.5
    optimizer: str = "adam_atan2"
    lr: float = 1e-4
    lr_min_ratio: float = 1.0  # what a decaying schedule ends at, as a part of lr
    schedule: str = "constant"  # after the warm-up
    warmup_steps: int = 2000
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 1.0
    puzzle_emb_lr: float = 1e-4
    puzzle_emb_weight_decay: float = 1.0
    grad_clip: float = 0.0  # largest gradient norm; 0: no clipping
    ema_decay: float = 0.0  # of the weights that are evaluated and exported; 0: the last weights
    segment_curriculum: float = 0.0  # part of the run in which the most segments grow from 2 to halt_max_steps
    augment: bool = True
    qat: Qat = "off"  # fine-tune through fake int8 quantization, its activation scales learned or frozen
    halt_bias: float = -5.0  # q_head's first bias
    steps: int = 0  # stop after this many; 0: no limit (then --minutes must be given)
    minutes: float = 0.0  # stop after this much time, resumed and, by MEASURING, measuring counted; 0: no limit
    seed: int = 0
    log_every: int = 50
    save_every: int = 500
    eval_every: int = 1000
    eval_puzzles: int = 256  # of the held-out ones, while training
    final_puzzles: int = 1000  # of each source, for the finished checkpoint's card
    checkpoint_dtype: CheckpointDtype = "float32"  # float16 halves the file, for weights that ship
    bf16: bool = False  # autocast; the state, norms and losses stay float32
    compile: bool = False  # torch.compile the segment

    def __post_init__(self) -> None:
        def require(name: str, holds: bool, allowed: str) -> None:
            if not holds:
                raise InputError(f"train field {name} is {repr(getattr(self, name))[:60]}; it must be {allowed}")

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            right, kind = of_type(value, str(field.type))
            require(field.name, right and (kind != "float" or abs(value) < INFINITE), f"of type {kind}")
            require(field.name, kind != "int" or value < 2**63, "a number that a computer has")
        for name, choices in (
            ("gradient", get_args(Gradient)),
            ("loss", LOSSES),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("checkpoint_dtype", get_args(CheckpointDtype)),
            ("qat", get_args(Qat)),
        ):
            require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        counts = ("batch_size", "accumulate", "interleave", "rollout", "log_every", "save_every", "eval_every")
        for name in (*counts, "eval_puzzles", "final_puzzles"):
            require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("batch_size", "accumulate", "interleave", "rollout"):
            require(name, getattr(self, name) <= ROWS, f"at most {ROWS}")
        for name in ("lr", "puzzle_emb_lr"):
            require(name, 0 < getattr(self, name) < 1, "above 0 and below 1")
        for name in ("beta1", "beta2", "ema_decay", "label_smoothing"):
            require(name, 0 <= getattr(self, name) < 1, "0 or more and below 1")
        for name in ("lr_min_ratio", "segment_curriculum"):
            require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in ("warmup_steps", "weight_decay", "puzzle_emb_weight_decay", "grad_clip", "halt_loss_weight"):
            require(name, getattr(self, name) >= 0, "0 or more")
        require("steps", self.steps >= 0, "0 or more")
        require("minutes", self.minutes >= 0, "0 or more")
        require(
            "steps", self.steps > 0 or self.minutes > 0, "above 0, or `minutes` must be: nothing says when to stop"
        )

    def progress(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1: whichever limit is nearer."""
        parts = [0.0]
        if self.steps:
            parts.append(step / self.steps)
        if self.minutes:
            parts.append(seconds / (60 * self.minutes * (1 - MEASURING)))
        return min(1.0, max(parts))


def with_later_fields(recipe: dict[str, Any]) -> dict[str, Any]:
    """A stored recipe with the fields that came later than it: what they do was done by default then."""
    filled = dict(recipe)
    arch = DeduceConfig if recipe["arch"].get("kind") == DEDUCE else HRMConfig
    for section, config in (("arch", arch), ("train", TrainConfig)):
        filled[section] = {**{f.name: f.default for f in dataclasses.fields(config)}, **recipe[section]}
    return filled


# What learns in minutes to hours on a CPU (see recipes.md): grid positions, gradient through more than
# one step, small batches that take turns, EMA, and plain AdamW.
_SMALL_ARCH: dict[str, Any] = {
    "hidden_size": 128,
    "num_heads": 4,
    "H_layers": 1,
    "L_layers": 1,
    "puzzle_emb_ndim": 128,
    "pos_encodings": "grid",
    "no_ACT_continue": True,
}
_SMALL_TRAIN: dict[str, Any] = {
    "batch_size": 64,
    "interleave": 16,
    "gradient": "last_cycle",
    "loss": "softmax",
    "halt_loss_weight": 0.1,
    "optimizer": "adamw",
    "lr": 1.5e-3,
    "schedule": "linear",
    "lr_min_ratio": 0.02,
    "warmup_steps": 200,
    "weight_decay": 0.1,
    "puzzle_emb_weight_decay": 0.1,
    "grad_clip": 1.0,
    "ema_decay": 0.998,
}
# Puzzles are thought about past their solution more often, so that further segments do not unlearn it.
_FURTHER = {"halt_exploration_prob": 0.3}
_TINY = {"hidden_size": 64, "num_heads": 2, "puzzle_emb_ndim": 64, "halt_max_steps": 8}

# What a preset sets beside the task's own sizes: (architecture, training).
PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # The paper's 27 M parameters and settings; meant for a GPU.
    "paper": ({"puzzle_emb_ndim": 512}, {"bf16": True, "compile": True}),
    # The same for ARC, where a puzzle's embedding is seen rarely and has to learn fast.
    "arc": (
        {"puzzle_emb_ndim": 512},
        {"bf16": True, "compile": True, "weight_decay": 0.1, "puzzle_emb_lr": 1e-2, "puzzle_emb_weight_decay": 0.1},
    ),
    # The shipped models' recipes, for an hour or so on a CPU.
    "sudoku": (
        # Every cell sees its row, column and box from the start; which symmetries a Sudoku has need not be learned.
        _SMALL_ARCH | _FURTHER | {"conv_kernel": 1, "unit_means": True, "pos_encodings": "none"},
        _SMALL_TRAIN | {"gradient": "full"},
    ),
    # Where to go next is decided alike in all places: what 15x15 mazes teach holds in 30x30 ones.
    "maze": (
        _SMALL_ARCH | _FURTHER | {"conv_kernel": 3, "pos_encodings": "none"},
        _SMALL_TRAIN | {"gradient": "full", "batch_size": 32},
    ),
    # The same with attention, half a million parameters for 9x9 Sudoku.
    "small": (_SMALL_ARCH, _SMALL_TRAIN),
    # What is still possible as the state, a search in every call: for tasks with groups.
    "deduce": (
        {"kind": DEDUCE},
        {
            "batch_size": 48,
            "optimizer": "adamw",
            "lr": 4e-3,
            "lr_min_ratio": 0.005,
            "schedule": "cosine",
            "warmup_steps": 150,
            "weight_decay": 0.05,
            "grad_clip": 1.0,
            "ema_decay": 0.998,
            "augment": False,  # every symmetry is one of the network
            "eval_puzzles": 64,
            "bf16": True,
            "compile": True,
        },
    ),
    # Minutes, to see the whole path work: 6x6 Sudoku learns with it.
    "tiny": (_SMALL_ARCH | _TINY, _SMALL_TRAIN | {"lr": 2e-3, "warmup_steps": 100, "ema_decay": 0.995}),
}

# What quantization-aware fine-tuning changes in a preset: a short, gentle run from weights that are already good.
QAT_SETTINGS: dict[str, Any] = {
    # Five times this won back 1 point of 5 and not 3, as the float weights got worse (9x9 Sudoku, 100 steps).
    "lr": 2e-5,
    "puzzle_emb_lr": 2e-6,
    "schedule": "linear",
    "lr_min_ratio": 0.02,
    "warmup_steps": 20,
    "interleave": 1,  # few steps, each of which changes little
    "ema_decay": 0.99,
    "steps": 300,
    "log_every": 20,
    "save_every": 100,
    "final_puzzles": 300,
    "bf16": False,  # autocast would round what was fake-quantized once more
}


@overload
def load_recipe(
    task: Task | str,
    preset: str = "small",
    file: Path | None = None,
    settings: list[str] | None = None,
    start: HRMConfig | None = None,
) -> tuple[HRMConfig, TrainConfig]: ...


@overload
def load_recipe(
    task: Task | str,
    preset: str,
    file: Path | None,
    settings: list[str] | None,
    start: NetworkSource | DeduceConfig,
) -> tuple[NetworkSource | DeduceConfig, TrainConfig]: ...


def load_recipe(
    task: Task | str,
    preset: str = "small",
    file: Path | None = None,
    settings: list[str] | None = None,
    start: HRMConfig | NetworkSource | DeduceConfig | None = None,
) -> tuple[HRMConfig | NetworkSource | DeduceConfig, TrainConfig]:
    """Join preset, TOML file (tables ``[arch]`` and ``[train]``) and ``section.field=value`` settings.

    Later ones win; ``start``'s architecture takes the place of the preset's. What ``arch.kind`` leaves no choice
    about need not be said. With ``qat`` among the fields, :data:`QAT_SETTINGS` come right after the preset; their
    number of steps gives way to a limit in minutes. Of another's network ``[arch]`` sets the options.
    """
    if preset not in PRESETS:
        raise InputError(f"--preset {preset}: unknown; choose from {', '.join(PRESETS)}")
    arch_table, train_table = PRESETS[preset]
    tables: dict[str, dict[str, Any]] = {"arch": {}, "train": {}}

    def merge(more: dict[str, Any], where: str) -> None:
        for section, values in more.items():
            if section not in tables or not isinstance(values, dict):
                raise InputError(f"{where}: unknown section {section!r}; known sections are arch and train")
            tables[section].update(values)

    if file is not None:
        try:
            merge(tomllib.loads(read_text(Path(file))), str(file))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{file}: cannot be read as TOML ({error})") from None
    for setting in settings or []:
        name, _, text = setting.partition("=")
        section, _, field = name.partition(".")
        if not field or not text:
            raise InputError(f"--set {setting}: expected section.field=value, as in --set train.lr=3e-4")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except (ValueError, RecursionError):
            value = text  # a bare word
        merge({section: {field: value}}, f"--set {setting}")
    if tables["train"].get("qat", "off") != "off":
        limits = {"steps": 0} if "minutes" in tables["train"] else {}
        train_table = {**train_table, **QAT_SETTINGS, **limits}
    task = get_task(task) if isinstance(task, str) else task
    arch: HRMConfig | NetworkSource | DeduceConfig
    if isinstance(start, NetworkSource | DeduceConfig):
        arch = start.having(**tables["arch"])
    elif start is None and {**arch_table, **tables["arch"]}.get("kind") == DEDUCE:
        own = arch_table if arch_table.get("kind") == DEDUCE else {}
        arch = DeduceConfig.from_dict({**own, **tables["arch"]}, where="[arch]")
    else:
        fixed = FIXED.get(str(tables["arch"].get("kind")), {})
        # Whether the weights fit another grid too, as a convolution's do, shows when they are loaded.
        base = arch_table if start is None else {**start.to_dict(), "seq_len": task.seq_len}
        sizes = {"vocab_size": task.vocab_size, "seq_len": task.seq_len}
        arch = HRMConfig.from_dict({**sizes, **base, **fixed, **tables["arch"]}, where="[arch]")
    tables["train"] = {**train_table, **tables["train"]}
    unknown = sorted(set(tables["train"]) - {field.name for field in dataclasses.fields(TrainConfig)})
    if unknown:
        known = ", ".join(field.name for field in dataclasses.fields(TrainConfig))
        raise InputError(f"[train]: unknown field {unknown[0]!r}; known fields are {known}")
    return arch, TrainConfig(**tables["train"])
