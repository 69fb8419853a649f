"""Target onnx: the graphs as they are, one .onnx file each, for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .base import Context, Served, Target, Written, as_in_graphs

if TYPE_CHECKING:
    import onnx

    from ...bundle import Manifest
    from ..options import ExportOptions


class OnnxTarget(Target):
    name, order = "onnx", 1
    precisions = ("fp32", "fp16", "int8", "int8-weights", "int4-weights")
    # onnxruntime silently computes most signed int8 products in float32 on a CPU.
    unsigned_int8 = packs_weights = True
    gate_package = "onnxruntime"
    served_by = Served("onnxruntime", {"intra_op_thread_count": "1", "inter_op_thread_count": "1"})

    def write(self, graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
        return as_in_graphs({stem: write_graph(m, context.folder, stem) for stem, m in graphs.items()}, graphs)

    def finish(self, manifest: Manifest, context: Context) -> None:
        """Write what answers its puzzles in a page, in Node.js and in an Android app."""
        from ...portable.android import ONNX_RUNTIME, write_android
        from ...portable.javascript import web_files

        for name, content in web_files().items():
            (context.folder / name).parent.mkdir(exist_ok=True)
            (context.folder / name).write_bytes(content)
        write_android(context.folder, manifest, ONNX_RUNTIME)

    def notes(self, options: ExportOptions) -> Sequence[str]:
        if options.precision != "fp16":
            return ()
        return ("onnxruntime computes float16 on a CPU through casts: smaller than fp32 there, but not faster",)


def write_graph(model: onnx.ModelProto, folder: Path, stem: str) -> str:
    """Write ``folder/stem.onnx`` and return its name."""
    (folder / f"{stem}.onnx").write_bytes(serialized(model))
    return f"{stem}.onnx"


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model."""
    return model.SerializeToString(deterministic=True)


TARGET = OnnxTarget()
