"""The contract of a target: what is true of it, and what writes its files.

A new target is two files: one here that offers ``TARGET``, and one in `runtimes` with the backend of the same name.
How its bundles are called in each language stands in `calls/NAME/`.
Importing a target must be cheap, as `--help`, `hrm-edge env` and devices ask for its facts where neither torch nor
onnx nor its compiler is installed: what is heavy is imported inside the methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ...packages import absent, version_of
from ...progress import Say

if TYPE_CHECKING:
    import onnx

    from ...bundle import Manifest, TensorSpec
    from ...models import Checkpoint
    from ...portable.readme import Interface
    from ...precision import Precision
    from ...runtimes.base import CompiledProduct
    from ..options import ExportOptions
    from ..quantize.plan import Plan

LOOPS = ("graph", "host")


@dataclass(frozen=True)
class Context:
    """What a target is told beside the graphs: it writes into ``folder``.

    ``plan``: how the segment was quantized, for targets that are given the float torch program. ``apart``: one file
    for each graph, also where the target would rather make one of two.
    """

    checkpoint: Checkpoint
    options: ExportOptions
    folder: Path
    say: Say = lambda stage: None
    plan: Plan | None = None
    apart: bool = False


@dataclass(frozen=True)
class Written:
    """A bundle's graphs as a target wrote them: file (or folder) by graph, and each one's bindings.

    ``compiled``: the matrix products, where writing already compiled them and the compiler told. ``facts``: what
    else the manifest's architecture says of them.
    """

    graphs: dict[str, str]
    inputs: dict[str, tuple[TensorSpec, ...]]
    outputs: dict[str, tuple[TensorSpec, ...]]
    compiled: list[CompiledProduct] | None = None
    facts: Mapping[str, int] = field(default_factory=dict)


class Tools(NamedTuple):
    """What `hrm-edge env` says of exporting to a target."""

    version: str | None  # of what writes its files
    missing: str | None  # why it cannot
    note: str | None = None  # what else one should know


@dataclass(frozen=True)
class Served:
    """How NVIDIA's Triton Inference Server runs a target's graphs: its backend, and what gives it one thread."""

    backend: str
    one_thread: Mapping[str, str] = field(default_factory=dict)


class DeviceFigures(NamedTuple):
    """What an artifact takes on the device that it is for, as far as building or emulating it here tells."""

    ram_bytes: int | None = None  # at the most, of one caller
    flash_bytes: int | None = None
    instructions: int | None = None  # of one segment
    emulated: str | None = None  # what counted them


class Target(ABC):
    """What a checkpoint can be exported for. Only a name and :meth:`write` are needed; all else has a default."""

    # What `--target`, the manifest and the backend are called.
    name: str
    # Targets are listed by this number, then by name.
    order = 100
    # What writes the files, beside torch, onnx and onnxscript; their versions go into the manifest.
    packages: Sequence[str] = ()
    # Names in `hrm_edge.precision`.
    precisions: Sequence[str] = ("fp32",)
    # Precision → what else `--help` says of it.
    remarks: ClassVar[Mapping[str, str]] = {}
    loops: Sequence[str] = LOOPS
    default_loop = "graph"
    # Rows of every call unless told otherwise. None: any number; a target of fixed shapes has a number.
    default_batch: int | None = None
    # Fields of ExportOptions that mean something to this target alone → their flags.
    own_options: ClassVar[Mapping[str, str]] = {}

    # What `write` is given: ONNX graphs in the precision asked for, or torch programs in float32.
    wants: Literal["onnx", "torch"] = "onnx"
    # Whether `write` makes float16 of float32 by itself: the ONNX graphs then stay float32.
    lowers_floats = False
    # Whether its kernels fuse int8 products of unsigned steps (zero point 128) only.
    unsigned_int8 = False
    # Whether its int8 kernels give int8: the result of every product is then rounded too.
    quantizes_outputs = False
    # Whether weights of few bits are stored as MatMulNBits, whose kernel rounds each input to int8.
    packs_weights = False

    # What serves its graphs in a model repository (`--layout triton`); None: nothing does.
    served_by: Served | None = None

    # Whether the products are compared with those asked for in every precision, as the compiler tells every type.
    always_audited = False
    # Whether candidates are tried by what their ONNX graphs say (see `exporters.emulator`): running the target
    # needs a device, or takes long.
    emulated = False
    # The backend that the gate runs on where no device is, None: the target's own; the package that it takes, where
    # that is not what writes the files.
    gate_backend: str | None = None
    gate_package: str | None = None

    @abstractmethod
    def write(self, graphs: dict[str, Any], context: Context) -> Written:
        """Write the bundle's graphs into ``context.folder``.

        ``graphs`` is ``{"model": …}`` for a graph loop and ``{"start": …, "segment": …}`` for a host loop. Where
        the target wants "onnx", each is an ``onnx.ModelProto``, quantized or converted as asked. Where it wants
        "torch", each is an ``exporters.graph.trace.Program``: the float32 network in the form that is exported, as
        a module for ``torch.export``, with example inputs by name (``batch`` rows, or three where dimension 0 is
        free) and the outputs' names. Such a target takes host loops only, and lowers all types itself, integers
        with the scales in ``context.plan``.

        Raises:
            InputError: what it needs is not installed, or cannot do what was asked.
        """

    def finish(self, manifest: Manifest, context: Context) -> None:  # noqa: B027
        """Write what else the bundle holds, once its manifest is known."""

    # -- what may be asked for ---------------------------------------------------------------------------

    def check(self, options: ExportOptions) -> None:  # noqa: B027
        """Raise InputError where options do not go with each other here; each by itself is known to be right."""

    def audits(self, precision: Precision) -> bool:
        """Whether the products that its compiler made are compared with those asked for in a precision."""
        return self.always_audited or precision.calibrated

    def known_values(self, field: str) -> Sequence[Any] | None:
        """What an option of its own may be, None: anything."""
        return None

    def read_option(self, field: str, value: Any) -> Any:
        """The value of an option of its own, which may be the text of its flag."""
        return value

    def suffix(self, options: ExportOptions) -> str:
        """The end of a bundle's default name, where options of its own tell bundles apart."""
        return ""

    def need(self, options: ExportOptions | None = None) -> None:  # noqa: B027
        """Raise InputError before any work where its compiler is absent, or cannot build for ``options``."""

    # -- what a bundle says of itself --------------------------------------------------------------------

    def parts(self, precision: Precision, plan: Plan | None) -> dict[str, str]:
        """Part of the network → dtype, for the manifest."""
        from ..quantize import fp16

        return plan.parts(self.name) if plan else fp16.parts(precision)

    def summary(self, options: ExportOptions, manifest: Manifest) -> str:
        """The end of the line that says what was exported."""
        return ""

    def notes(self, options: ExportOptions) -> Sequence[str]:
        """What else one should know of what was exported."""
        return ()

    def device_notes(self, manifest: Manifest) -> Sequence[str]:
        """Paragraphs of Markdown for the README of a bundle: what was not run, and what to do on the device."""
        return ()

    def interface(self, folder: Path, manifest: Manifest) -> Interface | None:
        """How a bundle in ``folder`` is called, for its README; None: by its graphs' inputs and outputs."""
        return None

    def next_step(self, folder: Path, manifest: Manifest) -> str | None:
        """The line that says what to do with a bundle, where that is not to solve puzzles with it."""
        return None

    def device_figures(self, folder: Path, manifest: Manifest) -> DeviceFigures:
        """What a bundle takes on its device: by default what its manifest says of it."""
        facts = manifest.architecture
        return DeviceFigures(facts.get("ram_bytes"), facts.get("flash_bytes"))

    # -- this machine ------------------------------------------------------------------------------------

    def tools(self, gpus: Sequence[str]) -> Tools:
        """What `hrm-edge env` says of exporting to it. ``gpus``: names of the NVIDIA GPUs that are here."""
        return Tools(version_of(("onnx", *self.packages)[-1]), absent(self.packages))

    def runs_here(self) -> bool:
        """Whether this machine has what its bundles run on."""
        from ...runtimes import backend

        return backend(self.name).available()[0]

    def stood_in_by(self) -> str | None:
        """What answers here in the device's place, so that nobody takes it for the device; None: nothing does."""
        from ...runtimes import backend

        if not self.runs_here():
            return "answered by its ONNX in onnxruntime, not on a GPU"
        runs = backend(self.name)
        return f"answered by an interpreter of the package, not by {runs.title}" if runs.interpreted() else None


def as_in_graphs(
    files: dict[str, str], models: dict[str, onnx.ModelProto], compiled: list[CompiledProduct] | None = None
) -> Written:
    """Files whose bindings are those of the graphs they were made from."""
    inputs = {stem: _specs(model.graph.input) for stem, model in models.items()}
    outputs = {stem: _specs(model.graph.output) for stem, model in models.items()}
    return Written(files, inputs, outputs, compiled)


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    """A graph's inputs or outputs as the manifest lists them."""
    import onnx

    from ...bundle import TensorSpec

    found = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
        found.append(TensorSpec(value.name, dtype, shape))
    return tuple(found)
