"""What an export may choose, checked at construction, and what a target is told beside the graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from ..bundle import TensorSpec
from ..errors import InputError
from ..models import Checkpoint
from ..runtimes.base import CompiledProduct

Say = Callable[[str], None]

TARGETS = ("onnx", "openvino", "tensorrt", "coreml")
LOOPS = ("graph", "host")
PLAIN = ("fp32", "fp16")
QUANTIZED = ("int8", "int8-weights", "int4-weights")
PALETTIZED = ("palette4-weights", "palette6-weights")
# Target → the precisions it can be exported in.
PRECISIONS_OF = {
    "onnx": (*PLAIN, *QUANTIZED),
    "openvino": (*PLAIN, *QUANTIZED),
    "tensorrt": (*PLAIN, "bf16", "int8"),
    "coreml": (*PLAIN, *QUANTIZED, *PALETTIZED),
}
ALL_PRECISIONS = tuple(dict.fromkeys(p for known in PRECISIONS_OF.values() for p in known))
# Compute capabilities × 10 that an engine is built for unless told otherwise: RTX 30, 40 and 50.
COMPUTE_CAPABILITIES = (86, 89, 120)
IOS = (17, 18)


@dataclass(frozen=True)
class ExportOptions:
    """What to build. ``batch``: rows of every call, or None for any number.

    ``compute_capabilities``: tensorrt only, 86 for 8.6; ``ios``: coreml only, the oldest iOS it must run on.

    Raises:
        InputError: a value is unknown, or does not go with the target.
    """

    target: str = "onnx"
    precision: str = "fp32"
    loop: str = "graph"
    batch: int | None = None
    compute_capabilities: tuple[int, ...] = COMPUTE_CAPABILITIES
    ios: int = IOS[0]

    def __post_init__(self) -> None:
        for flag, value, known in (
            ("--target", self.target, TARGETS),
            ("--precision", self.precision, ALL_PRECISIONS),
            ("--loop", self.loop, LOOPS),
            ("--ios", self.ios, IOS),
        ):
            if value not in known:
                raise InputError(f"{flag} {value}: unknown; choose {' or '.join(map(str, known))}")
        if self.precision not in PRECISIONS_OF[self.target]:
            known = PRECISIONS_OF[self.target]
            raise InputError(f"--precision {self.precision}: not for {self.target}; choose {' or '.join(known)}")
        if self.target == "coreml" and self.precision == "int4-weights" and self.ios < 18:
            raise InputError("--precision int4-weights needs --ios 18")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"--batch must be a number of rows, at least 1, or dynamic, not {self.batch}")
        if self.target == "coreml" and self.batch is None:
            raise InputError("--batch dynamic: Core ML runs fixed shapes; give the number of rows of every call")

    @property
    def suffix(self) -> str:
        """Tells bundles of one checkpoint apart: ``onnx-fp32-graph``."""
        system = f"-ios{self.ios}" if self.target == "coreml" and self.ios != IOS[0] else ""
        return f"{self.target}-{self.precision}-{self.loop}{system}"


@dataclass(frozen=True)
class Context:
    """What a target's ``write_graphs`` is told beside the graphs.

    ``apart``: one file for each graph, also where the target would rather make one of two.
    """

    checkpoint: Checkpoint
    options: ExportOptions
    say: Say = lambda stage: None
    apart: bool = False


@dataclass(frozen=True)
class Written:
    """A bundle's graphs as a target wrote them: file (or folder) by graph, and each one's bindings.

    ``compiled``: the matrix products, where writing already compiled them and the compiler told.
    """

    graphs: dict[str, str]
    inputs: dict[str, tuple[TensorSpec, ...]]
    outputs: dict[str, tuple[TensorSpec, ...]]
    compiled: list[CompiledProduct] | None = None


def as_in_graphs(
    files: dict[str, str], models: dict[str, onnx.ModelProto], compiled: list[CompiledProduct] | None = None
) -> Written:
    """Files whose bindings are those of the graphs they were made from."""
    inputs = {stem: specs(model.graph.input) for stem, model in models.items()}
    outputs = {stem: specs(model.graph.output) for stem, model in models.items()}
    return Written(files, inputs, outputs, compiled)


def specs(values: Any) -> tuple[TensorSpec, ...]:
    """A graph's inputs or outputs as the manifest lists them."""
    found = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
        found.append(TensorSpec(value.name, dtype, shape))
    return tuple(found)
