"""Checkpoint folders: `model.safetensors`, `config.json`, `card.md`; whole or absent, and never a pickle.

And `task.json`, where the task is not one that ships.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from .. import limits
from ..errors import InputError
from ..files import entries, read_text, readable_name, replacing_folder, require_utf8, sha256
from ..foreign import what_it_is
from ..identifiers import Numbering, parse_ranges
from ..tasks import Task
from ..tasks.carried import TASK, known_task, read_task, write_task
from ..workspace import standing, unmixed
from ..zoo import zoo_elsewhere, zoo_models
from .config import HRMConfig
from .deduce import KIND as DEDUCE
from .deduce import DeduceConfig
from .family import NETWORKS
from .hrm import HRM
from .layers import shapes_alone
from .network import NetworkConfig, Wrapped, bare
from .source import KIND, NetworkSource, code_hash

FORMAT_VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"
QUANTIZATION = "quantization"  # where metadata holds the scales of quantization-aware training
KEPT_IDENTIFIERS = "puzzle_identifiers"  # where metadata names the rows of a table that was cut down
TRAINED_IDENTIFIERS = "num_puzzle_identifiers"  # where they then tell how many rows it had
NUMBERING = "identifiers"  # where they tell whose puzzle embeddings it has: a hash of their names
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors calls them
RUN_CHECKPOINT = "checkpoint"  # where a training run's folder holds it


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is known of it.

    ``metadata`` holds the recipe, the data and ``held_out``: the seed, difficulty and number of the
    generated puzzles that training never saw. ``content_hash`` covers weights and architecture.
    """

    model: HRM | Wrapped
    task: Task
    card: str
    metadata: dict[str, Any]
    content_hash: str
    path: Path

    @property
    def config(self) -> HRMConfig | NetworkConfig:
        return self.model.config

    @property
    def hrm(self) -> HRM:
        """Its network where that is of this family; InputError where it is another's."""
        if isinstance(self.model, Wrapped):
            what = self.model.config.name
            raise InputError(f"{self.path}: is another's network ({what}), which this cannot take")
        return self.model

    @property
    def name(self) -> str:
        """The folder's name; a training run's checkpoint is called after the run."""
        return readable_name(self.path.parent.name if self.path.name == RUN_CHECKPOINT else self.path.name)

    @property
    def size_bytes(self) -> int:
        """Of all files in the folder, but for the system's."""
        folder = standing(self.path)
        return sum((folder / name).stat().st_size for name in entries(folder) if (folder / name).is_file())

    @property
    def kept_identifiers(self) -> np.ndarray | None:
        """int32[rows]: whose puzzle embedding each row is, rising; None: row k is identifier k's."""
        kept = self.metadata.get(KEPT_IDENTIFIERS)
        return None if kept is None else parse_ranges(str(kept), f"{self.path / CONFIG}: {KEPT_IDENTIFIERS}")

    @property
    def numbering(self) -> Numbering | None:
        """Whose puzzles the identifiers of its training were; None: a cut-down table does not say."""
        count = self.metadata.get(TRAINED_IDENTIFIERS, self.config.num_puzzle_identifiers)
        names = self.metadata.get(NUMBERING)
        if type(count) is not int or (
            KEPT_IDENTIFIERS in self.metadata and TRAINED_IDENTIFIERS not in self.metadata
        ):
            return None
        return Numbering(count, names if isinstance(names, str) else None)


def sketch_model(config: HRMConfig, task: Task) -> HRM:
    """The model without memory for a single weight: its shapes, to compare with a file before anything is read.

    InputError says where config and task disagree, and when the weights are too many for any machine.
    """
    for field in ("vocab_size", "seq_len"):
        if getattr(config, field) != getattr(task, field):
            raise InputError(
                f"config field {field} is {getattr(config, field)}, but task {task.name} has {getattr(task, field)}"
            )
    with shapes_alone():
        model = _network(config, task)
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    if count > limits.PARAMETERS:
        raise InputError(f"the config asks for {count:,} weights; at most {limits.PARAMETERS:,} are possible")
    return model


def build_model(config: HRMConfig, task: Task) -> HRM:
    """A freshly initialised model that fits the task; errors as for :func:`sketch_model`."""
    sketch_model(config, task)
    return _network(config, task)


def _network(config: HRMConfig, task: Task) -> HRM:
    return NETWORKS[config.kind](config, task.position_ids if config.placed_by else None)


def require_replaceable(path: Path) -> None:
    """InputError where ``path`` holds anything but a checkpoint of ours, which :func:`save_checkpoint` replaces.

    Others have files of the same names: ours tell so in their config, and the weights are what they are called.
    """
    require_utf8(path)
    try:
        if not path.is_dir():
            raise InputError("it is a file")
        if others := sorted(entries(path) - {WEIGHTS, CONFIG, CARD, TASK}):
            raise InputError(repr(others[0]))
        _read_config(path)
        with safe_open(path / WEIGHTS, "pt"):
            pass
        for name in (CARD, TASK):
            if (path / name).exists() and not (path / name).is_file():
                raise InputError(repr(name))
    except (InputError, OSError, SafetensorError) as error:
        why = str(error).removeprefix(f"{path}: ").split(";")[0]
        raise InputError(
            f"{path}: holds something else than a checkpoint ({why}), which would be replaced; move it away, or "
            "give another place"
        ) from None


def save_checkpoint(
    path: Path | str,
    model: HRM | Wrapped,
    task: Task | str,
    card: str,
    metadata: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    result: bool = False,
) -> Path:
    """Write a checkpoint folder; a kill at any moment leaves the old one whole.

    ``dtype`` float16 halves the file (it is widened again on reading): for weights that ship. Where the
    metadata has the scales of quantization-aware training, they are tied to these weights by their hash.
    A checkpoint that stands at ``path`` is replaced, and nothing else is (:func:`require_replaceable`). ``result``:
    it is what the program was asked for.
    Of another's network it names the factory, which has to be there again to load it.
    """
    path = Path(path)
    task = known_task(task) if isinstance(task, str) else task
    # The puzzle-embedding table is small here; all tensors are copied so that none shares storage.
    tensors = {
        name: t.detach().to("cpu", dtype if t.is_floating_point() else t.dtype).contiguous().clone()
        for name, t in bare(model).state_dict().items()
    }
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: weight {name} is not finite in {dtype}; the checkpoint was not written")
    metadata = dict(metadata or {})
    config = {
        "format_version": FORMAT_VERSION,
        "task": task.name,
        "arch": _architecture(model),
        "metadata": metadata,
    }
    with replacing_folder(path, require_replaceable, result) as folder:
        try:
            save_file(tensors, folder / WEIGHTS)
        except SafetensorError as error:  # as which it tells of a full disk
            raise InputError(f"{path}: the weights cannot be written ({error})") from None
        if QUANTIZATION in metadata:
            metadata[QUANTIZATION] = {**metadata[QUANTIZATION], "weights_sha256": sha256(folder / WEIGHTS)}
        write_task(task, folder)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (folder / CARD).write_text(card)
    return path


def _architecture(model: HRM | Wrapped) -> dict[str, Any]:
    if not isinstance(model, Wrapped):
        return model.config.to_dict()
    if model.source is None:
        raise InputError(
            f"network {model.config.name}: a checkpoint has to name what makes it; give package.module:factory"
        )
    return model.source.to_dict()


def resolve_checkpoint(path: Path | str) -> Path:
    """A checkpoint folder from a path, from a training run's folder or from the name of a model that ships."""
    path = Path(path)
    if (standing(path / RUN_CHECKPOINT) / CONFIG).is_file() and not (path / CONFIG).exists():
        path = path / RUN_CHECKPOINT
    if standing(path).is_dir():
        return path
    shipped = {model.name: model for model in zoo_models()}
    if str(path) in shipped:
        return shipped[str(path)]
    if path.exists():
        raise InputError(
            f"{path}: is a file, not a checkpoint folder; public checkpoints are read by `hrm-edge import`"
        )
    known = f" or one of the shipped models ({', '.join(shipped)})" if shipped else ""
    raise InputError(f"{path}: no such checkpoint; give a checkpoint folder{known}{zoo_elsewhere()}")


def _read_config(path: Path) -> dict[str, Any]:
    if (path / CONFIG).is_file() and (size := (path / CONFIG).stat().st_size) > limits.CONFIG_BYTES:
        raise InputError(f"{path / CONFIG}: has {size} bytes, and a config at most {limits.CONFIG_BYTES}")
    try:
        config = json.loads(read_text(path / CONFIG))
    except FileNotFoundError:
        raise InputError(f"{path}: not a checkpoint folder ({CONFIG} is missing)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path / CONFIG}: cannot be read as JSON ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("format_version"), int):
        raise InputError(f"{path / CONFIG}: not an hrm-edge checkpoint (no format_version)")
    if config["format_version"] > FORMAT_VERSION:
        raise InputError(
            f"{path / CONFIG}: format {config['format_version']} is newer than this version reads "
            f"({FORMAT_VERSION}); upgrade hrm-edge"
        )
    unknown = sorted(set(config) - {"format_version", "task", "arch", "metadata"})
    if unknown:
        raise InputError(f"{path / CONFIG}: unknown field {unknown[0]!r}")
    if not isinstance(config.get("task"), str) or not isinstance(config.get("metadata", {}), dict):
        raise InputError(f"{path / CONFIG}: field 'task' must be a name and 'metadata' a table")
    return config


def check_shapes(model: nn.Module, shapes: Mapping[str, Sequence[int]], where: str) -> None:
    """InputError names a weight that is missing, unknown or misshapen."""
    expected = model.state_dict()
    for problem, names in (
        ("is missing", set(expected) - set(shapes)),
        ("is unknown to this architecture", set(shapes) - set(expected)),
    ):
        if names:
            raise InputError(f"{where}: weight {min(names)!r} {problem}")
    for name, shape in shapes.items():
        if list(shape) != list(expected[name].shape):
            raise InputError(
                f"{where}: weight {name!r} has shape {list(shape)}, the config asks for "
                f"{list(expected[name].shape)}"
            )


def load_weights(model: nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Copy tensors into the model in float32; one that does not fit or is no finite number is named."""
    check_shapes(model, {name: tensor.shape for name, tensor in tensors.items()}, where)
    expected = model.state_dict()
    for name, tensor in tensors.items():
        # Another's network may count something beside its weights.
        alike = tensor.is_floating_point() == expected[name].is_floating_point()
        if not alike or tensor.layout is not torch.strided:
            raise InputError(f"{where}: weight {name!r} is {tensor.dtype}, {tensor.layout}; weights are floats")
        if not torch.isfinite(tensor.float()).all():
            raise InputError(f"{where}: weight {name!r} is not finite (NaN or infinite); train again")
    model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})


def stored_shapes(path: Path, floats: bool = True) -> dict[str, list[int]]:
    """Name of each tensor in a safetensors file → its shape, from the header alone; ``floats``: they must be."""
    with _told_as_damaged(path):
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > limits.HEADER_BYTES:
            raise ValueError(f"its header is {length} bytes long")
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        for name, tensor in slices.items():
            if floats and tensor.get_dtype() not in _FLOATS:
                raise ValueError(f"weight {name!r} is {tensor.get_dtype()}; weights are floats")
        return {name: tensor.get_shape() for name, tensor in slices.items()}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file whose header is known to be right: the library has none larger than it."""
    with _told_as_damaged(path):
        return load_file(path)


@contextlib.contextmanager
def _told_as_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path.parent}: {path.name} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        if what := what_it_is(path):
            raise InputError(f"{path}: is {what}") from None
        detail = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a safetensors file, or damaged ({detail[:120]})") from None


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint folder (or a shipped model by name): float32, in evaluation mode.

    One of another's network names the factory that makes it, which is imported, but never from the folder itself.
    """
    asked = Path(path)
    named = resolve_checkpoint(asked)
    require_utf8(named)
    return unmixed(named, lambda folder: _load(folder, named, asked))


def _load(path: Path, named: Path, asked: Path) -> Checkpoint:
    """What stands in the folder ``path``, which is called ``named`` and was ``asked`` for."""
    config = _read_config(path)
    task = read_task(path, config["task"])
    weights, arch, where = path / WEIGHTS, config.get("arch", {}), str(path / CONFIG)
    model: HRM | Wrapped
    if isinstance(arch, dict) and arch.get("kind") == KIND:
        model = NetworkSource.from_dict(arch, where).build(task, never_from=[path, named, asked])
        check_shapes(bare(model), stored_shapes(weights, floats=False), str(weights))
        known = [arch, code_hash(bare(model), arch["factory"])]
    elif isinstance(arch, dict) and arch.get("kind") == DEDUCE:
        deduce = DeduceConfig.from_dict(arch, where)
        check_shapes(deduce.sketch(task), stored_shapes(weights), str(weights))
        model = deduce.build(task)
        known = [deduce.to_dict()]
    else:
        family = HRMConfig.from_dict(arch, where=where)
        check_shapes(sketch_model(family, task), stored_shapes(weights), str(weights))
        model = build_model(family, task)
        known = [family.identity()]
    load_weights(bare(model), read_tensors(weights), str(weights))
    told = [config["task"], *known, *([task.definition.sha256] if task.definition else [])]
    identity = json.dumps(told, sort_keys=True)
    digest = hashlib.sha256((sha256(weights) + identity).encode()).hexdigest()
    card = (path / CARD).read_text(errors="replace") if (path / CARD).exists() else ""
    model.eval().requires_grad_(False)
    return Checkpoint(model, task, card, config.get("metadata", {}), digest, named.resolve())
