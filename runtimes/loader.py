"""From a bundle to an engine: opens it, picks the backend it was built for, joins graphs and loop."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from ..bundle import Bundle, open_bundle
from ..errors import InputError
from ..identifiers import parse_ranges
from ..tasks import Task, get_task
from .base import Engine, Graph
from .loops.graph import GraphLoop
from .loops.host import HostLoop
from .loops.slots import SlotLoop

# Bundle target → the module beside this file that runs it. Each has `available()` → (usable, version or None,
# why not or None, how to install), and `load_graph(path, threads)` → Graph; or, where the state stays on a device,
# `load_bundle(bundle, task, facts, threads)` → Engine.
BACKENDS = {"onnx": "onnx", "openvino": "openvino", "tensorrt": "tensorrt.backend", "coreml": "coreml.backend"}

# Graph → its inputs and outputs in the order the loops use them. `puzzle_identifiers` is there only when the
# model was trained with several.
SIGNATURES = {
    "start": (("tokens", "puzzle_identifiers"), ("e", "z_H", "z_L")),
    "segment": (("z_H", "z_L", "e"), ("z_H_next", "z_L_next", "logits", "q")),
    "stateful": (("tokens", "fresh", "puzzle_identifiers"), ("logits", "q")),
    "model": (("tokens", "max_think_steps", "halt", "puzzle_identifiers"), ("answer", "steps", "q")),
}


LoadGraph = Callable[[Path, int | None], Graph]


def load_engine(
    bundle: str | Path | Bundle, threads: int | None = None, stand_in: tuple[str, LoadGraph] | None = None
) -> Engine:
    """An engine for a bundle (a folder, or one already opened); ``threads``: CPU threads, all by default.

    ``stand_in``: (name, load_graph) to run the bundle's graphs with instead of the backend they were made for.

    Raises :class:`InputError` when the bundle is not whole, or its backend is not installed.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise InputError(f"threads must be a number of at least 1, not {threads!r}")
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    manifest = opened.manifest
    task = _task(opened)
    names = {graph: _names(opened, graph) for graph in manifest.graphs}
    architecture = manifest.architecture
    facts = {
        "backend": manifest.target,
        "no_ACT_continue": architecture["no_ACT_continue"],
        "num_puzzle_identifiers": architecture["num_puzzle_identifiers"],
        "kept_identifiers": _kept_identifiers(opened),
        "batch": None if manifest.batch == "dynamic" else manifest.batch,
    }
    steps = architecture["halt_max_steps"]
    if stand_in is None:
        backend = _backend(opened)
        if hasattr(backend, "load_bundle"):
            return backend.load_bundle(opened, task, facts, threads)
        load = backend.load_graph
        if hasattr(backend, "engine_name"):  # one backend, two ways to run
            facts["backend"] = backend.engine_name()
        if "stateful" in manifest.graphs:
            make = backend.load_stateful(opened.path / manifest.graphs["stateful"], threads)
            return SlotLoop(task, steps, make, **facts)
    else:
        facts["backend"], load = stand_in
    calls = {
        graph: by_position(load(opened.path / file, threads), *names[graph])
        for graph, file in manifest.graphs.items()
    }
    if manifest.loop == "host":
        return HostLoop(task, steps, calls["start"], calls["segment"], **facts)
    return GraphLoop(task, steps, calls["model"], **facts)


def backend_module(target: str) -> ModuleType:
    """The module that runs bundles of a target; importing it imports nothing heavy."""
    return importlib.import_module(f".{BACKENDS[target]}", __package__)


def _backend(bundle: Bundle) -> ModuleType:
    target = bundle.manifest.target
    if target not in BACKENDS:
        raise InputError(
            f"{bundle.path}: was built for {target}, which this version of hrm-edge can not run "
            f"(it runs {', '.join(BACKENDS)}); export with another --target"
        )
    module = backend_module(target)
    usable, _, why_not, install = module.available()
    if not usable:
        # No command brings a GPU.
        advice = f"run: {install}" if install else "use a machine that has one, or export for another --target"
        raise InputError(f"{bundle.path}: needs {target}, which is not usable here ({why_not}); {advice}")
    return module


def warning(bundle: Bundle) -> str | None:
    """One line to show whenever a bundle is used whose answers nobody has checked, or not on this device."""
    if bundle.ungated_warning or bundle.manifest.target not in BACKENDS:
        return bundle.ungated_warning
    module = backend_module(bundle.manifest.target)
    return module.unverified_warning(bundle) if hasattr(module, "unverified_warning") else None


def mark_verified(bundle: Bundle) -> None:
    """Remember that a bundle's answers were checked on this device, where its backend wants to know."""
    module = backend_module(bundle.manifest.target)
    if hasattr(module, "mark_verified"):
        module.mark_verified(bundle)


def _names(bundle: Bundle, graph: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The graph's inputs and outputs in the loops' order, which must be those the manifest lists."""
    inputs, outputs = SIGNATURES[graph]
    manifest = bundle.manifest
    if manifest.architecture["num_puzzle_identifiers"] == 1:
        inputs = tuple(name for name in inputs if name != "puzzle_identifiers")
    listed = [{tensor.name for tensor in side[graph]} for side in (manifest.inputs, manifest.outputs)]
    if listed != [set(inputs), set(outputs)]:
        raise InputError(
            f"{bundle.path}: graph {graph!r} must take {', '.join(inputs)} and give {', '.join(outputs)}; "
            "export the bundle again"
        )
    return inputs, outputs


def by_position(graph: Graph, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Callable[..., list[np.ndarray]]:
    """The graph as the loops call it: arrays in and out by position instead of by name."""

    def call(*arrays: np.ndarray) -> list[np.ndarray]:
        result = graph(dict(zip(inputs, arrays, strict=True)))
        return [result[output] for output in outputs]

    return call


def _kept_identifiers(bundle: Bundle) -> np.ndarray | None:
    """The identifiers that the export kept, of which the graphs know only the rows."""
    kept = bundle.manifest.source.get("puzzle_identifiers")
    if kept is None:
        return None
    identifiers = parse_ranges(kept, f"{bundle.path}: source.puzzle_identifiers")
    if len(identifiers) != bundle.manifest.architecture["num_puzzle_identifiers"]:
        raise InputError(f"{bundle.path}: names {len(identifiers)} puzzle identifiers; export the bundle again")
    return identifiers


def _task(bundle: Bundle) -> Task:
    manifest = bundle.manifest
    task = get_task(manifest.task)
    if tuple(task.vocabulary) != manifest.vocabulary or task.seq_len != manifest.architecture["seq_len"]:
        raise InputError(
            f"{bundle.path}: its puzzles are not the {task.name} of this hrm-edge (other symbols or another size); "
            "export it again with this version"
        )
    return task
