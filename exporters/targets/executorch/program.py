"""A lowered graph as a .pte file with the XNNPACK delegate, and the names of the products that it took."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

from ....runtimes.executorch import NAMES
from ...graph.edit import ensure
from ...graph.trace import quiet
from .lowering import LoweredModule


def write_program(model: onnx.ModelProto, folder: Path, stem: str, half: bool) -> None:
    """Write ``STEM.pte``, and beside it the names that the format has no place for."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    module = LoweredModule(model, half).eval()
    example = module.example()
    with quiet(), torch.no_grad():
        exported = torch.export.export(module, example)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        names = {
            "inputs": [value.name for value in model.graph.input],
            "outputs": [value.name for value in model.graph.output],
            "products": list(_delegated(edge.exported_program(), module.names)),
        }
        made = edge.to_executorch().buffer
    (folder / f"{stem}.pte").write_bytes(made)
    (folder / NAMES.format(stem)).write_text(json.dumps(names, indent=1) + "\n", "utf-8")


def _delegated(program: Any, stored: dict[str, str]) -> Iterator[str]:
    """The names of all products in the delegate, in its order: "L_level.layers.0.mlp.up_proj/3", by the weight."""
    calls: Counter[str] = Counter()
    for node in program.graph_module.graph.nodes:
        if node.op != "call_function" or "executorch_call_delegate" not in str(node.target):
            continue
        inner = getattr(program.graph_module, node.args[0].target).original_module
        signature = inner.graph_signature
        known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for each in inner.graph_module.graph.nodes:
            if each.op == "call_function" and each.target.__name__.startswith("aten.linear"):
                weight = each.args[1]
                while weight.op != "placeholder":  # what widens it
                    weight = weight.args[0]
                ensure(weight.name in known, f"executorch: the weight {weight.name} is not stored")
                name = stored[known[weight.name]].removesuffix(".weight")
                yield f"{name}/{calls[name]}"
                calls[name] += 1
