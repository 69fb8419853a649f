"""Checkpoints in the layout of the public HRM and TRM trainers, read and written: `step_N`, `all_config.yaml`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from .. import limits
from ..errors import InputError
from ..files import entries, read_text
from ..foreign import what_it_is
from ..progress import Say
from ..tasks import Task, get_task
from .checkpoint import Checkpoint, build_model, check_shapes, load_weights, sketch_model
from .config import FIXED, HRMConfig, Kind
from .hrm import HRM
from .stored import save_pickled
from .weights import CONFIG_NAME, RENAMED, few, files_beside, find_weights, read_weights

# Fields of the public `arch` table that say nothing about the network's shape.
_NOT_SHAPE = {"name", "loss", "forward_dtype"}
# Fields that the data and the weights tell, not the `arch` table; and those that all layouts have in it.
_OF_DATA = ("vocab_size", "seq_len", "num_puzzle_identifiers", "kind")
_PAPERS: tuple[str, ...] = (
    "H_cycles",
    "L_cycles",
    "H_layers",
    "L_layers",
    "hidden_size",
    "expansion",
    "num_heads",
    "pos_encodings",
)
_PAPERS += ("puzzle_emb_ndim", "rope_theta", "rms_norm_eps", "halt_max_steps", "halt_exploration_prob")


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a public code base calls its network, its weights and its fields."""

    kind: Kind
    modules: tuple[str, ...]  # last part of the module's name in `arch.name`
    # Where a config names no module: whether its `arch` table is of this layout.
    unnamed: Callable[[dict[str, Any]], bool]
    name: str  # as it calls the network in `arch.name`
    positions: tuple[str, ...]  # pos_encodings that it has
    own: tuple[str, ...] = ()  # fields that it has beside those of the paper's network
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)  # what it takes where a config says nothing

    def fields(self, arch: dict[str, Any]) -> dict[str, Any]:
        """The public `arch` table in our fields. What a kind leaves no choice about, its code reads and ignores."""
        said = {name: value for name, value in arch.items() if name not in _NOT_SHAPE}
        return {**self.defaults, **said, "kind": self.kind, **FIXED.get(self.kind, {})}


LAYOUTS = (
    Layout(
        "hrm",
        ("hrm_act_v1", "hrm"),
        unnamed=lambda arch: arch.get("H_layers") != 0,
        name="hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
        positions=("rope", "learned"),
    ),
    Layout(
        "trm",
        ("trm",),
        unnamed=lambda arch: arch.get("H_layers") == 0,
        name="recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
        positions=("rope", "learned", "none"),
        own=("mlp_t", "puzzle_emb_len", "no_ACT_continue"),
        defaults={"puzzle_emb_len": 16, "no_ACT_continue": True},
    ),
)
_KINDS = [layout.kind.upper() for layout in LAYOUTS]


def read_config(path: Path) -> tuple[Layout, dict[str, Any], str]:
    """A public config's layout, its `arch` table in our fields, and its `data_path` (or `data_paths`, joined)."""
    try:
        if path.stat().st_size > limits.YAML_BYTES:
            raise ValueError(f"it is larger than {limits.YAML_BYTES} bytes")
        text = read_text(path)
        _check_yaml(text)
        config = yaml.safe_load(text)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; the public config belongs beside the weights, or --config; a network of your "
            "own goes in by `hrm-edge export --network`"
        ) from None
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        if (what := what_it_is(path)) not in (None, "text"):
            raise InputError(f"{path}: is {what}") from None
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
        what = what_it_is(path)
        if what not in (None, "text"):
            raise InputError(f"{path}: is {what}")
        raise InputError(f"{path}: not a public HRM config (no `arch` table)")
    arch = config["arch"]
    # "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1": the class is the same for TRM's variants.
    module = str(arch.get("name", "")).partition("@")[0].rpartition(".")[2]
    layout = next((each for each in LAYOUTS if (module in each.modules if module else each.unnamed(arch))), None)
    if layout is None:
        raise InputError(
            f"{path}: arch.name is {str(arch['name'])[:80]!r}; this version imports {' and '.join(_KINDS)}, "
            "and no variants"
        )
    paths = config.get("data_paths") or [config.get("data_path", "")]
    return layout, layout.fields(arch), " ".join(map(str, paths)) if isinstance(paths, list) else str(paths)


def _check_yaml(text: str) -> None:
    """ValueError where a text is nested deeply or repeats parts of itself: a few lines can stand for gigabytes."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it repeats a part of itself as *{event.anchor}; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > limits.NESTING:
            raise ValueError(f"it is nested more than {limits.NESTING} deep")


def guess_task(data_path: str, vocab_size: int) -> Task:
    """The task from the data's name, else from the vocabulary."""
    for path in data_path.split():
        try:
            return get_task(path.rstrip("/").rpartition("/")[2])
        except InputError:
            pass  # named after what is in it, as "sudoku-extreme-1k-aug-1000" is
    for word, vocab, name in (("sudoku", 11, "sudoku-9x9"), ("maze", 6, "maze-30x30"), ("arc", 12, "arc")):
        if re.search(rf"(?<![a-z]){word}", data_path.lower()) or (not data_path and vocab == vocab_size):
            return get_task(name)
    raise InputError(f"the task cannot be told from data_path {data_path!r}; give --task")


def import_public(
    weights: Path,
    config: Path | None = None,
    task_name: str | None = None,
    *,
    step: int | None = None,
    key: str | None = None,
    say: Say = lambda line: None,
) -> tuple[HRM, Task]:
    """A public HRM or TRM checkpoint as our model, ``weights`` being the `step_N` file or the folder that holds it.

    ``step`` and ``key`` name the file in the folder and the table in the file, where there are several. What was
    taken, and what was not, is told to ``say``.
    """
    folder, weights = weights, find_weights(weights, step)
    config = config or weights.parent / CONFIG_NAME
    _, arch, data_path = read_config(config)
    read = read_weights(weights, key)
    say(f"read {weights}" + (f", of its weights those under {read.key!r}" if read.beside else ""))
    if weights != folder and (others := files_beside(weights)):
        say(f"  not taken: {few(others)}")
    if read.beside:
        say(f"  not taken of its weights: {few([repr(each) for each in read.beside])}")
    if read.unused:
        say(f"  left out, as no part of the network: {few(list(read.unused))}")
    tensors = read.tensors
    vocab_size = _rows(tensors, "embed_tokens.weight", weights)
    task = get_task(task_name) if task_name else guess_task(data_path, vocab_size)
    sizes: dict[str, Any] = {"vocab_size": vocab_size, "seq_len": task.seq_len}
    if "puzzle_emb.weight" in tensors:
        sizes["num_puzzle_identifiers"] = _rows(tensors, "puzzle_emb.weight", weights)
    types = {field.name: field.type for field in dataclasses.fields(HRMConfig)}
    for name, value in arch.items():
        # YAML writes 4.0 as 4 and 1e4 as text in places.
        if types.get(name) == "float" and isinstance(value, str):
            try:
                arch[name] = float(value)
            except ValueError:
                raise InputError(f"{config}: field {name} is {value[:60]!r}, not a number") from None
    fields = HRMConfig.from_dict({**sizes, **arch}, where=str(config))
    check_shapes(sketch_model(fields, task), {name: tensor.shape for name, tensor in tensors.items()}, str(weights))
    model = build_model(fields, task)
    load_weights(model, tensors, str(weights))
    return model.eval(), task


def _rows(tensors: dict[str, Tensor], name: str, where: Path) -> int:
    if tensors[name].ndim != 2:
        raise InputError(f"{where}: weight {name!r} has shape {list(tensors[name].shape)}, and must be a table")
    return len(tensors[name])


# -- writing -------------------------------------------------------------------------------------------

MARK = "# Written by `hrm-edge convert`\n"  # the first line of a config of ours
_PREFIX = "_orig_mod.model.inner."  # as their compiled network has it, within its loss
# What their trainers insist on in a config, with the values that the paper's code has; the network needs none.
_TRAINING = {
    "global_batch_size": 768,
    "epochs": 100_000,
    "lr": 1e-4,
    "lr_min_ratio": 1.0,
    "lr_warmup_steps": 2000,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "puzzle_emb_lr": 0.01,
    "puzzle_emb_weight_decay": 0.1,
}


def write_public(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write `all_config.yaml` and `step_N` into a folder; returns the weights' file.

    InputError where the public code has no such network.
    """
    config = checkpoint.config
    layout = next((each for each in LAYOUTS if each.kind == config.kind), None)
    if layout is None:
        raise InputError(
            f"{checkpoint.path}: is a {config.title}; the public code has {' and '.join(_KINDS)} alone"
        )
    if checkpoint.kept_identifiers is not None:
        raise InputError(
            f"{checkpoint.path}: has been cut down to some of its puzzle identifiers; convert the whole"
        )
    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.model.state_dict().items()
    }
    # They hold the first states in the type that they compute in; any other would have them compute in float32.
    dtype = torch.bfloat16
    if not all(torch.equal(tensors[name].to(dtype).float(), tensors[name]) for name in ("H_init", "L_init")):
        dtype = torch.float32
    for name in ("H_init", "L_init"):
        tensors[name] = tensors[name].to(dtype)
    loss = {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"}
    arch = {"name": layout.name, "loss": loss, "forward_dtype": str(dtype).removeprefix("torch.")}
    data = f"data/{checkpoint.task.name}"
    content = {
        "arch": {**arch, **_public_fields(checkpoint, layout)},
        "data_path": data,  # HRM's
        "data_paths": [data],  # TRM's
        **_TRAINING,
    }
    (folder / CONFIG_NAME).write_text(MARK + yaml.safe_dump(content), "utf-8")
    public = {ours: name for name, ours in RENAMED.items()}
    file = folder / f"step_{_step_of(checkpoint)}"
    save_pickled({_PREFIX + public.get(name, name): tensor for name, tensor in tensors.items()}, file)
    return file


def require_written(folder: Path) -> None:
    """InputError where ``folder`` holds anything but what :func:`write_public` wrote, which alone is replaced."""
    try:
        if not folder.is_dir():
            raise InputError("it is a file")
        if others := sorted(name for name in entries(folder) if not re.fullmatch(rf"step_\d+|{CONFIG_NAME}", name)):
            raise InputError(f"it holds {others[0]!r}")
        if not read_text(folder / CONFIG_NAME).startswith(MARK):
            raise InputError(f"its {CONFIG_NAME} is another's")
    except (InputError, OSError, ValueError) as error:
        raise InputError(
            f"{folder}: holds something else than `hrm-edge convert` wrote ({str(error).splitlines()[0]}), which "
            "would be replaced; move it away, or give another place"
        ) from None


def _public_fields(checkpoint: Checkpoint, layout: Layout) -> dict[str, Any]:
    """The architecture in their fields; InputError names those that they have not."""
    config = checkpoint.hrm.config
    fields = [field for field in dataclasses.fields(HRMConfig) if field.name not in _OF_DATA]
    written, lacking = {}, []
    for field in fields:
        name, value = field.name, getattr(config, field.name)
        known = name in (*_PAPERS, *layout.own) and (name != "pos_encodings" or value in layout.positions)
        if known or value != field.default:
            written[name] = value
        if not (known or value == field.default or (name, value) in _implied(config)):
            lacking.append(f"{name} {value!r}")
    if lacking:
        raise InputError(
            f"{checkpoint.path}: cannot be written in the public layout, as the public {config.title} code has no "
            f"{', '.join(lacking)}"
        )
    return written


def _implied(config: HRMConfig) -> tuple[tuple[str, Any], ...]:
    """Fields that change no answer of a code without them: their evaluation never halts early, and HRM's works out
    the prefix."""
    return ("no_ACT_continue", True), ("puzzle_emb_len", -(-config.puzzle_emb_ndim // config.hidden_size))


def _step_of(checkpoint: Checkpoint) -> int:
    """The step that it was trained for, as its metadata tell; 0: unknown."""
    steps = checkpoint.metadata.get("steps")
    if type(steps) is int and 0 <= steps < 10**18:
        return steps
    found = re.search(r"step[_=-]?(\d{1,18})(?!\d)", str(checkpoint.metadata.get("imported_from", "")), re.ASCII)
    return int(found[1]) if found else 0
