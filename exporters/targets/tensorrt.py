"""Target tensorrt: the ONNX graphs, engines built from them, and an audit of what the builder made of them.

tensorrt-rtx builds for GPUs that are not there; `tensorrt` only for the one that is. Types are explicit in the
graph (casts, QDQ pairs): there are no precision flags, and none are needed. The ONNX files stay in the bundle, as
an engine is tied to a version and a kind of GPU, and a device must be able to build its own.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from ...files import sha256
from ...runtimes.base import CompiledProduct
from ...runtimes.tensorrt.audit import describe, products, raise_unless_sound
from ...runtimes.tensorrt.build import Built, Rows, build
from ...runtimes.tensorrt.cuda import find_gpu
from ...runtimes.tensorrt.engines import DEFAULT_PROFILE, INDEX, EngineFile, EngineIndex
from ...runtimes.tensorrt.flavours import Flavour, flavour
from ..graph.edit import all_graphs, all_nodes
from ..options import Context, ExportOptions, Written, as_in_graphs
from ..search.decide import stored_bytes
from .onnx import serialized, write_graph

# Their versions go into the manifest. Which TensorRT made an engine stands beside it in tensorrt.json.
PACKAGES = (
    "onnx",
    *(name for name in ("tensorrt_rtx_cu13_bindings", "tensorrt") if find_spec(name.replace("_cu13", ""))),
)
_AMPERE = 80  # the oldest that TensorRT builds one engine for several kinds from
_NUMERICS = (
    "compared with the float reference by running the bundle's own ONNX in onnxruntime; on a GPU unverified until "
    "`hrm-edge check` has passed there"
)


def write_graphs(models: dict[str, onnx.ModelProto], folder: Path, context: Context) -> Written:
    """Write each graph as ``STEM.onnx`` and as an engine, and ``tensorrt.json`` about them.

    Raises:
        InputError: no TensorRT is installed, or it can not build for what was asked.
        GateFailed: what was compiled is not what the graph says.
    """
    chosen, options = flavour(), context.options
    capabilities = _capabilities(chosen, options)
    files, entries, audits = {}, [], {}
    compiled: list[CompiledProduct] = []
    for stem, model in models.items():
        files[stem] = write_graph(model, folder, stem)
        context.say(f"building the TensorRT engine of {files[stem]}")
        built = build(
            chosen,
            serialized(model),
            compute_capabilities=capabilities,
            rows=rows_of(options),
            hardware_compatible=len(capabilities) > 1,
        )
        stored = stored_bytes([model])
        folded = _state_bytes(context) + _scale_bytes(model)
        raise_unless_sound(built, files[stem], stored, wants_loop=stem == "model", folded_bytes=folded)
        entries.append(_entry(chosen, built, stem, folder, capabilities, options))
        audits[stem] = _audit(built, model)
        compiled += products(built)
    EngineIndex(tuple(entries), audits, _NUMERICS).write(folder / INDEX)
    return as_in_graphs(files, models, compiled)


def _capabilities(chosen: Flavour, options: ExportOptions) -> tuple[int, ...]:
    """What the engines will run on, × 10. `tensorrt` builds for the GPU that is there, and at most for its like."""
    wanted = tuple(sorted(options.compute_capabilities))
    if chosen.is_rtx:
        return wanted
    own = find_gpu().compute_capability
    like = [one for one in wanted if min(one, own) >= _AMPERE]
    return tuple(sorted({own, *like}))


def rows_of(options: ExportOptions) -> Rows | None:
    """The optimization profile: fewest, typical, most rows; None when the graph itself fixes them."""
    return DEFAULT_PROFILE if options.batch is None else None


def _entry(
    chosen: Flavour, built: Built, stem: str, folder: Path, capabilities: tuple[int, ...], options: ExportOptions
) -> EngineFile:
    """Write the engine into the bundle, and say what it is."""
    name = f"{stem}.{chosen.name}-{chosen.version}.{'-'.join(f'sm{one}' for one in capabilities)}.engine"
    (folder / name).write_bytes(built.plan)
    return EngineFile(
        graph=stem,
        file=name,
        flavour=chosen.name,
        version=chosen.version,
        compute_capabilities=capabilities,
        rows=rows_of(options),
        sha256=sha256(folder / name),
        weights_bytes=built.weights_bytes,
        seconds=round(built.seconds, 1),
    )


def _state_bytes(context: Context) -> int:
    """Initial z_H and z_L of all rows, where their number is known when the engine is built."""
    config = context.checkpoint.config
    return 2 * 4 * (context.options.batch or 0) * config.sequence_len * config.hidden_size


def _scale_bytes(model: onnx.ModelProto) -> int:
    """What int8 products are multiplied with at the end: a float for each output channel of each call."""
    shapes = {tensor.name: tensor.dims for graph in all_graphs(model.graph) for tensor in graph.initializer}
    nodes = list(all_nodes(model.graph))
    widened = {node.output[0]: node.input[0] for node in nodes if node.op_type == "DequantizeLinear"}
    weights = (widened.get(node.input[1], "") for node in nodes if node.op_type == "MatMul")
    return sum(4 * shapes[name][-1] for name in weights if name in shapes)


def _audit(built: Built, model: onnx.ModelProto) -> dict[str, Any]:
    return {**describe(built), "weights_bytes": built.weights_bytes, "stored_bytes": stored_bytes([model])}
