"""The weights that somebody else's trainer wrote: which file is meant, and which table within it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..files import entries
from .checkpoint import CONFIG, WEIGHTS
from .stored import content

CONFIG_NAME = "all_config.yaml"
_ENDINGS = r"\.(?:safetensors|pt|pth|ckpt|bin)"
# N is the step; Lightning and forks put words before it, as in "epoch=3-step=100.ckpt".
_STEP = re.compile(rf"step_(\d{{1,18}})(?:{_ENDINGS})?|(?:.*[^a-z])?step[_=-]?(\d{{1,18}}){_ENDINGS}", re.ASCII)
_WITHOUT_STEP = re.compile(rf"checkpoint|[^.].*{_ENDINGS}")
# What stands beside weights and is called alike: of the optimizer, of the evaluation, not finished.
_NO_WEIGHTS = re.compile(
    r"^\.|(?<![a-z])(?:optim|optimizer|scheduler|scaler|rng|rng_state|all_preds|training_args|te?mp|part|bak)"
    r"(?![a-z])",
    re.IGNORECASE,
)
# Parts of a name that say how torch wrapped a module, anywhere in one: "module", and the private "_orig_mod",
# "_fsdp_wrapped_module", "_checkpoint_wrapped_module" and the like.
_WRAPPER = re.compile(r"module|_.*")
_MOST_WRAPPED = 8  # tables within tables
# Without them a table is of another network.
_PARAMETERS = ("embed_tokens.weight", "lm_head.weight", "q_head.weight")
_BUFFERS = ("H_init", "L_init")  # which an average of the parameters leaves out
_NEEDED = _PARAMETERS + _BUFFERS
# A tensor's public name within the network → ours.
RENAMED = {
    "embed_tokens.embedding_weight": "embed_tokens.weight",
    "embed_pos.embedding_weight": "embed_pos.weight",
    "puzzle_emb.weights": "puzzle_emb.weight",
}
# What may be saved with the weights and is none: torch's AveragedModel counts, and a batch of puzzle embeddings.
_NO_PART = {"n_averaged", "puzzle_emb.local_weights", "puzzle_emb.local_ids"}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network's tensors by our names, and where they stood: in which table ("": the file), in what modules."""

    tensors: dict[str, Tensor]
    table: str
    modules: str
    key: str = ""  # what tells it from the others in the file
    beside: tuple[str, ...] = ()  # other tables of weights
    unused: tuple[str, ...] = ()  # tensors around the network, by their names there


# -- which file ------------------------------------------------------------------------------------------


def find_weights(path: Path, step: int | None = None) -> Path:
    """The weights that are meant by a file or the folder that holds it: ``step``, or the last that is there.

    InputError where that is not one file.
    """
    if not path.is_dir():
        if step is not None:
            raise InputError(f"--step {step}: {path} is no folder of steps; name the folder, or leave --step out")
        return path
    files = [path / name for name in sorted(entries(path)) if not _NO_WEIGHTS.search(name)]
    files = [file for file in files if file.is_file()]
    numbered = [(int(found[1] or found[2]), file) for file in files if (found := _STEP.fullmatch(file.name))]
    steps = sorted({number for number, _ in numbered})
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps[-20:])) or "none"
        raise InputError(f"--step {step}: {path} holds no such file of weights; its steps are {known}")
    if steps:
        taken = [file for number, file in numbered if number == (steps[-1] if step is None else step)]
    else:
        taken = [file for file in files if _WITHOUT_STEP.fullmatch(file.name)]
    if len(taken) == 1 and not _is_ours(path):
        return taken[0]
    raise InputError(f"{path}: {_why_none(path, [file.name for file in taken])}")


def _why_none(folder: Path, found: list[str]) -> str:
    """What is wrong with a folder from which no file can be taken, and what to do."""
    if _is_ours(folder):
        return "is a checkpoint of hrm-edge, and needs no import; use it as it is"
    if len(found) == 2:
        return f"holds both {found[0]} and {found[1]}; give the file itself"
    if found:
        return f"holds {len(found)} files of weights ({few(found)}); give the file itself"
    if any(file.suffix == ".distcp" for file in folder.iterdir()):
        return (
            "is a torch.distributed checkpoint; make one file of it first: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} step_N"
        )
    there = _shown(folder, entries(folder))
    return f"holds no step_N file{f', only {few(there)}' if there else ''}; give the file itself"


def _is_ours(folder: Path) -> bool:
    files = folder / WEIGHTS, folder / CONFIG
    return all(file.is_file() for file in files) and b'"format_version"' in files[1].read_bytes()[:1024]


def files_beside(weights: Path) -> list[str]:
    """Names of what else stands in the folder that a file of weights was taken from."""
    folder = weights.parent
    return _shown(folder, entries(folder) - {weights.name, CONFIG_NAME})


def _shown(folder: Path, names: set[str]) -> list[str]:
    return [name + "/" * (folder / name).is_dir() for name in sorted(names)]


def few(names: list[str]) -> str:
    """The first of a list of names, and how many more there are."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


# -- what is in it ---------------------------------------------------------------------------------------


def read_weights(path: Path, key: str | None = None) -> Weights:
    """The tensors of a public checkpoint by our names; code hidden in a pickle is refused, not run.

    ``key`` names the table that is meant, where there are several.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the trainer's step_N file")
    values = content(path)
    found = _complete(list(_networks(values, "", 0, set(), path)))
    if not found:
        raise InputError(f"{path}: {_why_no_network(values)}")
    found = [dataclasses.replace(each, key=_key(each, found)) for each in found]
    named = ", ".join(repr(each.key) for each in found)
    chosen = found if key is None else _under(key, found)
    if not chosen:
        raise InputError(f"{path}: holds no weights under --key {key!r}; there are {named}")
    if len(chosen) > 1:
        raise InputError(
            f"{path}: holds several tables of weights ({named}); name the one that is meant, as with "
            f"--key {shlex.quote(found[-1].key)}"
        )
    beside = tuple(each.key for each in found if each is not chosen[0])
    return dataclasses.replace(chosen[0], beside=beside)


def read_weights_of(path: Path, expected: Collection[str], key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file that a network of others has by these names, whatever trainers put around them.

    ``key`` names the table that is meant, where several fit. InputError names what is missing where none does.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the file of weights")
    found: dict[str, dict[str, Tensor]] = {}
    nearest, tables = sorted(expected), 0
    for name, tensors in _named_tables(content(path), "", 0, set()):
        tables += 1
        shown = {plain: own for own, plain in _plain(tensors).items()}
        anchor = min(expected, default="")
        roots = {plain.removesuffix(anchor) for plain in shown if f".{plain}".endswith(f".{anchor}")} | {""}
        for root in sorted(roots):
            missing = sorted(each for each in expected if root + each not in shown)
            nearest = min(nearest, missing, key=len)
            if not missing:
                label = ".".join(filter(None, (name, root.rstrip("."))))
                found[label] = {each: tensors[shown[root + each]] for each in expected}
    if not tables:
        raise InputError(f"{path}: expected a table of weights (a state_dict), found something else")
    if not found:
        raise InputError(f"{path}: weight {nearest[0]!r} is missing ({len(nearest)} of {len(expected)} are)")
    chosen = [name for name in found if key is None or name == key or name.startswith(f"{key}.")]
    if len(chosen) == 1:
        return found[chosen[0]]
    named = ", ".join(map(repr, found))
    if chosen:
        raise InputError(
            f"{path}: holds several tables of weights ({named}); name the one that is meant with --key"
        )
    raise InputError(f"{path}: holds no weights under --key {key!r}; there are {named}")


def _named_tables(values: Any, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every table of tensors with its name, "" for the file's own."""
    if not isinstance(values, dict | list | tuple) or id(values) in seen or depth > _MOST_WRAPPED:
        return
    seen.add(id(values))
    items = list(values.items() if isinstance(values, dict) else enumerate(values))
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield name, tensors
    for key, value in items:
        yield from _named_tables(value, f"{name}.{key}" if name else str(key), depth + 1, seen)


def _key(one: Weights, found: list[Weights]) -> str:
    """Its table's name, with the modules where that has several networks."""
    alone = sum(each.table == one.table for each in found) == 1
    return one.table if alone else ".".join(filter(None, (one.table, one.modules)))


def _under(key: str, found: list[Weights]) -> list[Weights]:
    """Those of this key, else those whose keys begin with it."""
    return [each for each in found if each.key == key] or [each for each in found if each.key.startswith(f"{key}.")]


def _networks(values: Any, name: str, depth: int, seen: set[int], path: Path) -> Iterator[Weights]:
    """The networks in what was saved: in that itself, or in what trainers put around it; some may lack buffers.

    An optimizer's state has tensors too, but none of the names.
    """
    if not isinstance(values, dict | list | tuple) or id(values) in seen or depth > _MOST_WRAPPED:
        return
    seen.add(id(values))  # a pickle may hold itself
    items = values.items() if isinstance(values, dict) else enumerate(values)
    if isinstance(values, dict):
        tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
        yield from _within(tensors, name, path)
    for key, value in items:
        yield from _networks(value, f"{name}.{key}" if name else str(key), depth + 1, seen, path)


def _within(tensors: dict[str, Tensor], table: str, path: Path) -> Iterator[Weights]:
    """The networks in one table: each is what has one beginning, which names the modules that stand around it."""
    plain = _plain(tensors)
    anchor = _PARAMETERS[1]
    roots = [name.removesuffix(anchor) for name in plain.values() if f".{name}".endswith(f".{anchor}")]
    of_root: dict[str, dict[str, str]] = {root: {} for root in sorted(set(roots), key=len, reverse=True)}
    unused = []
    for name, shown in plain.items():
        root = next((root for root in of_root if shown.startswith(root)), None)
        if root is None or shown.removeprefix(root) in _NO_PART:
            unused.append(name)
        else:
            own = shown.removeprefix(root)
            of_root[root][name] = RENAMED.get(own, own)
    for root, names in of_root.items():
        if not set(_PARAMETERS) <= set(names.values()):
            unused += names
            continue
        found: dict[str, Tensor] = {}
        for name, own in names.items():
            if own in found:
                where = f"{path}: weight {own!r} is there twice"
                raise InputError(f"{where}, also as {name!r}; save the weights that are meant alone")
            found[own] = tensors[name]
        yield Weights(found, table, root.rstrip("."), unused=tuple(unused))


def _plain(names: Any) -> dict[str, str]:
    """Each name without the parts that say how a module was wrapped."""
    return {name: ".".join(part for part in name.split(".") if not _WRAPPER.fullmatch(part)) for name in names}


def _complete(found: list[Weights]) -> list[Weights]:
    """Those that are whole, and averages of parameters alone filled up from the one that is."""
    whole = [each for each in found if set(_BUFFERS) <= set(each.tensors)]
    if len(whole) != 1:
        return whole
    return [
        each if each is whole[0] else dataclasses.replace(each, tensors={**whole[0].tensors, **each.tensors})
        for each in found
    ]


def _why_no_network(values: Any) -> str:
    tables = list(_tables(values, 0, set()))
    if not tables:
        found = "something else"
        if isinstance(values, dict):
            found += f" (a table of {few([repr(key)[:40] for key in values]) or 'nothing'})"
        return f"expected a table of weights (a state_dict), found {found}"
    names = [RENAMED.get(name, name) for name in _plain(max(tables, key=len)).values()]
    names = [next((ours for public, ours in RENAMED.items() if name.endswith(public)), name) for name in names]
    missing = next(need for need in _NEEDED if not any(f".{name}".endswith(f".{need}") for name in names))
    return f"weight {missing!r} is missing; is this an HRM or TRM checkpoint?"


def _tables(values: Any, depth: int, seen: set[int]) -> Iterator[list[str]]:
    """The names of each table of tensors."""
    if not isinstance(values, dict | list | tuple) or id(values) in seen or depth > _MOST_WRAPPED:
        return
    seen.add(id(values))
    if isinstance(values, dict):
        names = [key for key, value in values.items() if isinstance(key, str) and isinstance(value, Tensor)]
        if names:
            yield names
    for value in values.values() if isinstance(values, dict) else values:
        yield from _tables(value, depth + 1, seen)
