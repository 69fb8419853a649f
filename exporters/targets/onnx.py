"""Target onnx: the graphs as they are, one .onnx file each."""

from __future__ import annotations

from pathlib import Path

import onnx

from ..options import Context, Written, as_in_graphs

PACKAGES = ("onnx",)  # their versions go into the manifest


def write_graphs(models: dict[str, onnx.ModelProto], folder: Path, context: Context) -> Written:
    """One file a graph, with the graph's own bindings."""
    return as_in_graphs({stem: write_graph(model, folder, stem) for stem, model in models.items()}, models)


def write_graph(model: onnx.ModelProto, folder: Path, stem: str) -> str:
    """Write ``folder/stem.onnx`` and return its name."""
    (folder / f"{stem}.onnx").write_bytes(serialized(model))
    return f"{stem}.onnx"


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model."""
    return model.SerializeToString(deterministic=True)
