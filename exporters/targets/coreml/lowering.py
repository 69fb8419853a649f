"""Lowering: a clean ONNX graph, quantized and wrapped in its loop as for any target, as a Core ML ML program.

Every operator has one form in MIL (see ``ops``). Products with a stored weight become ``linear`` and keep
their names, each weight being stored once. A loop becomes a ``while_loop`` that holds the weights its body reads.
Core ML has no bindings without a dimension: what has none in ONNX is one long here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from ...graph import lowering as graph_lowering
from ...graph.edit import ensure, subgraphs
from ...graph.lowering import Few
from .ops import EMIT
from .weights import Numbers, emit_weight, safe

# Passes of the default pipeline that must not run, and why:
_UNWANTED = {
    "common::canonicalize_inplace_pattern",  # fails on states beside operators in a scope
    "common::guard_negative_gather_indices",  # tokens are checked before they get here
    "common::remove_redundant_ops",  # would join pairs of quantizers that stand apart on purpose
}
# Values in a constant above which it is not folded: a state that is one vector repeated stays one vector.
_LARGEST_FOLDED = 512

# Makes ops inside a function: (MIL inputs by name) → MIL outputs by name.
Body = Callable[[dict[str, Any]], dict[str, Any]]


class Lowering(graph_lowering.Lowering):
    """One ONNX graph as MIL operators, in the MIL block that is open. ``given``: values by ONNX name."""

    target, format, table = "coreml", "Core ML's MIL", "exporters/targets/coreml/ops.py"

    def __init__(
        self,
        graph: onnx.GraphProto,
        numbers: Numbers,
        given: Mapping[str, Any],
        prefix: str = "",
        stored: dict[str, np.ndarray] | None = None,
    ):
        """``prefix`` of every name that is made; ``stored``: the weights of the graph around a body."""
        super().__init__(graph, given, stored)
        self.numbers, self.prefix = numbers, prefix
        self._constants: dict[str, Any] = {}  # of this block

    def run(self) -> dict[str, Any]:
        """Emit every node; returns the graph's outputs by name."""
        self.walk()
        return {value.name: self.var(value.name) for value in self.graph.output}

    def var(self, name: str) -> Any:
        """A value as a MIL variable; what is known becomes a constant of this block, once."""
        value = self.values[name]
        if isinstance(value, Few):
            return self._once(name, lambda: self.op("transpose", x=self.weight(name), perm=[1, 0]))
        if isinstance(value, np.ndarray):
            return self._once(name, lambda: self._constant(value, name))
        return value

    def weight(self, name: str, turned: bool = False) -> Any:
        """A stored weight [K, N] (``turned``: [N, K]) as ``linear`` reads it."""
        value = self.values[name]
        stem = value.name if isinstance(value, Few) else name
        make = lambda: emit_weight(value, safe(stem), self.numbers, turned)  # noqa: E731
        return self._once(f"{stem} as a weight", make)

    def number(self, value: float) -> Any:
        """A float without dimensions, as attributes and factors are."""
        return np.float16(value) if self.numbers.half else np.float32(value)

    def make(self, op: str, node: onnx.NodeProto, **inputs: Any) -> Any:
        """The MIL operator that gives the node's only output, by its name."""
        return self.op(op, name=self.prefix + safe(node.output[0]), **inputs)

    def op(self, op: str, **inputs: Any) -> Any:
        from coremltools.converters.mil import Builder as mb

        return getattr(mb, op)(**inputs)

    def _constant(self, array: np.ndarray, name: str) -> Any:
        return self.op("const", val=self.numbers.stored(array, name), name=self.prefix + safe(name))

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._constants:
            self._constants[key] = make()
        return self._constants[key]


def _emit_loop(outer: Lowering, node: onnx.NodeProto) -> list[Any]:
    """A Loop with a trip count and a condition that is true at first; booleans are carried as int32."""
    from coremltools.converters.mil import Builder as mb

    trips, first, *carried = node.input
    (body,) = subgraphs(node)
    begin = outer.known(first)
    ensure(begin is not None and bool(begin), f"lower: {node.name} may begin by not running")
    limit = outer.var(trips)
    start = [_carried(outer.var(name)) for name in carried]
    for var in start:
        if var.op is not None and var.op.op_type != "const":
            # coremltools looks twice for what stays as it was known to begin, and fails where only the second look
            # (with rows that may have halted) can tell that it need not: a state that a segment hands through.
            var._sym_val = None
    flags = [value.type.tensor_type.elem_type == TensorProto.BOOL for value in body.input[2:]]

    def condition(trip: Any, go_on: Any, *_: Any) -> Any:
        going = mb.logical_and(x=mb.less(x=trip, y=limit), y=mb.cast(x=go_on, dtype="bool"))
        return mb.squeeze(x=going, axes=[0])

    def segment(trip: Any, _: Any, *values: Any) -> tuple[Any, ...]:
        inside = [mb.cast(x=v, dtype="bool") if flag else v for v, flag in zip(values, flags, strict=True)]
        given = {name: value for name, value in outer.values.items() if name not in outer.stored}
        given |= dict(zip((v.name for v in body.input[2:]), inside, strict=True))
        work = Lowering(body, outer.numbers, given, outer.prefix, outer.stored)
        going, *after = map(_carried, work.run().values())
        return mb.add(x=trip, y=np.ones(1, np.int32)), going, *after

    zero, one = (mb.const(val=np.array([n], np.int32), name=f"{safe(node.name)}_{n}") for n in (0, 1))
    results = mb.while_loop(_cond=condition, _body=segment, loop_vars=(zero, one, *start), name=safe(node.name))
    # Of what is carried all but the trip and the condition comes out.
    return [mb.cast(x=v, dtype="bool") if flag else v for v, flag in zip(results[2:], flags, strict=True)]


Lowering.emit = {**EMIT, "Loop": _emit_loop}


def _carried(value: Any) -> Any:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    return mb.cast(x=value, dtype="int32") if value.dtype == types.bool else value


# -- whole programs ---------------------------------------------------------------------------------------------


def lower(model: onnx.ModelProto, numbers: Numbers) -> Any:
    """A MIL program of a whole graph with fixed shapes, under the names of its bindings, in float32 and int32.

    Inputs without dimensions become one long.
    """
    inputs = {value.name: binding(value) for value in model.graph.input}

    def body(given: dict[str, Any]) -> dict[str, Any]:
        values = {name: computed(var, numbers) for name, var in given.items()}
        return Lowering(model.graph, numbers, values).run()

    return program(inputs, body, numbers)


def binding(value: onnx.ValueInfoProto) -> tuple[str, tuple[int, ...]]:
    """(dtype, shape) of a graph's input or output; a shape without dimensions is one long."""
    tensor = value.type.tensor_type
    ensure(all(dim.dim_value > 0 for dim in tensor.shape.dim), f"lower: the shape of {value.name} is not fixed")
    kinds: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.INT32: "int32"}
    return kinds[tensor.elem_type], tuple(dim.dim_value for dim in tensor.shape.dim) or (1,)


def computed(var: Any, numbers: Numbers) -> Any:
    """A float binding in the type that is computed in; anything else as it is."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    return mb.cast(x=var, dtype="fp16") if var.dtype == types.fp32 and numbers.half else var


def program(inputs: dict[str, tuple[str, tuple[int, ...]]], body: Body, numbers: Numbers) -> Any:
    """A MIL program of one function. ``inputs``: (dtype, shape) by name, dtype "state" for a float16 state."""
    import coremltools
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types
    from coremltools.converters.mil.mil.program import Placeholder, StateTensorPlaceholder

    kinds = {"float32": types.fp32, "int32": types.int32}
    places = {
        name: StateTensorPlaceholder(shape, dtype=types.fp16, name=name)
        if kind == "state"
        else Placeholder(shape, dtype=kinds[kind], name=name)
        for name, (kind, shape) in inputs.items()
    }
    made = Program()
    with Function(places, opset_version=getattr(coremltools.target, f"iOS{numbers.ios}")) as function:
        outputs = []
        for name, var in body(dict(function.inputs)).items():
            widened = var.dtype == types.fp16
            outputs.append(mb.cast(x=var, dtype="fp32", name=name) if widened else mb.identity(x=var, name=name))
        function.set_outputs(outputs)
    made.add_function("main", function)
    return made


def compiled(made: Any, numbers: Numbers) -> Any:
    """A program through coremltools' passes: a model that nothing has loaded."""
    import coremltools

    pipeline = coremltools.PassPipeline()
    pipeline.remove_passes(_UNWANTED)
    pipeline.set_options("common::const_elimination", {"skip_const_by_size": str(_LARGEST_FOLDED)})
    # The lowering has chosen every type already; another precision here would choose them again.
    return coremltools.convert(
        made,
        convert_to="mlprogram",
        pass_pipeline=pipeline,
        minimum_deployment_target=getattr(coremltools.target, f"iOS{numbers.ios}"),
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
