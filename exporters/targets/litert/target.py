"""Target litert: what is true of it; `lowering` writes its models."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ....errors import InputError
from ....packages import install
from ..base import Context, Target, Written, as_in_graphs

if TYPE_CHECKING:
    import onnx

    from ....bundle import Manifest
    from ....precision import Precision
    from ...options import ExportOptions
    from ...quantize.plan import Plan


class LiteRTTarget(Target):
    name, order = "litert", 5
    packages = ("ai_edge_litert",)
    precisions = ("fp32", "fp16", "int8", "int8-weights")
    # Its WHILE runs outside the delegate, and delegates take fixed shapes.
    loops = ("host",)
    default_loop, default_batch = "host", 1
    lowers_floats = quantizes_outputs = True

    def write(self, graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
        self.need()
        from ....precision import PRECISIONS
        from .lowering import LiteRTLowering

        half = PRECISIONS[context.options.precision].stored == "float16"
        files = {}
        for stem, model in graphs.items():
            files[stem] = f"{stem}.tflite"
            made = LiteRTLowering(model, half).serialized(f"hrm-edge: {stem}")
            (context.folder / files[stem]).write_bytes(made)
        return as_in_graphs(files, graphs)

    def finish(self, manifest: Manifest, context: Context) -> None:
        """Write what answers its puzzles in an Android app."""
        from ....portable.android import LITERT, write_android

        write_android(context.folder, manifest, LITERT)

    def check(self, options: ExportOptions) -> None:
        if options.batch is None:
            raise InputError(
                "--batch dynamic: LiteRT's models have fixed shapes; give the number of rows of every call"
            )

    def need(self, options: ExportOptions | None = None) -> None:
        if find_spec("ai_edge_litert") is None:
            raise InputError(
                f"target litert needs ai-edge-litert, which is not installed; run: {install(self.name)}"
            )

    def parts(self, precision: Precision, plan: Plan | None) -> dict[str, str]:
        from ...quantize.fp16 import PARTS
        from ...quantize.plan import FLOAT_PARTS

        if plan is None:
            return {**dict.fromkeys(PARTS, "float32"), "weights": precision.stored}
        if plan.record.quantizes_inputs:
            return {**plan.parts(self.name), "results of products": "int8, a scale for each output channel"}
        return {**FLOAT_PARTS, "weights": precision.stored, "matrix products": "int8, inputs rounded row by row"}

    def notes(self, options: ExportOptions) -> Sequence[str]:
        return _NOTES.get(options.precision, ())

    def summary(self, options: ExportOptions, manifest: Manifest) -> str:
        return ", XNNPACK"


_NOTES = {
    "fp16": (
        "XNNPACK widens float16 weights where it is loaded on a CPU: smaller than fp32 there, but not faster",
    ),
    "int8": ("on phones fp32 may be faster than int8 where sequences are short (81 tokens): measure both there",),
    "int8-weights": ("XNNPACK rounds the inputs of products to int8 row by row, and computes with integers",),
}

TARGET = LiteRTTarget()
