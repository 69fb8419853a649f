"""Target openvino: the graphs as OpenVINO IR, one .xml and one .bin file each."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx

from ..errors import InputError
from .onnx import serialized

PACKAGES = ("onnx", "openvino")  # their versions go into the manifest


def write_graph(model: onnx.ModelProto, folder: Path, stem: str) -> str:
    """Write ``folder/stem.xml`` with its ``.bin`` and return the name of the former.

    Types stay as they are in the graph. The core reads the model from memory rather than through
    ``convert_model``, which would write the source's path and its own settings into the file.
    """
    if importlib.util.find_spec("openvino") is None:
        raise InputError(
            "target openvino needs OpenVINO, which is not installed; run: pip install 'hrm-edge[openvino]'"
        )
    import openvino

    converted = openvino.Core().read_model(model=serialized(model))
    openvino.save_model(converted, str(folder / f"{stem}.xml"), compress_to_fp16=False)
    return f"{stem}.xml"
