"""hrm-edge: from a trained Hierarchical Reasoning Model to a bundle that solves puzzles on a device."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import benchmark, check, evaluate, load, solve, solve_file, train
    from .bundle import open_bundle
    from .data.puzzles import load_puzzles
    from .errors import GateFailed, HrmEdgeError, InputError
    from .exporting import export
    from .measure.selftest import self_test
    from .runtimes import Answers, Engine, load_engine
    from .solve.model import Model
    from .solve.requests import Outcome
    from .solve.retries import solve_with_retries
    from .solve.scheduler import Scheduler
    from .solve.solutions import Solutions
    from .solve.trace import Trace
    from .tasks import get_task

__version__ = "0.1.0"

# Threads of PyTorch that wait for work are to sleep: where others use the CPU too, spinning ones keep off it those
# that they wait for, which takes several times as long. OpenMP reads this as it is loaded, so before PyTorch is.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
if not any(name in os.environ for name in _WAITING):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

__all__ = [
    "Answers",
    "Engine",
    "GateFailed",
    "HrmEdgeError",
    "InputError",
    "Model",
    "Outcome",
    "Scheduler",
    "Solutions",
    "Trace",
    "benchmark",
    "check",
    "evaluate",
    "export",
    "get_task",
    "load",
    "load_engine",
    "load_puzzles",
    "open_bundle",
    "self_test",
    "solve",
    "solve_file",
    "solve_with_retries",
    "train",
]

# Public name → the module that has it, imported when the name is first used: `import hrm_edge` is instant. Rooms
# called solve, check and export take the place of these functions once they are imported, and are called like them.
_HOME = {
    "Answers": "runtimes",
    "Engine": "runtimes",
    "GateFailed": "errors",
    "HrmEdgeError": "errors",
    "InputError": "errors",
    "Model": "solve.model",
    "Outcome": "solve.requests",
    "Scheduler": "solve.scheduler",
    "Solutions": "solve.solutions",
    "Trace": "solve.trace",
    "benchmark": "api",
    "check": "api",
    "evaluate": "api",
    "export": "exporting",
    "get_task": "tasks",
    "load": "api",
    "load_engine": "runtimes",
    "load_puzzles": "data.puzzles",
    "open_bundle": "bundle",
    "self_test": "measure.selftest",
    "solve": "api",
    "solve_file": "api",
    "solve_with_retries": "solve.retries",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*_HOME, *(name for name in globals() if name.startswith("__"))})
