"""ONNX graphs as ExecuTorch programs, run by its runtime from what was saved."""

from __future__ import annotations

from pathlib import Path

import onnx

from hrm_edge.exporters.targets.executorch.program import write_program
from hrm_edge.runtimes import backend
from hrm_edge.runtimes.base import Graph


def lowered(model: onnx.ModelProto, folder: Path, half: bool = False) -> Graph:
    write_program(model, folder, "model", half)
    return backend("executorch").load_graph(folder / "model.pte", 1)
