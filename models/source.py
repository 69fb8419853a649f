"""Networks of others by the name of what makes them, `package.module:factory`: imported, built, given weights."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..tasks import Task
from .network import OPTIONS, Wrapped

KIND = "network"  # what an architecture that is another's calls itself in configs


@dataclasses.dataclass(frozen=True)
class NetworkSource:
    """``factory`` ("package.module:factory"), and attributes to set on what it makes (those in :data:`OPTIONS`)."""

    factory: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.options) - set(OPTIONS))
        if unknown:
            raise InputError(
                f"--network {self.factory}: arch.{unknown[0]} is its factory's to decide; known fields are "
                f"{', '.join(OPTIONS)}"
            )

    def having(self, **options: Any) -> NetworkSource:
        """The same with these options too."""
        return dataclasses.replace(self, options={**self.options, **options})

    def to_dict(self) -> dict[str, Any]:
        """As it stands in recipes and checkpoints."""
        return {"kind": KIND, "factory": self.factory, **self.options}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> NetworkSource:
        """InputError where a checkpoint's record cannot be one."""
        factory = values.get("factory")
        if not isinstance(factory, str):
            raise InputError(f"{where}: arch.factory must be package.module:factory")
        return cls(factory, {name: value for name, value in values.items() if name not in ("kind", "factory")})

    def build(self, task: Task, never_from: Path | None = None) -> Wrapped:
        """The network for a task, wrapped. ``never_from``: see :func:`build_network`."""
        network = build_network(self.factory, task, never_from=never_from)
        for name, value in self.options.items():
            try:
                setattr(network, name, value)
            except AttributeError as error:
                raise InputError(f"--network {self.factory}: {name} cannot be set ({reason(error)})") from None
        model = Wrapped(network, task)
        # What it was trained with stays, whatever the code says later.
        model.source = self.having(halt_max_steps=model.config.halt_max_steps)
        return model


def build_network(
    spec: str, task: Task, weights: Mapping[str, Tensor] | None = None, never_from: Path | None = None
) -> nn.Module:
    """The network that ``package.module:factory`` makes, with weights.

    ``factory`` is a function or a class; where it takes an argument without a default, it is given the task.
    ``never_from`` is a folder that names the factory and may be a stranger's: code that lies in it is not run.
    """
    factory = _factory(spec, never_from)
    try:
        network = factory(task) if _wants_task(factory) else factory()
    except Exception as error:
        raise InputError(f"--network {spec}: fails ({reason(error)})") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"--network {spec}: gives {type(network).__name__}, and must give a torch.nn.Module")
    if weights is not None:
        give_weights(network, weights, spec)
    return network


def _factory(spec: str, never_from: Path | None) -> Callable[..., Any]:
    module, _, name = spec.partition(":")
    if not module or not name:
        raise InputError(f"--network {spec}: write package.module:factory, where factory() gives the network")
    if never_from is not None:
        _require_elsewhere(spec, module.partition(".")[0], never_from)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise InputError(
            f"--network {spec}: cannot be imported ({reason(error)}); is its folder on PYTHONPATH?"
        ) from error
    if not callable(found):
        raise InputError(f"--network {spec}: is {type(found).__name__}, not a function or a class")
    return found


def _require_elsewhere(spec: str, package: str, folder: Path) -> None:
    """InputError where a checkpoint, which may be a stranger's, names code of its own folder, or Python's own."""
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        raise InputError(f"{folder}: names {spec} as its network, which is Python's own; it is not run")
    try:
        found = None if package in sys.modules else importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None  # importing it says so
    known = getattr(sys.modules.get(package), "__file__", None), found and found.origin
    places = [each for each in (*known, *(found.submodule_search_locations or () if found else ())) if each]
    if any(Path(place).resolve().is_relative_to(folder.resolve()) for place in places):
        raise InputError(f"{folder}: names code of its own folder as its network ({spec}); it is not run")


def _wants_task(factory: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.default is inspect.Parameter.empty and each.kind in kinds for each in parameters)


def give_weights(network: nn.Module, weights: Mapping[str, Tensor], spec: str) -> None:
    """Load all weights, and no others."""
    expected = network.state_dict()
    for problem, names in (
        ("lack", set(expected) - set(weights)),
        ("hold another", set(weights) - set(expected)),
    ):
        if names:
            raise InputError(f"--network {spec}: the weights {problem} {min(names)!r} ({len(names)} such)")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"--network {spec}: weight {name!r} is {list(tensor.shape)}, and {list(expected[name].shape)} in "
                "the network"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise InputError(f"--network {spec}: weight {name!r} is not finite (NaN or infinite)")
    network.load_state_dict(dict(weights))


def code_hash(network: nn.Module) -> str:
    """Hex SHA-256 of the files that define a network's modules, torch's left out: other code is another network."""
    homes = {type(module).__module__ for module in network.modules()}
    files = {getattr(sys.modules.get(home), "__file__", None) for home in homes if home.split(".")[0] != "torch"}
    known = sorted(Path(file) for file in files if file and Path(file).is_file())
    return hashlib.sha256(
        b"".join(sorted(hashlib.sha256(file.read_bytes()).digest() for file in known))
    ).hexdigest()


def reason(error: BaseException) -> str:
    """The innermost cause's first line: what a library says around it tells of itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
