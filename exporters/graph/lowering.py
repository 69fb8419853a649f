"""Lowering: what every walk over a clean ONNX graph shares that writes it as the operators of another format.

A value is a numpy array where it is known (stored weights, shapes), a :class:`Few` where it is stored in few bits,
and else whatever the format has for a tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ...errors import InputError
from .edit import array_of, attribute, ensure, initializers

# (lowering, node) → the one output, or a list of all.
Emit = Callable[[Any, onnx.NodeProto], Any]


@dataclass(frozen=True)
class Few:
    """A weight in few bits as the ONNX graph stores it: steps [K, N] and a scale for each column or block."""

    name: str
    steps: np.ndarray  # int8 or int4
    scale: np.ndarray  # float32[N], or float32[K / block, N]
    axis: int
    block: int


class Lowering:
    """One ONNX graph, node by node. A format sets the class's attributes and adds what its operators ask for."""

    target: ClassVar[str]
    format: ClassVar[str]  # as people write it
    table: ClassVar[str]  # the file to add an operator to
    emit: ClassVar[Mapping[str, Emit]]  # by ONNX operator

    def __init__(
        self, graph: onnx.GraphProto, given: Mapping[str, Any], stored: dict[str, np.ndarray] | None = None
    ) -> None:
        """``given``: values by name, the inputs' among them; ``stored``: the weights of the graph around a body."""
        self.graph = graph
        self.stored = stored or {name: array_of(tensor) for name, tensor in initializers(graph).items()}
        self.values: dict[str, Any] = {**self.stored, **given}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers = Counter(name for node in graph.node for name in node.input)
        self.readers.update(value.name for value in graph.output)
        self.fused: dict[str, Any] = {}  # outputs of nodes that another's operator has computed with its own

    def walk(self) -> None:
        """Emit every node.

        Raises:
            InputError: an operator that has no form here, by name.
        """
        for node in self.graph.node:
            if node.output[0] in self.fused:
                made = [self.fused[node.output[0]]]
            elif self._is_shape(node):
                made = list(ReferenceEvaluator(node).run(None, {name: self.array(name) for name in node.input}))
            elif node.op_type not in self.emit:
                raise InputError(
                    f"target {self.target}: the network has the operator {node.op_type} ({node.name}), which has "
                    f"no form in {self.format} here yet; write it with others, or add it to {self.table}"
                )
            else:
                emitted = self.emit[node.op_type](self, node)
                made = emitted if isinstance(emitted, list) else [emitted]
            self.values.update(zip(node.output, made, strict=True))

    def _is_shape(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes with sizes, which are known when the model is built."""
        known = [self.known(name) for name in node.input if name in self.values]
        return len(known) == len(node.input) > 0 and all(
            value is not None and value.dtype == np.int64 for value in known
        )

    def known(self, name: str) -> np.ndarray | None:
        """The value where it is known, else None."""
        value = self.values[name]
        return value if isinstance(value, np.ndarray) else None

    def array(self, name: str) -> np.ndarray:
        """A value that has to be known."""
        value = self.known(name)
        ensure(value is not None, f"lower: {name} is not known when the model is built")
        assert value is not None
        return value

    def bias_of(self, product: str, width: int) -> onnx.NodeProto | None:
        """The node that adds a stored vector to a product which nothing else reads, None where there is no such."""
        node = self.reader_of(product, "Add")
        if node is None:
            return None
        other = node.input[1] if node.input[0] == product else node.input[0]
        bias = self.values.get(other)
        return node if isinstance(bias, np.ndarray) and bias.shape == (width,) else None

    def reader_of(self, name: str, op: str) -> onnx.NodeProto | None:
        """The node that alone reads a value, where it is an ``op``."""
        if self.readers[name] != 1:
            return None
        return next((node for node in self.graph.node if name in node.input and node.op_type == op), None)


def norm_of(low: Lowering, division: onnx.NodeProto) -> tuple[float, list[int]] | None:
    """(eps, axes) where a division is a norm's: x / sqrt(mean(x²) + eps)."""
    behind = division.input[1]
    parts = {}
    for op in ("Sqrt", "Add", "ReduceMean", "Pow"):
        part = low.producers.get(behind)
        if part is None or part.op_type != op:
            return None
        parts[op], behind = part, part.input[0]
    eps, exponent = low.known(parts["Add"].input[1]), low.known(parts["Pow"].input[1])
    squares = exponent is not None and exponent.size == 1 and float(exponent) == 2
    kept = attribute(parts["ReduceMean"], "keepdims", 1) and len(parts["ReduceMean"].input) == 2
    if eps is None or eps.size != 1 or not squares or not kept or behind != division.input[0]:
        return None
    return float(eps), [int(axis) for axis in low.array(parts["ReduceMean"].input[1])]
