"""Networks of others by the name of what makes them, `package.module:factory`: imported, built, given weights."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..tasks import Task
from .network import OPTIONS, Wrapped

_NEVER_HASHED = {"torch", "hrm_edge", "__main__"}
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

    def build(self, task: Task, never_from: Sequence[Path] = ()) -> Wrapped:
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
    spec: str,
    task: Task,
    weights: Mapping[str, Tensor] | None = None,
    never_from: Sequence[Path] | None = None,
) -> nn.Module:
    """The network that ``package.module:factory`` makes, with weights.

    ``factory`` is a function or a class; where it takes an argument without a default, it is given the task.
    ``never_from``: None where a user names the factory. Where a checkpoint does, which may be a stranger's: the
    folders whose code is not run. It may name a class of networks, or a function of a module that holds one.
    """
    what = f"--network {spec}" if not never_from else f"{never_from[0]}: its network {spec}"
    factory = _factory(spec, what, never_from)
    try:
        network = factory(task) if _wants_task(factory) else factory()
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: fails ({reason(error)})") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{what}: gives {type(network).__name__}, and must give a torch.nn.Module")
    if weights is not None:
        give_weights(network, weights, spec)
    return network


def _factory(spec: str, what: str, never_from: Sequence[Path] | None) -> Callable[..., Any]:
    module, _, name = spec.partition(":")
    if not module or not name:
        raise InputError(
            f"{what}: write package.module:factory, where factory(), or factory(task), gives the network"
        )
    if never_from is not None:
        _require_elsewhere(module, what, never_from)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: cannot be imported ({reason(error)}); is its folder on PYTHONPATH?") from error
    if not callable(found):
        raise InputError(f"{what}: is {type(found).__name__}, not a function or a class")
    if never_from is not None and not _makes_networks(found, module):
        raise InputError(
            f"{what}: is no class of torch.nn.Module, nor a function of a module that holds one; a checkpoint may "
            "name nothing else"
        )
    return found


def _makes_networks(found: Any, module: str) -> bool:
    def is_network(value: Any) -> bool:
        return inspect.isclass(value) and issubclass(value, nn.Module)

    own = inspect.isfunction(found) and found.__module__ == module
    return is_network(found) or (own and any(map(is_network, vars(sys.modules[module]).values())))


def _require_elsewhere(module: str, what: str, folders: Sequence[Path]) -> None:
    """InputError where a checkpoint, which may be a stranger's, names code of its own folder, or Python's own."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        raise InputError(f"{what} is Python's own; it is not run")
    own = {form(folder) for folder in folders for form in (os.path.abspath, os.path.realpath)}
    for place in _places(module):
        if any(
            Path(form(place)).is_relative_to(folder)
            for form in (os.path.abspath, os.path.realpath)
            for folder in own
        ):
            raise InputError(f"{what} is code of its own folder; it is not run")


def _places(module: str) -> Iterator[str]:
    """Files and folders where Python has, or would find, a module and the packages above it; nothing is run."""
    name, path = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if known := sys.modules.get(name):
            file, locations = getattr(known, "__file__", None), getattr(known, "__path__", None)
        else:
            specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
            spec = next((spec for spec in specs if spec is not None), None)
            if spec is None:
                return  # importing it says so
            file, locations = spec.origin, spec.submodule_search_locations
        # What a namespace package has found; asked by itself it would look for the package above, not imported yet.
        path = None if locations is None else list(getattr(locations, "_path", locations))
        yield from filter(None, (file, *(path or ())))
        if path is None:
            return


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


def code_hash(network: nn.Module, factory: str) -> str:
    """Hex SHA-256 of the files that define a network: other code is another network.

    Those of its modules and its factory, and of all that they name in turn, as far as that is no library.
    """
    first = {type(module).__module__ for module in network.modules()} | {factory.partition(":")[0]}
    packages = {home.partition(".")[0] for home in first} - _NEVER_HASHED
    files: dict[str, Path] = {}
    pending = sorted(first)
    while pending:
        home = pending.pop()
        module = sys.modules.get(home)
        file = getattr(module, "__file__", None)
        package = home.partition(".")[0]
        if home in files or not file or package in _NEVER_HASHED or not Path(file).is_file():
            continue
        if package not in packages and _is_library(file):
            continue
        files[home] = Path(file)
        for value in list(vars(module).values()):
            named = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(named, str):
                pending.append(named)
    digests = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files.values())
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _is_library(file: str) -> bool:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(file).is_relative_to(place) for place in places)


def reason(error: BaseException) -> str:
    """The innermost cause's first line: what a library says around it tells of itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
