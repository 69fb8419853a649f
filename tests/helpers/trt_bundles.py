"""Bundles for tensorrt, with and without engines: the toy network's, and those of traced graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
import toy_graphs
import toys
from simulated_trt_builder import Tensor

from hrm_edge.bundle import TensorSpec


def write_trt_bundle(
    path: Any, loop: str = "host", batch: int | str = "dynamic", engines: Any = None, **changes: Any
):
    """The toy network as a bundle for tensorrt; ``engines(folder, graphs)`` may add an index and engines to it."""

    def produce(folder: Any) -> None:
        for name, model in toy_graphs.models(loop, batch).items():
            toy_graphs.save(model, folder / name, "onnx")
        if engines is not None:
            engines(folder, wanted.graphs)

    wanted = toys.manifest("tensorrt", loop, batch, **changes)
    wanted = replace(wanted, graphs={name: f"{name}.onnx" for name in wanted.graphs})
    toys.write_bundle(path, wanted, produce, toys.accuracy())
    return path


def write_graphs(path: Any, loop: str, graphs: dict[str, onnx.ModelProto], config: Any) -> Any:
    """Traced graphs of a network as a bundle for tensorrt, without engines."""

    def specs(values: Any) -> tuple[TensorSpec, ...]:
        tensors = [Tensor(value) for value in values]
        return tuple(
            TensorSpec(t.name, t.dtype.value, tuple("batch" if n < 0 else n for n in t.shape)) for t in tensors
        )

    facts = toys.manifest().architecture | config.to_dict()
    manifest = toys.manifest(
        "tensorrt",
        loop,
        architecture=facts | {"prefix_len": config.prefix_len},
        graphs={name: f"{name}.onnx" for name in graphs},
        inputs={name: specs(model.graph.input) for name, model in graphs.items()},
        outputs={name: specs(model.graph.output) for name, model in graphs.items()},
    )
    toys.write_bundle(
        path,
        manifest,
        lambda folder: [onnx.save(model, folder / f"{name}.onnx") for name, model in graphs.items()],
        toys.accuracy(max_think_steps=config.halt_max_steps),
    )
    return path
