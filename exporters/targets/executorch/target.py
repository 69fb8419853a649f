"""Target executorch: what is true of it; `lowering` makes the torch program, `program` the .pte file."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ....errors import InputError
from ....packages import install
from ..base import Context, Target, Written, as_in_graphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from ....bundle import Manifest
    from ....precision import Precision
    from ...options import ExportOptions
    from ...quantize.plan import Plan


class ExecuTorchTarget(Target):
    name, order = "executorch", 7
    packages = ("executorch",)
    precisions = ("fp32", "fp16", "int8")
    # It exports torch.while_loop, and then refuses it; its delegates take fixed shapes.
    loops = ("host",)
    default_loop, default_batch = "host", 1
    lowers_floats = quantizes_outputs = True

    def write(self, graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
        self.need()
        from ....precision import PRECISIONS
        from .program import write_program

        half = PRECISIONS[context.options.precision].stored == "float16"
        for stem, model in graphs.items():
            write_program(model, context.folder, stem, half)
        return as_in_graphs({stem: f"{stem}.pte" for stem in graphs}, graphs)

    def check(self, options: ExportOptions) -> None:
        if options.batch is None:
            raise InputError(
                "--batch dynamic: ExecuTorch runs fixed shapes here; give the number of rows of every call"
            )

    def need(self, options: ExportOptions | None = None) -> None:
        if find_spec("executorch") is None:
            raise InputError(
                f"target executorch needs ExecuTorch, which is not installed; run: {install(self.name)}"
            )

    def parts(self, precision: Precision, plan: Plan | None) -> dict[str, str]:
        from ...quantize.fp16 import PARTS

        if plan is None:
            return dict.fromkeys(PARTS, precision.stored)
        return {**plan.parts(self.name), "results of products": "int8, a scale for each output channel"}

    def notes(self, options: ExportOptions) -> Sequence[str]:
        if options.precision != "int8":
            return ()
        return ("on phones fp32 may be faster than int8 where sequences are short (81 tokens): measure both there",)

    def summary(self, options: ExportOptions, manifest: Manifest) -> str:
        return ", XNNPACK"


TARGET = ExecuTorchTarget()
