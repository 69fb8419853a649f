"""The three loops around a graph: on the host, inside the graph, and over a device's slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ..base import Graph, first_line
from ..engine import Engine
from .graph import GraphLoop
from .host import HostLoop

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ...tasks import Task

# Graph → its inputs and outputs in the order the loops use them, `*` standing for the network's state tensors.
# `puzzle_identifiers` is there only when the model was trained with several.
_SIGNATURES = {
    "start": (("tokens", "puzzle_identifiers"), ("e", "*")),
    "segment": (("*", "e"), ("*", "logits", "q")),
    "stateful": (("tokens", "fresh", "puzzle_identifiers"), ("logits", "q")),
    "model": (("tokens", "max_think_steps", "halt", "puzzle_identifiers"), ("answer", "steps", "q")),
}
NEXT = "_next"  # ends the name of a state tensor where a segment gives it


def state_tensors(outputs: Iterable[str]) -> tuple[str, ...]:
    """The names of a network's state tensors, by the outputs of its segment."""
    return tuple(name.removesuffix(NEXT) for name in outputs if name.endswith(NEXT))


def signature_of(graph: str, state: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A graph's inputs and outputs in the loops' order, for a network with these state tensors."""
    inputs, outputs = _SIGNATURES[graph]
    following = tuple(name + NEXT for name in state) if graph == "segment" else state
    return _filled(inputs, state), _filled(outputs, following)


def _filled(names: tuple[str, ...], state: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for name in names for each in (state if name == "*" else (name,)))


def signature(bundle: Bundle, graph: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The graph's inputs and outputs in the loops' order, which must be those the manifest lists."""
    manifest = bundle.manifest
    inputs, outputs = signature_of(graph, state_tensors(spec.name for spec in manifest.outputs.get("segment", ())))
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


def _in_a_line(call: Callable[..., list[np.ndarray]], file: Path) -> Callable[..., list[np.ndarray]]:
    """The same, where a graph that loads and does not run is a mistake in the bundle, told as all are."""

    def told(*arrays: np.ndarray) -> list[np.ndarray]:
        try:
            return call(*arrays)
        except InputError:
            raise
        except Exception as error:  # backends' exceptions share no base of their own
            raise InputError(f"{file}: can not be run ({first_line(error)}); export the bundle again") from error

    return told


def require_state_outside(bundle: Bundle) -> None:
    """InputError where a bundle has the one graph of its loop that not every backend can run."""
    if "stateful" in bundle.manifest.graphs:
        raise InputError(
            f"{bundle.path}: keeps its state inside one graph, which {bundle.manifest.target} can not; export it "
            "again"
        )


def engine_of(bundle: Bundle, task: Task, facts: dict[str, Any], load_graph: Callable[[Path], Graph]) -> Engine:
    """A bundle's graphs, each loaded by ``load_graph``, with the loop that its manifest names around them."""
    manifest = bundle.manifest
    steps = manifest.architecture["halt_max_steps"]
    require_state_outside(bundle)
    calls = {}
    for graph, name in manifest.graphs.items():
        file = bundle.path / name
        calls[graph] = _in_a_line(by_position(load_graph(file), *signature(bundle, graph)), file)
    if manifest.loop == "host":
        state = state_tensors(signature(bundle, "segment")[1])
        return HostLoop(task, steps, calls["start"], calls["segment"], state=state, **facts)
    return GraphLoop(task, steps, calls["model"], **facts)
