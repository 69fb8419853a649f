"""Target onnx: the graphs as they are, one .onnx file each."""

from __future__ import annotations

from pathlib import Path

import onnx

PACKAGES = ("onnx",)  # their versions go into the manifest


def write_graph(model: onnx.ModelProto, folder: Path, stem: str) -> str:
    """Write ``folder/stem.onnx`` and return its name."""
    (folder / f"{stem}.onnx").write_bytes(serialized(model))
    return f"{stem}.onnx"


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model."""
    return model.SerializeToString(deterministic=True)
