"""Target onnx: the graphs as they are, one .onnx file each."""

from __future__ import annotations

from pathlib import Path

import onnx

from ..errors import InputError

PACKAGES = ("onnx",)  # their versions go into the manifest


def write_graph(model: onnx.ModelProto, folder: Path, stem: str) -> str:
    """Write ``folder/stem.onnx`` and return its name."""
    (folder / f"{stem}.onnx").write_bytes(serialized(model))
    return f"{stem}.onnx"


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model."""
    try:
        return model.SerializeToString(deterministic=True)
    except ValueError as error:  # protobuf's limit
        raise InputError("the model is larger than one ONNX file can be (2 GiB); export with fp16") from error
