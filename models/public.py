"""Reads what the public HRM and TRM trainers write: `torch.save`d weights next to `all_config.yaml`."""

from __future__ import annotations

import dataclasses
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from .. import limits
from ..errors import InputError
from ..files import read_text
from ..foreign import what_it_is
from ..tasks import Task, get_task
from .checkpoint import build_model, check_shapes, load_weights, read_tensors, sketch_model, stored_shapes
from .config import FIXED, HRMConfig, Kind
from .hrm import HRM

CONFIG_NAME = "all_config.yaml"
# Fields of the public `arch` table that say nothing about the network's shape.
_NOT_SHAPE = {"name", "loss", "forward_dtype"}
# Parts of the public names that say how a module was wrapped; by torch they may stand anywhere in one.
_WRAPPERS = {"model", "inner", "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_STEP = re.compile(r"step_([0-9]{1,18})(?:\.(?:safetensors|pt|pth|bin))?")
_MOST_WRAPPED = 4  # tables within tables
_NEEDED = ("embed_tokens.weight", "lm_head.weight", "q_head.weight", "H_init", "L_init")
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


def find_weights(path: Path) -> Path:
    """The weights that are meant by a file or the folder that holds it: the last `step_N` of one."""
    if not path.is_dir():
        return path
    # Beside them stand what the public evaluation writes, `step_N_all_preds.0`, and what was not finished.
    steps = [(int(found[1]), file) for file in sorted(path.iterdir()) if (found := _STEP.fullmatch(file.name))]
    steps = [(number, file) for number, file in steps if file.is_file()]
    last = [file for number, file in steps if number == max(steps)[0]]
    if len(last) != 1:
        what = f"both {last[0].name} and {last[1].name}" if last else "no step_N file"
        raise InputError(f"{path}: holds {what}; give the file itself")
    return last[0]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a public checkpoint by our names; code hidden in a pickle is refused, not run."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the trainer's step_N file")
    # Asked first: such a file begins with a number, which may look like the beginning of anything.
    if _is_safetensors(path):
        stored_shapes(path)
        values: Any = read_tensors(path)
    elif what := _what_else(path):
        raise InputError(f"{path}: is {what}; give the trainer's step_N file")
    else:
        values = _unpickled(path)
    found = list(_tables(values, "", set()))
    if len(found) > 1:
        names = ", ".join(repr(name) for name, _ in found)
        raise InputError(f"{path}: holds several tables of weights ({names}); save the one that is meant alone")
    if found:
        return found[0][1]
    if isinstance(values, dict) and values and all(isinstance(value, Tensor) for value in values.values()):
        renamed = _renamed({str(name): tensor for name, tensor in values.items()}, path)
        missing = next(name for name in _NEEDED if name not in renamed)
        raise InputError(f"{path}: weight {missing!r} is missing; is this an {' or '.join(_KINDS)} checkpoint?")
    raise InputError(f"{path}: expected a table of weights (a state_dict), found something else")


def _tables(values: Any, name: str, seen: set[int]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The tables of a network's weights in what was saved: that itself, or within what trainers put around it.

    An optimizer's state has tensors too, but none of the names.
    """
    if not isinstance(values, dict) or id(values) in seen or name.count(".") >= _MOST_WRAPPED:
        return
    seen.add(id(values))  # a pickle may hold itself
    tensors = {key: value for key, value in values.items() if isinstance(key, str) and isinstance(value, Tensor)}
    renamed = _renamed(tensors, name)
    if all(needed in renamed for needed in _NEEDED):
        yield name, renamed
        return
    for key, value in values.items():
        yield from _tables(value, f"{name}.{key}" if name else str(key), seen)


def _renamed(tensors: dict[str, Tensor], where: object) -> dict[str, Tensor]:
    """Our names for the public ones, whatever wrappers of modules stand in them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        plain = _RENAMED.get(plain, plain)
        if plain in found:
            raise InputError(f"{where or 'the checkpoint'}: weight {plain!r} is there twice, also as {name!r}")
        found[plain] = tensor
    return found


def _what_else(path: Path) -> str | None:
    """What a file is that is no checkpoint, as far as its beginning tells."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\3\4"
        return "the beginning of a zip archive, cut off; fetch it again" if is_zip else what_it_is(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # of a damaged one nearly every kind is raised
        return "a damaged zip archive; fetch it again"
    names = [entry.filename for entry in entries]
    if not any(name.endswith("data.pkl") for name in names):
        return f"a zip archive of something else ({', '.join(names[:3])[:80]})"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "a compressed zip archive, which torch never writes; save it again"
    return None


def _is_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(10)
    return start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < path.stat().st_size


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's unpickler, about files that are refused anyway
            # Mapped, not read, where the format can be: shapes are compared before memory is taken.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: is not a plain table of weights (a pickle with other objects or code is never opened); "
            "save the model's state_dict() alone"
        ) from None
    except Exception as error:  # of a damaged file, torch's unpickler raises nearly every kind
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint that torch can read ({detail[:120]})") from None


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
            f"{path}: no such file; the public config belongs beside the weights, or --config"
        ) from None
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(config, dict) or not isinstance(config.get("arch"), dict):
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
    for word, vocab, name in (("sudoku", 11, "sudoku-9x9"), ("maze", 6, "maze-30x30")):
        if word in data_path.lower() or (not data_path and vocab == vocab_size):
            return get_task(name)
    raise InputError(f"the task cannot be told from data_path {data_path!r}; give --task")


def import_public(weights: Path, config: Path | None = None, task_name: str | None = None) -> tuple[HRM, Task]:
    """A public HRM or TRM checkpoint as our model: ``weights`` is the `step_N` file or the folder that holds it."""
    weights = find_weights(weights)
    config = config or weights.parent / CONFIG_NAME
    _, arch, data_path = read_config(config)
    tensors = read_weights(weights)
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
