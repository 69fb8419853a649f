"""One file or folder a target: what it can be exported in, and what writes its files.

A target is found by lying here: every module (or package) of this folder that offers ``TARGET``, an object of
:class:`.base.Target`, is one. It runs through the backend of the same name in `runtimes`; nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from ...errors import InputError

if TYPE_CHECKING:
    from .base import Target


def all_targets() -> dict[str, Target]:
    """Every target by name, in the order in which people are told of them."""
    modules = (importlib.import_module(f".{found.name}", __name__) for found in pkgutil.iter_modules(__path__))
    targets: list[Target] = [module.TARGET for module in modules if hasattr(module, "TARGET")]
    return {target.name: target for target in sorted(targets, key=lambda target: (target.order, target.name))}


def target_named(name: str) -> Target:
    """A target. Raises InputError where there is none of that name."""
    targets = all_targets()
    if name not in targets:
        raise InputError(f"--target {name}: unknown; choose {' or '.join(targets)}")
    return targets[name]
