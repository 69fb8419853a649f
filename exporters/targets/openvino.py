"""Target openvino: the graphs as OpenVINO IR, one .xml and one .bin file each."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError
from ...packages import install
from ...precision import BF16, Precision
from .base import Context, Served, Target, Written, as_in_graphs
from .onnx import serialized

if TYPE_CHECKING:
    import onnx

    from ..options import ExportOptions


class OpenVINOTarget(Target):
    name, order = "openvino", 2
    packages = ("openvino",)
    precisions = ("fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights")
    served_by = Served("openvino", {"INFERENCE_NUM_THREADS": "1"})
    remarks: ClassVar = {BF16.name: "in openvino on CPUs with AVX-512 BF16 or AMX"}

    def audits(self, precision: Precision) -> bool:
        """float16 is only stored, and widened as it is loaded; bfloat16 is computed, or the export fails."""
        return precision is BF16 or super().audits(precision)

    def need(self, options: ExportOptions | None = None) -> None:
        """InputError for bfloat16 on a CPU that has no products of it, where nothing would show what it answers."""
        from ...runtimes.openvino import BACKEND

        if options is None or options.precision != BF16.name or not BACKEND.available().usable:
            return
        if not BACKEND.multiplies_bfloat16():
            raise InputError(
                "--precision bf16: this CPU has no bfloat16 products (AVX-512 BF16 or AMX), so nothing could be "
                "proven here; export on one that has, or with --precision fp32"
            )

    def write(self, graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
        return as_in_graphs({stem: write_graph(m, context.folder, stem) for stem, m in graphs.items()}, graphs)


def write_graph(model: onnx.ModelProto, folder: Path, stem: str) -> str:
    """Write ``folder/stem.xml`` with its ``.bin`` and return the name of the former.

    Types stay as they are in the graph. The core reads the model from memory rather than through
    ``convert_model``, which would write the source's path and its own settings into the file.
    """
    if importlib.util.find_spec("openvino") is None:
        raise InputError(f"target openvino needs OpenVINO, which is not installed; run: {install('openvino')}")
    from ...runtimes.openvino import core, imported

    openvino = imported()
    converted = core().read_model(model=serialized(model))
    _name_steadily(converted)
    # The metadata's entries are there already, below "framework".
    converted.set_rt_info(model.doc_string, "description")
    bindings = {value.name: value.doc_string for value in (*model.graph.input, *model.graph.output)}
    converted.set_rt_info(json.dumps(bindings), "bindings")
    try:
        openvino.save_model(converted, str(folder / f"{stem}.xml"), compress_to_fp16=False)
    except RuntimeError as error:  # as which it tells of a full disk
        why = str(error).splitlines()[0]
        raise InputError(f"{folder / stem}.xml: cannot be written; is the disk full? ({why})") from None
    return f"{stem}.xml"


def _name_steadily(model: Any) -> None:
    """Number operators without a name of their own per model: by default the whole process counts them."""
    for i, operator in enumerate(model.get_ordered_ops()):
        if operator.get_friendly_name() == operator.get_name():
            operator.set_friendly_name(f"{operator.get_type_name()}.{i}")
        if operator.get_type_name() == "Loop":
            _name_steadily(operator.get_function())


TARGET = OpenVINOTarget()
