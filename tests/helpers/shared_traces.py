"""Traces that all processes of a test session share: a trace takes seconds, and a network's is the same every time.

They lie in the session's temporary folder, named after all that they are made of, so that none is ever stale.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from hrm_edge.models import HRM

folder: Path | None = None  # conftest's to say; without it every trace is made anew


def trace_start(model: HRM) -> onnx.ModelProto:
    from hrm_edge.exporters.graph import trace

    return _shared(trace.trace_start, model)


def trace_segment(model: HRM) -> onnx.ModelProto:
    from hrm_edge.exporters.graph import trace

    return _shared(trace.trace_segment, model)


def _shared(trace: Callable[[HRM], onnx.ModelProto], model: HRM) -> onnx.ModelProto:
    import onnx

    if folder is None:
        return trace(model)
    path = folder / hashlib.sha256(_sources() + trace.__name__.encode() + _content(model)).hexdigest()
    if not path.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(trace(model).SerializeToString())
        os.replace(file.name, path)  # whole or absent, whoever else is writing it
    return onnx.ModelProto.FromString(path.read_bytes())


def _content(model: HRM) -> bytes:
    """Everything that the network is: its modules, their settings, weights and tables."""
    said = []
    for name, module in model.named_modules():
        settings = {field: value for field, value in vars(module).items() if not field.startswith("_")}
        del settings["training"]  # a trace is of `model.eval()`
        said.append(f"{name} {type(module)} {settings!r}".encode())
    for kind in (model.named_parameters, model.named_buffers):
        for name, tensor in kind(remove_duplicate=False):
            said += [f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), tensor.detach().numpy().tobytes()]
    return b"\0".join(said)


@functools.cache
def _sources() -> bytes:
    """The code that makes a network and traces it."""
    import onnx
    import torch

    import hrm_edge.exporters.graph
    import hrm_edge.models

    digest = hashlib.sha256(f"torch {torch.__version__}, onnx {onnx.__version__}".encode())
    for package in (hrm_edge.models, hrm_edge.exporters.graph):
        for file in sorted(Path(package.__path__[0]).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.digest()
