"""Exports of a small network from beginning to end, for tests that break something on the way."""

import numpy as np
import onnx
import pytest
from small_networks import checkpoint
from traced_networks import traced

from hrm_edge.errors import GateFailed
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.build import ExportOptions
from hrm_edge.exporters.graph.edit import array_of
from hrm_edge.exporters.search.decide import Quantizing

SITE = "H_level.layers.0.mlp.down_proj/0"


def export(folder, target="onnx", precision="int8", loop="host", **gate):
    """Export the small network from beginning to end, its accuracy not looked at."""
    source = checkpoint(traced("grid")[0])
    quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
    return export_bundle(source, ExportOptions(target, precision, loop), folder, GateOptions(None, **gate), quick)


def refused(folder, reason: str, error=GateFailed, **arguments) -> str:
    """The export fails in one line that matches, and leaves nothing behind."""
    with pytest.raises(error, match=reason) as caught:
        export(folder, **arguments)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert [entry.name for entry in folder.parent.iterdir() if folder.name in entry.name] == []
    return str(caught.value)


def scaled(factor: float, only: str, segment: onnx.ModelProto) -> None:
    for tensor in segment.graph.initializer:
        if tensor.name.endswith(".input_scale") and only in tensor.name:
            tensor.raw_data = np.float32(array_of(tensor) * np.float32(factor)).tobytes()
