"""Core ML: runs the .mlpackage files of a bundle, on macOS by Core ML itself, elsewhere by our interpreter."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import platform
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...packages import install
from ..base import Available, Backend, CompiledProduct, Graph, first_line
from ..engine import Engine
from ..loops.slots import SlotLoop, Slots
from .interpreter import Program, load_program
from .package import check_reader, input_shapes, read_package
from .program import Block, Constant, Operation, operations

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ...tasks import Task

# Operations that hand a number on unchanged; what a product multiplies is looked for behind them.
_MOVES = ("cast", "expand_dims", "identity", "reshape", "slice_by_index", "squeeze", "transpose")
# Operations that decode a stored or quantized tensor → the input that holds it.
_DECODES = {
    "dequantize": "input",
    "constexpr_affine_dequantize": "quantized_data",
    "constexpr_blockwise_shift_scale": "data",
}
# What converting a program to float16 appends to the names of what it touches.
_FLOAT16_MARK = "_cast_fp16"


class CoreMl(Backend):
    """Core ML on a Mac; elsewhere the interpreter, whose answers are the program's and whose time is not."""

    name, title, order = "coreml", "Core ML", 4
    streams = False

    def available(self) -> Available:
        if importlib.util.find_spec("coremltools") is None:
            return Available(False, None, "coremltools is not installed", install(self.name))
        version = importlib.metadata.version("coremltools")
        if _on_mac():
            return Available(True, f"{version}, macOS {platform.mac_ver()[0]}", None, "")
        try:
            check_reader()
        except InputError as error:
            return Available(False, version, str(error).partition(";")[0], install(self.name))
        return Available(True, f"{version} (interpreted: Core ML runs on macOS only)", None, "")

    def interpreted(self) -> str | None:
        return None if _on_mac() else "use a Mac"

    def load(self, bundle: Bundle, task: Task, facts: dict[str, Any], threads: int | None) -> Engine:
        """A package that keeps its state is a loop over slots."""
        manifest = bundle.manifest
        if "stateful" not in manifest.graphs:
            return super().load(bundle, task, facts, threads)
        make = load_stateful(bundle.path / manifest.graphs["stateful"])
        return SlotLoop(task, manifest.architecture["halt_max_steps"], make, **facts)

    def load_graph(self, path: Path, threads: int | None) -> Graph:
        """Outputs of type float16 come as float32, and a scalar may be fed where the package declares (1,).

        ``threads`` changes nothing: Core ML has no such setting, and numpy's products read theirs at start-up.
        """
        return _model(path)

    def compiled_products(self, path: Path) -> list[CompiledProduct]:
        """Every matrix product of the saved program, loop bodies included, in order.

        A product is called by its output's name, as `compiled_name` gives it. An operand's type is that of the
        tensor it is decoded from: ``int8`` behind a dequantize, ``int4`` for a packed weight, ``palette4`` for a
        table of 16 values; else the type it is computed in.
        """
        found = []
        main = read_package(path).main
        fed = {value.name: value.dtype for value in main.inputs}
        for operation, around in operations(main.block):
            names = {"matmul": ("x", "y"), "linear": ("x", "weight")}.get(operation.kind)
            if names and operation.outputs:
                kinds = [_operand_kind(operation.inputs.get(name, ()), around, fed) for name in names]
                found.append(CompiledProduct(operation.outputs[0].name.removesuffix(_FLOAT16_MARK), *kinds))
        return found

    def compiled_name(self, name: str) -> str:
        """How coremltools writes a name of our graphs: ``L_level.up_proj/3`` → ``L_level_up_proj_3``."""
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        return f"_{plain}" if re.match(r"[0-9]", plain) else plain


BACKEND = CoreMl()


def load_stateful(path: Path) -> Callable[[], Slots]:
    """What makes sets of slots of a package that keeps z_H and z_L as Core ML states.

    It takes ``tokens int32[B, S]``, ``fresh float32[B]`` (1: begin a new puzzle, 0: think on) and possibly
    ``puzzle_identifiers int32[B]``, and gives ``logits`` and ``q``. Sets share the package, not their states.
    """
    shapes = input_shapes(path)
    if not {"tokens", "fresh"} <= shapes.keys() or len(shapes["tokens"]) != 2:
        raise InputError(f"{path}: does not take tokens[B, S] and fresh[B]; export the bundle again")
    model = _model(path)
    return lambda: _StateSlots(model.session(), shapes)


def _operand_kind(bound: tuple[str | Constant, ...], around: tuple[Block, ...], fed: dict[str, str]) -> str:
    """The type of the tensor that an operand comes from, looked for in the blocks around, innermost first.

    ``fed``: the types of the program's own inputs.
    """
    seen: set[str] = set()
    kind, decoded = "nothing", False
    while len(bound) == 1:
        (source,) = bound
        if isinstance(source, Constant):
            return source.dtype
        if source in seen:
            break
        seen.add(source)
        producer, declared = _producer(source, around) or (None, fed.get(source, "nothing"))
        # Behind moves the operand keeps the type it is multiplied in.
        kind = declared if kind == "nothing" else kind
        if producer is None:
            break
        if producer.kind == "constexpr_lut_to_dense":
            return _palette(producer)
        if decoded:
            break
        if producer.kind in _DECODES:
            # What is decoded may be decoded in turn, from a table; else it is of the type it is declared.
            bound, kind, decoded = producer.inputs.get(_DECODES[producer.kind], ()), "nothing", True
        elif producer.kind in _MOVES:
            bound = producer.inputs.get("x", ())
        else:
            break
    return kind


def _palette(operation: Operation) -> str:
    (table,) = operation.inputs.get("lut") or ("",)
    if not isinstance(table, Constant) or isinstance(table.value, str):
        return "palette"
    entries = table.value.shape[-2] if table.value.ndim > 1 else len(table.value)
    return f"palette{entries.bit_length() - 1}"


def _producer(name: str, around: tuple[Block, ...]) -> tuple[Operation | None, str] | None:
    """What gives a value (None: a block takes it), and the value's declared type; None where no block knows it."""
    for block in reversed(around):
        for operation in block.operations:
            for value in operation.outputs:
                if value.name == name:
                    return operation, value.dtype
        for value in block.inputs:
            if value.name == name:
                return None, value.dtype
    return None


def _model(path: Path) -> _Predictor | Program:
    return _Predictor(path) if _on_mac() else load_program(path)


def _on_mac() -> bool:
    return sys.platform == "darwin"


def _coremltools() -> Any:
    """coremltools; what it warns of on import (versions of torch, parts only tools need) concerns no user."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    return coremltools


class _Predictor:
    """A package run by Core ML (macOS). A loaded model serves one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shapes = input_shapes(path)
        self._lock = threading.Lock()
        try:
            self._model = _coremltools().models.MLModel(str(path))
        except Exception as error:  # its own exceptions, and those of the framework below
            raise InputError(
                f"{path}: Core ML can not load it ({first_line(error)}); export the bundle again"
            ) from error

    def session(self) -> Graph:
        """Calls that share a state of their own."""
        state = self._model.make_state()
        return lambda feeds: self(feeds, state=state)

    def __call__(self, feeds: dict[str, np.ndarray], **state: Any) -> dict[str, np.ndarray]:
        shaped = {name: np.asarray(array) for name, array in feeds.items()}
        for name, array in shaped.items():
            if array.ndim == 0 and self._shapes.get(name) == (1,):
                shaped[name] = array.reshape(1)
        try:
            with self._lock:
                outputs = self._model.predict(shaped, **state)
        except Exception as error:
            raise InputError(f"{self._path}: Core ML can not run it ({first_line(error)})") from error
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}


class _StateSlots(Slots):
    """Slots whose state lies in the package's states; the host only keeps each slot's puzzle."""

    def __init__(self, call: Graph, shapes: dict[str, tuple[int, ...]]) -> None:
        self._call = call
        dtypes = {"tokens": np.int32, "fresh": np.float32, "puzzle_identifiers": np.int32}
        self._feeds = {name: np.zeros(shapes[name], dtype) for name, dtype in dtypes.items() if name in shapes}

    def put(self, slots: np.ndarray, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        self._feeds["tokens"][slots] = tokens
        self._feeds["fresh"][slots] = 1
        if "puzzle_identifiers" in self._feeds:
            self._feeds["puzzle_identifiers"][slots] = 0 if puzzle_identifiers is None else puzzle_identifiers

    def think(self) -> tuple[np.ndarray, np.ndarray]:
        outputs = self._call(self._feeds)
        self._feeds["fresh"][:] = 0
        return outputs["logits"], outputs["q"]
