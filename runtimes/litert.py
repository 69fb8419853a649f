"""LiteRT on the CPU: runs the .tflite files of a bundle through its XNNPACK delegate."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import limits
from ..errors import InputError
from ..packages import install
from ..tasks.parallel import usable_cores
from ._quiet import quiet_native
from .base import Available, Backend, CompiledProduct, Graph, Idle, first_line

_PACKAGE = "ai_edge_litert"
_PRODUCT = "FULLY_CONNECTED"


class LiteRT(Backend):
    """LiteRT's interpreter. One serves one call at a time, and there are as many as callers."""

    name, title, order = "litert", "LiteRT", 5

    def available(self) -> Available:
        if importlib.util.find_spec(_PACKAGE) is None:
            return Available(False, None, "ai-edge-litert is not installed", install(self.name))
        try:
            litert = _imported()
        except Exception as error:  # a broken install fails in ways of its own
            return Available(False, None, f"ai-edge-litert does not load: {first_line(error)}", install(self.name))
        return Available(True, litert.__version__, None, "")

    def load_graph(self, path: Path, threads: int | None) -> Graph:
        with _as_mistakes(path):
            return _Loaded(path, threads or usable_cores())

    def compiled_products(self, path: Path) -> list[CompiledProduct]:
        """The products with a stored weight, with the types that XNNPACK computes them in.

        Every operator is offered to the delegate by itself, so that its outputs tell which it took. What it leaves
        to LiteRT's own kernels has the type "float32 outside XNNPACK", "int8 outside XNNPACK".
        """
        with _as_mistakes(path):
            interpreter = _interpreter(path, 1, experimental_disable_delegate_node_fusion=True)
            tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
            operators = interpreter._get_ops_details()
        taken = {i for each in operators if each["op_name"] == "DELEGATE" for i in each["outputs"]}
        widened = {each["outputs"][0]: each["inputs"][0] for each in operators if each["op_name"] == "DEQUANTIZE"}
        found = []
        for each in operators:
            if each["op_name"] != _PRODUCT:
                continue
            left, right, output = each["inputs"][0], each["inputs"][1], each["outputs"][0]
            where = "" if output in taken else " outside XNNPACK"
            kinds = (np.dtype(tensors[i]["dtype"]).name for i in (left, widened.get(right, right)))
            found.append(CompiledProduct(tensors[output]["name"], *(kind + where for kind in kinds)))
        return found


BACKEND = LiteRT()


def _imported() -> Any:
    import ai_edge_litert

    return ai_edge_litert


@contextlib.contextmanager
def _as_mistakes(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # plain ValueError and RuntimeError, and UnicodeDecodeError of names
        raise InputError(
            f"{path}: LiteRT {_imported().__version__} can not load it ({first_line(error)}); "
            "export the bundle again"
        ) from error


class _Loaded:
    """A model as a function of arrays by name."""

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreters: Idle[Any] = Idle(lambda: _interpreter(path, threads))
        with self._interpreters.one() as interpreter:
            # By the file's own names: an interpreter's tensors may be called otherwise.
            signature = interpreter._get_full_signature_list()["serving_default"]
        self._inputs, self._outputs = signature["inputs"], signature["outputs"]

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._interpreters.one() as interpreter:
            for name, index in self._inputs.items():
                interpreter.set_tensor(index, feeds[name])
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in self._outputs.items()}


def _interpreter(path: Path, threads: int, **options: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with quiet_native():  # it prints that it made a delegate
        made = Interpreter(model_path=str(path), num_threads=threads, **options)
        for tensor in made.get_tensor_details():  # a few bytes of the file name sizes that it would take
            values = math.prod(map(int, tensor["shape"]))
            if values > limits.STATE and values * np.dtype(tensor["dtype"]).itemsize > path.stat().st_size:
                raise ValueError(f"tensor {tensor['name'][:60]!r} has {values:,} values")
        made.allocate_tensors()
    return made
