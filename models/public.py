"""Reads what the public HRM and TRM trainers write: `torch.save`d weights next to `all_config.yaml`."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ..errors import InputError
from ..files import read_text
from ..tasks import Task, get_task
from .checkpoint import build_model, load_weights
from .config import FIXED, HRMConfig, Kind
from .hrm import HRM

CONFIG_NAME = "all_config.yaml"
# Fields of the public `arch` table that say nothing about the network's shape.
_NOT_SHAPE = {"name", "loss", "forward_dtype"}
_WRAPPERS = ("_orig_mod.", "model.", "inner.")  # prefixes of the public names
# A tensor's public name, without them → ours.
_RENAMED = {
    "embed_tokens.embedding_weight": "embed_tokens.weight",
    "embed_pos.embedding_weight": "embed_pos.weight",
    "puzzle_emb.weights": "puzzle_emb.weight",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a public code base calls its network, its weights and its fields."""

    kind: Kind
    modules: tuple[str, ...]  # last part of the module's name in `arch.name`
    # Where a config names no module: whether its `arch` table is of this layout.
    unnamed: Callable[[dict[str, Any]], bool]
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)  # what it takes where a config says nothing

    def fields(self, arch: dict[str, Any]) -> dict[str, Any]:
        """The public `arch` table in our fields. What a kind leaves no choice about, its code reads and ignores."""
        said = {name: value for name, value in arch.items() if name not in _NOT_SHAPE}
        return {**self.defaults, **said, "kind": self.kind, **FIXED.get(self.kind, {})}

    def rename(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Our names for the public ones."""
        found = {}
        for name, tensor in tensors.items():
            for prefix in _WRAPPERS:
                name = name.removeprefix(prefix)
            found[_RENAMED.get(name, name)] = tensor
        return found


LAYOUTS = (
    Layout("hrm", ("hrm_act_v1", "hrm"), unnamed=lambda arch: arch.get("H_layers") != 0),
    Layout(
        "trm",
        ("trm",),
        unnamed=lambda arch: arch.get("H_layers") == 0,
        defaults={"puzzle_emb_len": 16, "no_ACT_continue": True},
    ),
)
_KINDS = [layout.kind.upper() for layout in LAYOUTS]


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a `torch.save`d state dict; code hidden in the pickle is refused, not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's unpickler, about files that are refused anyway
            values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the trainer's step_N file") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: is not a plain table of weights (a pickle with other objects or code is never opened); "
            "save the model's state_dict() alone"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint that torch can read ({detail[:120]})") from None
    if not isinstance(values, dict) or not values or not all(isinstance(v, Tensor) for v in values.values()):
        raise InputError(f"{path}: expected a table of weights (a state_dict), found something else")
    return values


def read_config(path: Path) -> tuple[Layout, dict[str, Any], str]:
    """A public config's layout, its `arch` table in our fields, and its `data_path` (or `data_paths`, joined)."""
    try:
        config = yaml.safe_load(read_text(path))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; the public config belongs beside the weights, or --config"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
        raise InputError(f"{path}: not a public HRM config (no `arch` table)")
    arch = config["arch"]
    # "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1": the class is the same for TRM's variants.
    module = str(arch.get("name", "")).partition("@")[0].rpartition(".")[2]
    layout = next((each for each in LAYOUTS if (module in each.modules if module else each.unnamed(arch))), None)
    if layout is None:
        raise InputError(
            f"{path}: arch.name is {arch['name']!r}; this version imports {' and '.join(_KINDS)}, and no variants"
        )
    paths = config.get("data_paths") or [config.get("data_path", "")]
    return layout, layout.fields(arch), " ".join(map(str, paths)) if isinstance(paths, list) else str(paths)


def guess_task(data_path: str, vocab_size: int) -> Task:
    """The task from the data's name, else from the vocabulary."""
    for word, vocab, name in (("sudoku", 11, "sudoku-9x9"), ("maze", 6, "maze-30x30")):
        if word in data_path.lower() or (not data_path and vocab == vocab_size):
            return get_task(name)
    raise InputError(f"the task cannot be told from data_path {data_path!r}; give --task")


def import_public(weights: Path, config: Path | None = None, task_name: str | None = None) -> tuple[HRM, Task]:
    """A public HRM or TRM checkpoint as our model: ``weights`` is the `step_N` file or the folder that holds it."""
    if weights.is_dir():
        found = sorted(weights.glob("step_*"), key=lambda p: (len(p.name), p.name))
        if not found:
            raise InputError(f"{weights}: holds no step_N file; give the file itself")
        weights = found[-1]
    layout, arch, data_path = read_config(config or weights.parent / CONFIG_NAME)
    tensors = layout.rename(read_pickle(weights))
    for needed in ("embed_tokens.weight", "lm_head.weight", "q_head.weight", "H_init", "L_init"):
        if needed not in tensors:
            raise InputError(
                f"{weights}: weight {needed!r} is missing; is this an {' or '.join(_KINDS)} checkpoint?"
            )
    vocab_size = len(tensors["embed_tokens.weight"])
    task = get_task(task_name) if task_name else guess_task(data_path, vocab_size)
    sizes: dict[str, Any] = {"vocab_size": vocab_size, "seq_len": task.seq_len}
    if "puzzle_emb.weight" in tensors:
        sizes["num_puzzle_identifiers"] = len(tensors["puzzle_emb.weight"])
    types = {field.name: field.type for field in dataclasses.fields(HRMConfig)}
    for name, value in arch.items():
        # YAML writes 4.0 as 4 and 1e4 as text in places.
        if types.get(name) == "float" and isinstance(value, str):
            try:
                arch[name] = float(value)
            except ValueError:
                raise InputError(
                    f"{weights.parent / CONFIG_NAME}: field {name} is {value!r}, not a number"
                ) from None
    model = build_model(HRMConfig.from_dict({**sizes, **arch}, where=str(config or CONFIG_NAME)), task)
    load_weights(model, tensors, str(weights))
    return model.eval(), task
