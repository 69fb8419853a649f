"""TensorRT and TensorRT-RTX on an NVIDIA GPU: run a bundle with its engines, or with engines built here."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...errors import InputError
from ...files import write_atomically
from ...progress import Progress, Say, announce, lines
from ...tasks import Task
from ..base import Available, Backend, Compiled
from ..engine import Engine
from ..loops import by_position, require_state_outside, signature
from ..loops.graph import SEVERAL_ROWS, GraphLoop
from ..loops.host import DEFAULT_SLOTS
from ..loops.slots import SlotLoop
from .cuda import Gpu, find_gpu
from .device import DeviceCall, LoadedEngine
from .engines import (
    BUILT,
    KEPT,
    SHIPPED,
    Here,
    compile_graph,
    fitting,
    kept_file,
    kept_plan,
    load,
    read_index,
    verified_file,
)
from .flavours import FULL, RTX, Flavour, as_text, how_to_install, installed
from .flavours import flavour as any_flavour


class TensorRt(Backend):
    """TensorRT on the GPU: a bundle's own engines, ones kept from before, or ones built now (which is said)."""

    name, title, order = "tensorrt", "TensorRT", 3
    streams = False

    def available(self) -> Available:
        """What to install is empty when the driver or the GPU is missing."""
        found, broken = installed()
        if not found:
            why = broken[0] if broken else f"neither {RTX} nor {FULL} is installed"
            return Available(False, None, why, how_to_install(RTX))
        version = ", ".join(f"{flavour.name} {flavour.version}" for flavour in found)
        try:
            gpu = find_gpu()
        except InputError as error:
            reason, _, command = str(error).partition("; run: ")
            return Available(False, version, reason, command)
        if not any(flavour.runs_on(gpu.compute_capability) for flavour in found):
            return Available(False, version, _no_flavour(found, gpu.compute_capability), how_to_install(FULL))
        return Available(True, f"{version} on {gpu.name}", None, "")

    def note(self, gpus: Sequence[Any]) -> str | None:
        if not gpus and any(flavour.ahead_of_time for flavour in installed()[0]):
            return "without a GPU its engines can be built (see export), not run"
        return None

    def load(self, bundle: Bundle, task: Task, facts: dict[str, Any], threads: int | None) -> Engine:
        """``threads`` says nothing to a GPU."""
        require_state_outside(bundle)
        here = _here(bundle, progress=lines(announce, percent=True))
        manifest = bundle.manifest
        engines = {graph: load(bundle, graph, here) for graph in manifest.graphs}
        for graph, engine in engines.items():
            _check_bindings(bundle, graph, engine)
        steps = manifest.architecture["halt_max_steps"]
        if manifest.loop == "graph":
            model = engines["model"]
            call = by_position(DeviceCall(model), *signature(bundle, "model"))
            most = min(SEVERAL_ROWS, model.rows[1] if model.rows else SEVERAL_ROWS)
            return GraphLoop(task, steps, call, rows=most, most=most, **facts)  # a GPU has room for all of them
        return _slot_loop(task, steps, engines["start"], engines["segment"], facts)

    def mark_verified(self, bundle: Bundle) -> None:
        """Remember that ``hrm-edge check`` has passed here. A cache folder that can not be written is told of."""
        here = _here(bundle)
        file = verified_file(bundle, here)
        facts = {"bundle": bundle.manifest.name, "gpu": here.gpu.name, here.flavour.name: here.flavour.version}
        try:
            write_atomically(file, json.dumps(facts, sort_keys=True) + "\n")
        except OSError as error:
            announce(f"that the check has passed is not kept: {file.parent} can not be written ({error.strerror})")

    def unverified_warning(self, bundle: Bundle) -> str | None:
        """Told until ``hrm-edge check`` has passed on this GPU; None then, or when nothing can run here."""
        try:
            here = _here(bundle)
        except InputError:
            return None
        if verified_file(bundle, here).is_file():
            return None
        return (
            f"{bundle.path}: nobody has checked its answers on this {here.gpu.name} with {here.flavour.name} "
            f"{here.flavour.version}; run `hrm-edge check` on it"
        )

    def compile(
        self,
        bundle: Bundle,
        compute_capabilities: Sequence[int] = (),
        *,
        force: bool = False,
        say: Say | None = None,
        progress: Progress | None = None,
    ) -> list[Compiled]:
        """Have an engine of every graph in the cache folder.

        ``compute_capabilities`` need no GPU with tensorrt-rtx. What is for this GPU is loaded and run as well.
        """
        say = say or announce
        any_flavour()
        gpu: Gpu | None = None
        why_not = ""
        try:
            gpu = find_gpu()
        except InputError as error:
            why_not = str(error)
        if not compute_capabilities:
            if gpu is None:
                raise InputError(
                    f"{why_not.partition('; run: ')[0]}: name the GPU it is for, as in --compute-capability 8.9, "
                    f"and {RTX} builds without one"
                )
            compute_capabilities = [gpu.compute_capability]
        done = []
        for capability in dict.fromkeys(compute_capabilities):
            here = gpu if gpu is not None and gpu.compute_capability == capability else None
            flavour = _flavour_for(bundle, capability, on_device=here is not None)
            for graph in bundle.manifest.graphs:
                began = time.monotonic()
                state, file = _state(bundle, graph, flavour, capability, force)
                if state == BUILT:
                    compile_graph(bundle, graph, flavour, capability, say, progress)
                    if not file.is_file():
                        raise InputError(
                            f"{file.parent}: the engine can not be kept there; set HRM_EDGE_CACHE to another"
                        )
                if here is not None:
                    engine = load(bundle, graph, Here(flavour, here, say, progress))
                    if engine.source == BUILT:  # what was there is refused
                        state, file = BUILT, kept_file(bundle, graph, flavour, capability)
                    _warm(engine)
                seconds = time.monotonic() - began
                done.append(Compiled(graph, flavour.name, flavour.version, capability, state, file, seconds))
        return done


BACKEND = TensorRt()


def _warm(engine: LoadedEngine) -> None:
    """One call on zeros: RTX compiles its kernels, which are kept, and an engine that fails does so here."""
    rows = _rows_of_a_call([engine])
    DeviceCall(engine)({t.name: np.zeros(t.of(rows), t.dtype) for t in engine.tensors if t.is_input})


def _slot_loop(
    task: Task, steps: int, start: LoadedEngine, segment: LoadedEngine, facts: dict[str, Any]
) -> SlotLoop:
    from .slots import DeviceSlots

    rows = facts["batch"] or _rows_of_a_call([start, segment])
    return SlotLoop(task, steps, lambda: DeviceSlots(start, segment, rows), **{**facts, "batch": rows})


def _rows_of_a_call(engines: Sequence[LoadedEngine]) -> int:
    """As many rows as we think over together, within what the engines take."""
    limits = [engine.rows for engine in engines if engine.rows]
    most = min([DEFAULT_SLOTS, *(high for _, high in limits)])
    return max([most, *(low for low, _ in limits)])


def _check_bindings(bundle: Bundle, graph: str, engine: LoadedEngine) -> None:
    """An engine must take and give what the manifest says; one of another graph would answer nonsense."""
    manifest = bundle.manifest
    free = -1 if manifest.batch == "dynamic" else manifest.batch
    for listed, is_input in ((manifest.inputs[graph], True), (manifest.outputs[graph], False)):
        shapes = {t.name: tuple(size if isinstance(size, int) else free for size in t.shape) for t in listed}
        wanted = {(t.name, t.dtype, shapes[t.name]) for t in listed}
        found = {(t.name, str(t.dtype), t.shape) for t in engine.tensors if t.is_input == is_input}
        if wanted != found:
            name = min(one[0] for one in wanted ^ found)
            side = "input" if is_input else "output"
            raise InputError(
                f"{bundle.path}: {side} {name!r} of the engine of {graph!r} is not what the manifest says; "
                "export the bundle again"
            )


def _here(bundle: Bundle, progress: Progress | None = None) -> Here:
    """The GPU, and the flavour that should run the bundle on it. Raises :class:`InputError`."""
    gpu = find_gpu()
    return Here(_flavour_for(bundle, gpu.compute_capability, on_device=True), gpu, announce, progress)


def _flavour_for(bundle: Bundle, compute_capability: int, on_device: bool) -> Flavour:
    """The flavour that the bundle has all engines for; else the first that can build for such a GPU."""
    found, broken = installed()
    able = [flavour for flavour in found if flavour.runs_on(compute_capability)]
    if not on_device:
        able = [flavour for flavour in able if flavour.is_rtx]
    if not able:
        if not on_device and any(flavour.is_rtx for flavour in found):
            known = as_text(next(flavour for flavour in found if flavour.is_rtx).ahead_of_time)
            raise InputError(
                f"{RTX} builds for compute capability {known}, not {as_text([compute_capability])}; run "
                f"`hrm-edge compile` on the device, with {FULL}"
            )
        if not on_device or not found:
            why = broken[0] if broken else f"{RTX} is not installed"
            raise InputError(f"{why}; run: {how_to_install(RTX)}")
        raise InputError(f"{_no_flavour(found, compute_capability)}; run: {how_to_install(FULL)}")
    index = read_index(bundle)
    for flavour in able:
        if all(fitting(index, graph, flavour, compute_capability) for graph in bundle.manifest.graphs):
            return flavour
    return able[0]


def _no_flavour(found: Sequence[Flavour], compute_capability: int) -> str:
    names = " and ".join(flavour.name for flavour in found)
    return f"the GPU has compute capability {as_text([compute_capability])}, which {names} does not run"


def _state(bundle: Bundle, graph: str, flavour: Flavour, compute_capability: int, force: bool) -> tuple[str, Path]:
    """Whether an engine is there, and where it is or will be."""
    shipped = fitting(read_index(bundle), graph, flavour, compute_capability)
    if shipped is not None and not force:
        return SHIPPED, bundle.path / shipped.file
    kept = not force and kept_plan(bundle, graph, flavour, compute_capability) is not None
    return KEPT if kept else BUILT, kept_file(bundle, graph, flavour, compute_capability)
