"""hrm-edge: from a trained Hierarchical Reasoning Model to a bundle that solves puzzles on a device."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import open_bundle
    from .data.puzzles import load_puzzles
    from .errors import HrmEdgeError
    from .measure.selftest import self_test
    from .runtimes import Answers, Engine, load_engine
    from .solve.retries import solve_with_retries
    from .tasks import get_task

__version__ = "0.1.0"

__all__ = [
    "Answers",
    "Engine",
    "HrmEdgeError",
    "get_task",
    "load_engine",
    "load_puzzles",
    "open_bundle",
    "self_test",
    "solve_with_retries",
]

# Public name → the module that has it, imported when the name is first used: `import hrm_edge` is instant.
_HOME = {
    "Answers": "runtimes",
    "Engine": "runtimes",
    "HrmEdgeError": "errors",
    "get_task": "tasks",
    "load_engine": "runtimes",
    "load_puzzles": "data.puzzles",
    "open_bundle": "bundle",
    "self_test": "measure.selftest",
    "solve_with_retries": "solve.retries",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
