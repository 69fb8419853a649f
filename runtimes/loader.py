"""From a bundle to an engine: opens it and finds the backend it was built for."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..bundle import Bundle, open_bundle, require_unchanged
from ..errors import InputError
from ..files import require_utf8
from ..identifiers import Numbering, kept_in
from ..tasks import Task
from ..tasks.carried import read_task
from ..tasks.parallel import usable_cores
from .base import Backend, Graph
from .engine import Engine
from .loops import engine_of, signature

# Modules of this room that are no backends; so are those whose names begin with "_".
_NO_BACKENDS = ("base", "engine", "loader", "loops")

LoadGraph = Callable[[Path, int | None], Graph]


def backends() -> dict[str, Backend]:
    """Every backend by name, in the order that messages list them."""
    found = filter(None, map(_find, _modules()))
    return {each.name: each for each in sorted(found, key=lambda each: (each.order, each.name))}


def backend(name: str) -> Backend:
    """The backend that runs bundles of a target; nothing heavy is imported. Raises :class:`InputError`."""
    found = _find(name)
    if found is None:
        raise InputError(f"no backend runs {name!r}; there are {', '.join(backends())}")
    return found


def _modules() -> list[str]:
    from . import __path__ as folders

    names = [module.name for module in pkgutil.iter_modules(folders)]
    return [name for name in names if name not in _NO_BACKENDS and not name.startswith("_")]


def _find(name: str) -> Backend | None:
    if name not in _modules():
        return None
    return getattr(importlib.import_module(f".{name}", __package__), "BACKEND", None)


def load_engine(
    bundle: str | Path | Bundle,
    threads: int | None = None,
    stand_in: tuple[str, LoadGraph] | None = None,
    streams: int = 1,
) -> Engine:
    """An engine for a bundle (a folder, or one already opened); ``threads``: CPU threads, all by default.

    ``streams``: how many callers it answers side by side, who share the threads (as those of a scheduler); answers
    are the same. ``stand_in``: (name, load_graph) to run the bundle's graphs with instead of the backend they were
    made for.

    Raises :class:`InputError` when the bundle is not whole or replaced meanwhile, or its backend is missing.
    """
    each = threads_each(threads, streams)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    require_utf8(opened.path)
    manifest = opened.manifest
    task = task_of(opened)
    for graph in manifest.graphs:
        signature(opened, graph)
    architecture = manifest.architecture
    facts = {
        "no_ACT_continue": architecture["no_ACT_continue"],
        "num_puzzle_identifiers": architecture["num_puzzle_identifiers"],
        "kept_identifiers": _kept_identifiers(opened),
        "numbering": trained_numbering(opened),
        "batch": None if manifest.batch == "dynamic" else manifest.batch,
        "streams": streams,
    }
    if stand_in is not None:
        name, load_graph = stand_in
        engine = engine_of(opened, task, {**facts, "backend": name}, lambda path: load_graph(path, each))
    else:
        usable = _usable(opened)
        engine = usable.load(opened, task, {**facts, "backend": usable.engine_name()}, each)
    require_unchanged(opened)
    return engine


def threads_each(threads: int | None, streams: int = 1) -> int | None:
    """CPU threads of each of ``streams`` that share ``threads``; None: all, of the only one. InputError."""
    for name, count in (("threads", threads), ("streams", streams)):
        if count is not None and (type(count) is not int or count < 1):
            raise InputError(f"{name} must be a number of at least 1, not {count!r}")
    if threads is not None and streams > threads:
        raise InputError(f"{streams} streams share {threads} threads, and each needs one; ask for fewer streams")
    if streams == 1:
        return threads
    return max(1, (threads or usable_cores()) // streams)


def _usable(bundle: Bundle) -> Backend:
    """The bundle's backend, which must be usable here."""
    target = bundle.manifest.target
    found = _find(target)
    if found is None:
        raise InputError(
            f"{bundle.path}: was built for {target}, which this version of hrm-edge can not run "
            f"(it runs {', '.join(backends())}); export with another --target"
        )
    usable, _, why_not, install = found.available()
    if not usable:
        # No command brings a GPU.
        advice = f"run: {install}" if install else "use a machine that has one, or export for another --target"
        raise InputError(f"{bundle.path}: needs {target}, which is not usable here ({why_not}); {advice}")
    return found


def warning(bundle: Bundle) -> str | None:
    """One line to show whenever a bundle is used whose answers nobody has checked, or not on this device."""
    found = _find(bundle.manifest.target)
    if bundle.ungated_warning or found is None:
        return bundle.ungated_warning
    return found.unverified_warning(bundle)


def _kept_identifiers(bundle: Bundle) -> np.ndarray | None:
    """The identifiers that the export kept, of which the graphs know only the rows."""
    identifiers = kept_in(bundle.manifest.source, str(bundle.path))
    if identifiers is not None and len(identifiers) != bundle.manifest.architecture["num_puzzle_identifiers"]:
        raise InputError(f"{bundle.path}: names {len(identifiers)} puzzle identifiers; export the bundle again")
    return identifiers


def trained_numbering(bundle: Bundle) -> Numbering | None:
    """Whose puzzles the identifiers of its training were; None where an earlier version kept some of them."""
    source, count = bundle.manifest.source, bundle.manifest.architecture["num_puzzle_identifiers"]
    if "puzzle_identifiers" in source:
        trained = source.get("num_puzzle_identifiers", "")
        if not re.fullmatch(r"\d{1,9}", trained, re.ASCII):
            return None
        count = int(trained)
    return Numbering(count, source.get("identifiers"))


def task_of(bundle: Bundle) -> Task:
    """What a bundle solves, as it carries it; InputError where that is not what is known here by the name."""
    manifest = bundle.manifest
    task = read_task(bundle.path, manifest.task)
    if tuple(task.vocabulary) != manifest.vocabulary or task.seq_len != manifest.architecture["seq_len"]:
        raise InputError(
            f"{bundle.path}: its puzzles are not the {task.name} of this hrm-edge (other symbols or another size); "
            "export it again with this version"
        )
    return task
