"""Target tensorrt: the ONNX graphs, engines built from them, and an audit of what the builder made of them.

tensorrt-rtx builds for GPUs that are not there; `tensorrt` only for the one that is. Types are explicit in the
graph (casts, QDQ pairs): there are no precision flags, and none are needed. The ONNX files stay in the bundle, as
an engine is tied to a version and a kind of GPU, and a device must be able to build its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Context, Target, Tools, Written, as_in_graphs
from .onnx import serialized, write_graph

if TYPE_CHECKING:
    import onnx

    from ...bundle import Manifest
    from ...runtimes.base import CompiledProduct
    from ...runtimes.tensorrt.flavours import Flavour
    from ..options import ExportOptions

_AMPERE = 80  # the oldest that TensorRT builds one engine for several kinds from
_ON_A_DEVICE = """## On a Jetson, or wherever TensorRT is and hrm-edge is not

The engines here are for desktop GPUs. A Jetson (compute capability 8.7: Orin) builds its own from the ONNX
files, with the TensorRT of its JetPack:

```sh
{lines}
```

The types stand in the graphs, hence `--stronglyTyped` and no precision flag. Where JetPack's Python is 3.11 or
newer and its `tensorrt` package can be imported, `hrm-edge compile` does the same. onnxruntime with its
TensorRT provider runs the same files: see the Python below. **None of this was run**, neither on a Jetson nor
on another GPU."""
_JETSON_ROWS = 8  # of one call, at most
_NUMERICS = (
    "compared with the float reference by running the bundle's own ONNX in onnxruntime; on a GPU unverified until "
    "`hrm-edge check` has passed there"
)


class TensorRTTarget(Target):
    name, order = "tensorrt", 3
    # Which TensorRT made an engine stands beside it in tensorrt.json.
    packages = tuple(
        name for name in ("tensorrt_rtx_cu13_bindings", "tensorrt") if find_spec(name.replace("_cu13", ""))
    )
    precisions = ("fp32", "fp16", "bf16", "int8")
    own_options: ClassVar = {"compute_capabilities": "--compute-capability"}
    always_audited = emulated = True
    # Its bundles are built, and compared through their ONNX, where no GPU can run them.
    gate_backend, gate_package = "onnx", "onnxruntime"

    def write(self, graphs: dict[str, onnx.ModelProto], context: Context) -> Written:
        """Each graph as ``STEM.onnx`` and as an engine; GateFailed where what was compiled is not what it says."""
        from ...files import sha256
        from ...runtimes.tensorrt.audit import describe, products, raise_unless_sound
        from ...runtimes.tensorrt.build import build
        from ...runtimes.tensorrt.engines import DEFAULT_PROFILE, INDEX, EngineFile, EngineIndex
        from ...runtimes.tensorrt.flavours import flavour
        from ..search.decide import stored_bytes

        chosen, options, folder = flavour(), context.options, context.folder
        capabilities = _capabilities(chosen, options)
        # Initial states of all rows, where their number is known when the engine is built.
        state_bytes = 4 * (options.batch or 0) * context.checkpoint.config.state_values
        rows = DEFAULT_PROFILE if options.batch is None else None  # None: the graph itself fixes them
        files, entries, audits = {}, [], {}
        compiled: list[CompiledProduct] = []
        for stem, model in graphs.items():
            files[stem] = write_graph(model, folder, stem)
            context.say(f"building the TensorRT engine of {files[stem]}")
            built = build(
                chosen,
                serialized(model),
                compute_capabilities=capabilities,
                rows=rows,
                hardware_compatible=len(capabilities) > 1,
            )
            stored = stored_bytes([model])
            folded = state_bytes + _scale_bytes(model)
            raise_unless_sound(built, files[stem], stored, wants_loop=stem == "model", folded_bytes=folded)
            name = f"{stem}.{chosen.name}-{chosen.version}.{'-'.join(f'sm{one}' for one in capabilities)}.engine"
            (folder / name).write_bytes(built.plan)
            entries.append(
                EngineFile(
                    graph=stem,
                    file=name,
                    flavour=chosen.name,
                    version=chosen.version,
                    compute_capabilities=capabilities,
                    rows=rows,
                    sha256=sha256(folder / name),
                    weights_bytes=built.weights_bytes,
                    seconds=round(built.seconds, 1),
                )
            )
            audits[stem] = {**describe(built), "weights_bytes": built.weights_bytes, "stored_bytes": stored}
            compiled += products(built)
        EngineIndex(tuple(entries), audits, _NUMERICS).write(folder / INDEX)
        return as_in_graphs(files, graphs, compiled)

    def read_option(self, field: str, value: Any) -> Any:
        from ...runtimes.tensorrt.flavours import as_numbers

        return as_numbers(value) if isinstance(value, str) else value

    def need(self, options: ExportOptions | None = None) -> None:
        from ...runtimes.tensorrt.flavours import flavour

        chosen = flavour()
        if options is not None:
            chosen.need(options.compute_capabilities)

    def device_notes(self, manifest: Manifest) -> Sequence[str]:
        """How an engine is built where hrm-edge is not, on a Jetson above all."""
        lines = "\n".join(_trtexec(graph, manifest) for graph in manifest.graphs)
        return (_ON_A_DEVICE.format(lines=lines),)

    def next_step(self, folder: Path, manifest: Manifest) -> str | None:
        if not manifest.gate.reason:
            return None
        return f"next, on a machine with the GPU: hrm-edge compile {folder}   and   hrm-edge check SPEC"

    def tools(self, gpus: Sequence[str]) -> Tools:
        from ...runtimes.tensorrt import flavours

        found, broken = flavours.installed()
        version = ", ".join(f"{flavour.name} {flavour.version}" for flavour in found) or None
        builders = [flavour for flavour in found if gpus or flavour.ahead_of_time]
        for flavour in builders:
            if flavour.ahead_of_time:
                capabilities = flavours.as_text(flavour.ahead_of_time)
                return Tools(version, None, f"builds engines for GPUs of compute capability {capabilities}")
        if builders:
            return Tools(version, None, f"builds engines for this machine's {gpus[0]}")
        if found:
            why_not = "tensorrt builds for the GPU of this machine, and finds none; tensorrt-rtx needs none"
            return Tools(version, why_not)
        return Tools(None, broken[0] if broken else "neither tensorrt-rtx nor tensorrt is installed")


def _trtexec(graph: str, manifest: Manifest) -> str:
    """The command that builds one graph's engine; shapes are said where a graph takes any number of rows."""
    file = manifest.graphs[graph]
    words = [f"/usr/src/tensorrt/bin/trtexec --onnx={file} --stronglyTyped --saveEngine={graph}.engine"]
    free = [spec for spec in manifest.inputs[graph] if spec.shape and isinstance(spec.shape[0], str)]
    for flag, rows in (("min", 1), ("opt", 1), ("max", _JETSON_ROWS)) if free else ():
        shapes = ",".join(f"{spec.name}:{'x'.join(map(str, (rows, *spec.shape[1:])))}" for spec in free)
        words.append(f"--{flag}Shapes={shapes}")
    return " \\\n  ".join(words)


def _capabilities(chosen: Flavour, options: ExportOptions) -> tuple[int, ...]:
    """What the engines will run on, × 10. `tensorrt` builds for the GPU that is there, and at most for its like."""
    from ...runtimes.tensorrt.cuda import find_gpu

    wanted = tuple(sorted(options.compute_capabilities))
    if chosen.is_rtx:
        return wanted
    own = find_gpu().compute_capability
    like = [one for one in wanted if min(one, own) >= _AMPERE]
    return tuple(sorted({own, *like}))


def _scale_bytes(model: onnx.ModelProto) -> int:
    """What int8 products are multiplied with at the end: a float for each output channel of each call."""
    from ..graph.edit import all_graphs, all_nodes

    shapes = {tensor.name: tensor.dims for graph in all_graphs(model.graph) for tensor in graph.initializer}
    nodes = list(all_nodes(model.graph))
    widened = {node.output[0]: node.input[0] for node in nodes if node.op_type == "DequantizeLinear"}
    weights = (widened.get(node.input[1], "") for node in nodes if node.op_type == "MatMul")
    return sum(4 * shapes[name][-1] for name in weights if name in shapes)


TARGET = TensorRTTarget()
