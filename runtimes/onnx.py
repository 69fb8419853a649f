"""onnxruntime on the CPU: runs the .onnx files of a bundle."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from ..errors import InputError
from .base import Graph, first_line

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
