"""ExecuTorch on the CPU: runs the .pte files of a bundle through their XNNPACK delegate.

Its Python runtime comes with PyTorch and speaks its tensors; on a phone it needs neither.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import read_text
from ..packages import install, version_of
from ._quiet import quiet_native
from .base import Available, Backend, CompiledProduct, Graph, Idle, first_line

# Beside a graph's file, as the format has no place for names: those of its inputs, of its outputs, and of the
# products in its delegates, in their order.
NAMES = "{}.names.json"
_TYPES = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_qcint8": "int8",
}


class ExecuTorch(Backend):
    """ExecuTorch's own runtime. A method serves one call at a time, and there are as many as callers."""

    name, title, order = "executorch", "ExecuTorch", 7

    def available(self) -> Available:
        if importlib.util.find_spec("executorch") is None:
            return Available(False, None, "executorch is not installed", install(self.name))
        try:
            taken = _runtime().backend_registry.is_available("XnnpackBackend")
        except Exception as error:  # a broken install fails in ways of its own
            return Available(False, None, f"executorch does not load: {first_line(error)}", install(self.name))
        if not taken:
            return Available(False, version_of("executorch"), "this ExecuTorch was built without XNNPACK", "")
        return Available(True, version_of("executorch"), None, "")

    def load_graph(self, path: Path, threads: int | None) -> Graph:
        """``threads``: of the process's one pool; the last graph that is loaded with a number decides."""
        if threads is not None:
            _use_threads(threads)
        with _as_mistakes(path):
            return _Loaded(path)

    def compiled_products(self, path: Path) -> list[CompiledProduct]:
        """The products with a stored weight in the file's XNNPACK delegates, with the types it computes them in."""
        names = _names(path)["products"]
        with _as_mistakes(path):
            kinds = [kind for graph in _delegates(path.read_bytes()) for kind in _products(graph)]
        if len(kinds) != len(names):
            raise InputError(f"{path}: its delegates have {len(kinds)} products, not {len(names)}; export it again")
        return [CompiledProduct(name, *kind) for name, kind in zip(names, kinds, strict=True)]


BACKEND = ExecuTorch()


@contextlib.contextmanager
def _as_mistakes(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # plain RuntimeError, and whatever a schema's reader meets
        raise InputError(
            f"{path}: ExecuTorch {version_of('executorch')} can not load it ({first_line(error)}); "
            "export the bundle again"
        ) from error


def _runtime() -> Any:
    with quiet_native():  # it prints what it looks for in the CPU
        from executorch.runtime import Runtime

        return Runtime.get()


def _use_threads(count: int) -> None:
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool

    with quiet_native():
        if _threadpool_get_thread_count() != count:
            _unsafe_reset_threadpool(count)


def _names(path: Path) -> dict[str, list[str]]:
    file = path.with_name(NAMES.format(path.stem))
    try:
        names = json.loads(read_text(file))
        return {part: [str(each) for each in names[part]] for part in ("inputs", "outputs", "products")}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{file}: is not what an export writes there; export the bundle again") from None


class _Loaded:
    """A program as a function of arrays by name."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._methods: Idle[Any] = Idle(lambda: _runtime().load_program(self._content).load_method("forward"))
        names = _names(path)
        self._inputs, self._outputs = names["inputs"], names["outputs"]

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        given = [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in self._inputs]
        with self._methods.one() as method:
            made = method.execute(given)
            return {name: each.numpy().copy() for name, each in zip(self._outputs, made, strict=True)}


def _delegates(content: bytes) -> Iterator[dict[str, Any]]:
    """Every XNNPACK graph of a program, as its schema has it."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader, _get_schema_bytes
    from executorch.exir._serialize._flatbuffer import _flatc_decompile
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(content).program
    for delegate in program.execution_plan[0].delegates:
        payload = program.backend_delegate_data[delegate.processed.index].data
        header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
        graph = payload[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size]
        with tempfile.TemporaryDirectory(prefix="hrm-edge-xnnpack-") as place:
            schema, file = Path(place) / "schema.fbs", Path(place) / "graph.bin"
            schema.write_bytes(_get_schema_bytes())
            file.write_bytes(graph)
            _flatc_decompile(place, str(schema), str(file), ["--raw-binary"])
            yield json.loads(read_text(file.with_suffix(".json")))


def _products(graph: dict[str, Any]) -> Iterator[tuple[str, str]]:
    types = {}
    for each in graph["xvalues"]:
        value = each["xvalue_union"]
        tensor = value.get("tensor_value", value)
        types[tensor["id_out"]] = _TYPES.get(tensor["datatype"], tensor["datatype"])
    for node in graph["xnodes"]:
        if node["xnode_union_type"] == "XNNFullyConnected":
            product = node["xnode_union"]
            yield types[product["input1_id"]], types[product["filter_id"]]
