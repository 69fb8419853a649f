"""Target coreml: what is true of it; `programs` writes its packages, `swift` the Swift package beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ....errors import InputError
from ..base import Context, Target, Written

if TYPE_CHECKING:
    import onnx

    from ....bundle import Manifest
    from ....precision import Precision
    from ...options import ExportOptions
    from ...quantize.plan import Plan

IOS = (17, 18)


class CoreMLTarget(Target):
    name, order = "coreml", 4
    packages = ("coremltools",)
    precisions = (
        *("fp32", "fp16", "int8", "int8-weights", "int4-weights"),
        *("palette4-weights", "palette6-weights"),
    )
    remarks: ClassVar = {"int4-weights": "int4 in coreml needs --ios 18"}
    # Core ML runs fixed shapes, and its Neural Engine no loops.
    default_loop, default_batch = "host", 1
    own_options: ClassVar = {"ios": "--ios"}
    # Its own compute precision halves more than the graph does.
    lowers_floats = True
    always_audited = emulated = True

    def write(self, graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
        from .programs import write_programs

        return write_programs(graphs, context)

    def finish(self, manifest: Manifest, context: Context) -> None:
        """Write the Swift package that calls the models."""
        from .swift import write_package

        write_package(context.folder, manifest, context.options.ios, context.checkpoint.task)

    def check(self, options: ExportOptions) -> None:
        if options.precision == "int4-weights" and options.ios < 18:
            raise InputError("--precision int4-weights needs --ios 18")
        if options.batch is None:
            raise InputError("--batch dynamic: Core ML runs fixed shapes; give the number of rows of every call")

    def known_values(self, field: str) -> Sequence[Any]:
        return IOS

    def suffix(self, options: ExportOptions) -> str:
        return f"-ios{options.ios}" if options.ios != IOS[0] else ""

    def parts(self, precision: Precision, plan: Plan | None) -> dict[str, str]:
        from ...quantize.fp16 import PARTS
        from ...quantize.plan import INT8_PARTS

        if precision.is_full:
            return dict.fromkeys(PARTS, "float32")
        halves = {"attention scores": "float16", **dict.fromkeys(PARTS, "float16")}
        if precision.family == "products":
            halves |= INT8_PARTS
        elif precision.family == "palette":
            halves["weights"] = f"tables of {2**precision.bits} float16 values"
        else:
            halves["weights"] = precision.stored
        exceptions = plan.exceptions() if plan else {}
        return halves | {part: kind.replace("float32", "float16") for part, kind in exceptions.items()}

    def summary(self, options: ExportOptions, manifest: Manifest) -> str:
        return f", iOS {options.ios}" + (", state on the device" if "stateful" in manifest.graphs else "")


TARGET = CoreMLTarget()
