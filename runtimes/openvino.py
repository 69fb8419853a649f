"""OpenVINO on the CPU: runs the .xml/.bin files of a bundle."""

from __future__ import annotations

import importlib.util
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

INSTALL = "pip install 'hrm-edge[openvino]'"


def available() -> tuple[bool, str | None, str | None, str]:
    """(usable, version, why not, how to install)."""
    if importlib.util.find_spec("openvino") is None:
        return False, None, "openvino is not installed", INSTALL
    try:
        import openvino
    except Exception as error:  # a broken install fails in ways of its own
        return False, None, f"openvino does not load: {_first_line(error)}", INSTALL
    if "CPU" not in openvino.Core().available_devices:
        return False, openvino.__version__, "OpenVINO finds no CPU device", INSTALL
    return True, openvino.__version__.split("-")[0], None, INSTALL


def load_graph(path: Path, threads: int | None) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """An IR file as a function from arrays by input name to arrays by output name.

    Thread-safe: an infer request serves one call at a time, and there are as many as there are callers.
    """
    import openvino

    core = openvino.Core()
    try:
        compiled = core.compile_model(str(path), "CPU", _settings(threads))
    except Exception as error:  # OpenVINO raises plain RuntimeError, among others
        raise InputError(
            f"{path}: OpenVINO {openvino.__version__.split('-')[0]} can not load it ({_first_line(error)}); "
            "export the bundle again"
        ) from error
    names = [output.any_name for output in compiled.outputs]
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            request = idle.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
        # Inputs are read in place; outputs are copied, as the request's next call writes over its own.
        outputs = request.infer(feeds, share_inputs=True)
        result = {name: outputs[index] for index, name in enumerate(names)}
        idle.put(request)
        return result

    return run


def _settings(threads: int | None) -> dict[str, Any]:
    """Same numbers on every CPU, and the shortest time for one call.

    Unless told otherwise OpenVINO computes in bfloat16 where the CPU can, whatever the file's precision; the
    accuracy gate would then hold only for CPUs of the exporting machine's kind.
    """
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
