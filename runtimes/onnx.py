"""onnxruntime on the CPU: runs the .onnx files of a bundle."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.self_contained import check_self_contained
from ..errors import InputError
from ..files import read_text
from ..packages import install
from .base import Available, Backend, CompiledProduct, Graph, OperatorTime, by_kind, first_line

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


class OnnxRuntime(Backend):
    """onnxruntime's CPU provider. A session may run several calls at once."""

    name, title, order = "onnx", "ONNX Runtime", 1

    def available(self) -> Available:
        if importlib.util.find_spec("onnxruntime") is None:
            return Available(False, None, "onnxruntime is not installed", install(self.name))
        try:
            onnxruntime = imported()
        except Exception as error:  # a broken install fails in ways of its own
            return Available(False, None, f"onnxruntime does not load: {first_line(error)}", install(self.name))
        return Available(True, onnxruntime.__version__, None, "")

    def load_graph(self, path: Path, threads: int | None) -> Graph:
        onnxruntime = imported()
        try:
            return as_graph(open_session(str(path), threads))
        except InputError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise InputError(
                f"{path}: onnxruntime {onnxruntime.__version__} can not load it ({first_line(error)}); "
                "export the bundle again"
            ) from error

    def compiled_products(self, path: Path) -> list[CompiledProduct]:
        """Reads the optimised graph that onnxruntime writes, which needs the package onnx (extra `export`)."""
        import onnx

        with tempfile.TemporaryDirectory(prefix="hrm-edge-audit-") as scratch:
            optimised = str(Path(scratch) / "optimised.onnx")
            open_session(str(path), optimized_model_filepath=optimised)
            graph = onnx.load(optimised).graph
        # Fusion renames nodes, but the value they make keeps its name.
        return [CompiledProduct(n.output[0], *_kinds(n)) for n in _nodes(graph) if n.op_type in _PRODUCTS]

    def product(self, precision: str, size: int, threads: int) -> Callable[[], object] | None:
        """Needs the package onnx, which writes the graph."""
        if not self.available().usable or importlib.util.find_spec("onnx") is None:
            return None
        kinds = {"fp32": (np.float32, np.float32, np.float32), "int8": (np.uint8, np.int8, np.int32)}
        if precision not in kinds:
            return None
        left, right, made = kinds[precision]
        session = open_session(_product(left, right, made, size), threads)
        given = np.ones((size, size), left)
        return lambda: session.run(None, {"x": given})

    def profile(self, path: Path, threads: int | None, runs: int) -> list[OperatorTime]:
        with tempfile.TemporaryDirectory(prefix="hrm-edge-profile-") as scratch:
            prefix = str(Path(scratch) / "profile")
            session = open_session(str(path), threads, enable_profiling=True, profile_file_prefix=prefix)
            rng = np.random.default_rng(0)
            shapes = {
                each.name: [size if isinstance(size, int) else 1 for size in each.shape]
                for each in session.get_inputs()
            }
            given = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
            for _ in range(runs + 1):
                session.run(None, given)
            events = json.loads(read_text(Path(session.end_profiling())))
        told: dict[str, list[tuple[str, float]]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                place = f"{event['args'].get('node_index', '')} {event['name']}"
                told.setdefault(place, []).append((event["args"]["op_name"], 1e-3 * event["dur"]))
        return by_kind(
            [{name: (times[i][0], "", times[i][1]) for name, times in told.items()} for i in range(1, runs + 1)]
        )


BACKEND = OnnxRuntime()


def _product(left: Any, right: Any, made: Any, size: int) -> bytes:
    """``x left[size, size]`` by a stored matrix of the type ``right``, as a model."""
    import onnx
    from onnx import helper, numpy_helper

    types = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (left, made)]
    x, y = (helper.make_tensor_value_info(n, kind, [size, size]) for n, kind in zip("xy", types, strict=True))
    weight = numpy_helper.from_array(np.random.default_rng(0).integers(-9, 9, (size, size)).astype(right), "w")
    operator = "MatMul" if left is np.float32 else "MatMulInteger"
    graph = helper.make_graph([helper.make_node(operator, ["x", "w"], ["y"])], "product", [x], [y], [weight])
    opset = onnx.helper.make_opsetid("", 20)
    written: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    return written


def imported() -> Any:
    """onnxruntime, imported here and nowhere else; ImportError where it is not installed.

    As it is imported it writes an identifier of the device into the user's folders, and later sends what it does,
    unless an environment variable says that it must not. A user who wants that sets the variable to 0.
    """
    os.environ.setdefault(NO_TELEMETRY, "1")
    import onnxruntime

    return onnxruntime


# It joins a product of two dimensions with the bias behind it, and what it makes of them never becomes int8.
_NO_GEMM = "MatMulAddFusion"


def open_session(
    model: str | bytes, threads: int | None = None, entries: Mapping[str, str] | None = None, **options: Any
) -> Any:
    """An onnxruntime session on the CPU; ``entries``, ``options``: what its SessionOptions are to hold besides."""
    onnxruntime = imported()
    if isinstance(model, str):
        check_self_contained(Path(model))
    chosen = onnxruntime.SessionOptions()
    chosen.log_severity_level = 4  # errors are raised: in print they hold names as a stranger gave them
    if threads is not None:
        chosen.intra_op_num_threads = threads
    for name, value in (entries or {}).items():
        chosen.add_session_config_entry(name, value)
    for name, value in options.items():
        setattr(chosen, name, value)
    return onnxruntime.InferenceSession(
        model, chosen, providers=["CPUExecutionProvider"], disabled_optimizers=[_NO_GEMM]
    )


def as_graph(session: Any) -> Graph:
    """A session as a function from arrays by input name to arrays by output name."""
    names = [output.name for output in session.get_outputs()]

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


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
