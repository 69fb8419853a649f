"""onnxruntime on the CPU: runs the .onnx files of a bundle."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .base import CompiledProduct, Graph, first_line

INSTALL = "pip install 'hrm-edge[onnx]'"


def available() -> tuple[bool, str | None, str | None, str]:
    """(usable, version, why not, how to install)."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False, None, "onnxruntime is not installed", INSTALL
    try:
        import onnxruntime
    except Exception as error:  # a broken install fails in ways of its own
        return False, None, f"onnxruntime does not load: {first_line(error)}", INSTALL
    return True, onnxruntime.__version__, None, INSTALL


def load_graph(path: Path, threads: int | None) -> Graph:
    """An ONNX file as a function from arrays by input name to arrays by output name.

    Thread-safe: a session may run several calls at once.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; they are raised as well
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise InputError(
            f"{path}: onnxruntime {onnxruntime.__version__} can not load it ({first_line(error)}); "
            "export the bundle again"
        ) from error
    names = [output.name for output in session.get_outputs()]

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


def compiled_products(path: Path) -> list[CompiledProduct]:
    """The matrix products of an ONNX file after onnxruntime's optimisations, loop bodies included.

    Reads the optimised graph that onnxruntime writes, which needs the package onnx (`hrm-edge[export]`).
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="hrm-edge-audit-") as scratch:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    # Fusion renames nodes, but the value they make keeps its name.
    return [CompiledProduct(n.output[0], *_kinds(n)) for n in _nodes(graph) if n.op_type in _PRODUCTS]


_INTEGER = ("MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul")
_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "MatMulNBits", *_INTEGER)


def _kinds(node: Any) -> tuple[str, str]:
    """What the operator multiplies: a MatMul computes in float however its operands are stored."""
    if node.op_type == "MatMulNBits":
        bits = next(item.i for item in node.attribute if item.name == "bits")
        return "float32", f"int{bits}"
    if node.op_type in _INTEGER:
        return "uint8", "int8"
    return "float32", "float32"


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for item in node.attribute:
            if item.HasField("g"):
                yield from _nodes(item.g)
