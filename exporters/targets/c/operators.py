"""The C form of every ONNX operator: a function for each, listed in :data:`FORMS`; of products in `products`."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ....errors import InputError
from ...graph.edit import attribute
from . import products
from .ir import Lookup, Loop, Reduce, Softmax, Step, fresh
from .lowering import Form, Lowering

# -- elementwise -----------------------------------------------------------------------------------------

_UNARY = {
    "Sqrt": "sqrt",
    "Exp": "exp",
    "Log": "log",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Erf": "erf",
    "Relu": "relu",
    "Neg": "neg",
    "Abs": "abs",
    "Reciprocal": "reciprocal",
    "Floor": "floor",
    "Sin": "sin",
    "Cos": "cos",
}
_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
_TESTS = {
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_or_equal",
    "Less": "less",
    "LessOrEqual": "less_or_equal",
    "And": "and",
    "Or": "or",
}


def _elementwise(work: Lowering, node: onnx.NodeProto) -> None:
    kind = work.kind(node.output[0])
    function = {**_UNARY, **_BINARY}[node.op_type]
    if kind != "float" and function in ("div", "sqrt", "reciprocal"):
        function = "whole_" + function
    _neutral_or(work, node, Step(function, tuple(range(len(node.input))), kind))


def _neutral_or(work: Lowering, node: onnx.NodeProto, step: Step) -> None:
    """A step, unless it adds zeros to or multiplies with ones what has the output's shape already."""
    neutral = {"add": 0, "mul": 1}.get(step.function)
    shape = work.shape(node.output[0])
    if neutral is not None:
        for side, other in (node.input, node.input[::-1]):
            same = side in work.constants and bool((work.constants[side] == neutral).all())
            if same and other not in work.constants and work.shape(other) == shape:
                return work.give(node, work.view(other))
    work.give(node, work.loop([work.view(name) for name in node.input], shape, step, name=node.name))
    return None


def _test(work: Lowering, node: onnx.NodeProto) -> None:
    views = [work.view(name) for name in node.input]
    step = Step(_TESTS[node.op_type], (0, 1), "int32_t")
    work.give(node, work.loop(views, work.shape(node.output[0]), step, name=node.name))


def _not(work: Lowering, node: onnx.NodeProto) -> None:
    view = work.view(node.input[0])
    work.give(node, work.loop([view], view.shape, Step("not", (0,), "int32_t"), name=node.name))


def _extreme(work: Lowering, node: onnx.NodeProto) -> None:
    kind, function = work.kind(node.output[0]), node.op_type.lower()
    steps = [Step(function, (-len(steps_) or 0, i), kind) for i, steps_ in _growing(len(node.input))]
    views = [work.view(name) for name in node.input]
    work.give(node, work.loop(views, work.shape(node.output[0]), *steps, name=node.name))


def _growing(count: int) -> list[tuple[int, range]]:
    """(1, nothing), (2, one step before), …: of a chain that takes one more input with every step."""
    return [(i, range(i - 1)) for i in range(1, count)]


def _pow(work: Lowering, node: onnx.NodeProto) -> None:
    base, exponent = node.input
    value = work.constants.get(exponent)
    shape = work.shape(node.output[0])
    if value is not None and value.size == 1 and float(value.reshape(-1)[0]) in (2.0, 3.0):
        steps = [Step("mul", (0, 0))] + [Step("mul", (-1, 0))] * (float(value.reshape(-1)[0]) == 3.0)
        return work.give(node, work.loop([work.view(base)], shape, *steps, name=node.name))
    views = [work.view(base), work.view(exponent)]
    return work.give(node, work.loop(views, shape, Step("pow", (0, 1)), name=node.name))


def _where(work: Lowering, node: onnx.NodeProto) -> None:
    kind = work.kind(node.output[0])
    views = [work.view(name) for name in node.input]
    work.give(node, work.loop(views, work.shape(node.output[0]), Step("where", (0, 1, 2), kind), name=node.name))


def _cast(work: Lowering, node: onnx.NodeProto) -> None:
    view, kind = work.view(node.input[0]), work.kind(node.output[0])
    truth = attribute(node, "to") == onnx.TensorProto.BOOL
    if view.buffer.kind == kind and not truth:
        return work.give(node, view)
    step = Step("truth" if truth else "to_" + kind, (0,), kind)
    return work.give(node, work.loop([view], view.shape, step, name=node.name))


def _clip(work: Lowering, node: onnx.NodeProto) -> None:
    kind = work.kind(node.output[0])
    views = [work.view(node.input[0])]
    steps: list[Step] = []
    for function, name in zip(("max", "min"), node.input[1:], strict=False):
        if name:
            views.append(work.view(name))
            steps.append(Step(function, (-len(steps) or 0, len(views) - 1), kind))
    work.give(node, work.loop(views, work.shape(node.output[0]), *steps, name=node.name))


def _gelu(work: Lowering, node: onnx.NodeProto) -> None:
    view = work.view(node.input[0])
    if attribute(node, "approximate", b"none") == b"none":
        known: tuple[float, ...] = (math.sqrt(0.5), 1.0, 0.5)
        steps = [Step("mul", (0, 1)), Step("erf", (-1,))]
    else:
        known = (math.sqrt(2 / math.pi), 1.0, 0.5, 0.044715)
        steps = [Step("mul", (0, 0)), Step("mul", (-1, 4)), Step("mul", (-2, 0)), Step("add", (-3, 0))]
        steps += [Step("mul", (-4, 1)), Step("tanh", (-5,))]
    last = len(steps)
    steps += [Step("add", (-last, 2)), Step("mul", (0, -last - 1)), Step("mul", (-last - 2, 3))]
    inputs = [view, *(work.stored(np.float32(each)) for each in known)]
    work.give(node, work.loop(inputs, view.shape, *steps, name=node.name))


# -- moves -----------------------------------------------------------------------------------------------


def _identity(work: Lowering, node: onnx.NodeProto) -> None:
    work.give(node, work.view(node.input[0]))


def _reshape(work: Lowering, node: onnx.NodeProto) -> None:
    view, shape = work.view(node.input[0]), work.shape(node.output[0])
    seen = view.reshaped(shape)
    if seen is None:
        seen = work.emit(Loop([view], fresh(view.shape, view.buffer.kind))).reshaped(shape)
        assert seen is not None
    work.give(node, seen)


def _transpose(work: Lowering, node: onnx.NodeProto) -> None:
    view = work.view(node.input[0])
    work.give(node, view.transposed(attribute(node, "perm", list(range(len(view.shape)))[::-1])))


def _expand(work: Lowering, node: onnx.NodeProto) -> None:
    work.give(node, work.view(node.input[0]).broadcast(work.shape(node.output[0])))


def _slice(work: Lowering, node: onnx.NodeProto) -> None:
    view = work.view(node.input[0])
    given = [work.array(name, f"where {node.name} cuts").tolist() for name in node.input[1:] if name]
    starts, ends = given[:2]
    axes = given[2] if len(given) > 2 else list(range(len(starts)))
    steps = given[3] if len(given) > 3 else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        view = view.cut(axis, range(view.shape[axis])[slice(*_span(start, end, step, view.shape[axis]))])
    work.give(node, view)


def _span(start: int, end: int, step: int, size: int) -> tuple[int, int | None, int]:
    """ONNX's span as Python's: an end before the beginning is none when going down."""
    return start, None if step < 0 and end < -size else end, step


def _split(work: Lowering, node: onnx.NodeProto) -> None:
    view, axis, begin = work.view(node.input[0]), attribute(node, "axis", 0), 0
    for name in node.output:
        size = work.shape(name)[axis]
        work.views[name] = view.cut(axis, range(begin, begin + size))
        begin += size


def _concat(work: Lowering, node: onnx.NodeProto) -> None:
    shape, axis, begin = work.shape(node.output[0]), attribute(node, "axis"), 0
    whole_ = fresh(shape, work.kind(node.output[0]))
    for name in node.input:
        view = work.view(name)
        size = view.shape[axis]
        work.emit(Loop([view], whole_.cut(axis, range(begin, begin + size)), node.name))
        begin += size
    work.give(node, whole_)


def _gather(work: Lowering, node: onnx.NodeProto) -> None:
    data, numbers = node.input
    axis = attribute(node, "axis", 0)
    known = work.constants.get(numbers)
    if known is not None and known.size == 1 and data not in work.constants:
        view = work.view(data)
        at = int(known.reshape(-1)[0]) % view.shape[axis]
        return work.give_as(node, view.cut(axis, range(at, at + 1)))
    table = work.view(data)
    if axis % len(table.shape) or len(table.shape) != 2:
        raise InputError(f"--target c: {node.name} gathers along axis {axis}, which has no form in C")
    index = work.view(numbers)
    output = fresh((*index.shape, table.shape[1]), table.buffer.kind)
    return work.give(node, work.emit(Lookup([table, index], output, node.name)))


# -- over a dimension ------------------------------------------------------------------------------------


def _reduce(work: Lowering, node: onnx.NodeProto) -> None:
    view, how = work.view(node.input[0]), node.op_type.removeprefix("Reduce").lower()
    rank = len(view.shape)
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = work.array(node.input[1], f"what {node.name} reduces").tolist()
    over = tuple(sorted(axis % rank for axis in (axes if axes is not None else range(rank))))
    kept = tuple(1 if i in over else n for i, n in enumerate(view.shape))
    if all(view.shape[axis] == 1 for axis in over):
        return work.give_as(node, view)
    output = fresh(kept, view.buffer.kind)
    work.emit(Reduce([view], output, node.name, how=how, axes=over, shape=view.shape))
    return work.give_as(node, output)


def _softmax(work: Lowering, node: onnx.NodeProto) -> None:
    view = work.view(node.input[0])
    if attribute(node, "axis", -1) % len(view.shape) != len(view.shape) - 1:
        raise InputError(f"--target c: {node.name} is a Softmax over another dimension than the last")
    view = work.dense(view)
    work.give(node, work.emit(Softmax([view], fresh(view.shape), node.name)))


def _layer_norm(work: Lowering, node: onnx.NodeProto) -> None:
    view = work.view(node.input[0])
    if attribute(node, "axis", -1) % len(view.shape) != len(view.shape) - 1:
        raise InputError(f"--target c: {node.name} is a norm over other dimensions than the last")
    kept, last = (*view.shape[:-1], 1), (len(view.shape) - 1,)
    mean = work.emit(Reduce([view], fresh(kept), node.name, how="mean", axes=last, shape=view.shape))
    centred = work.loop([view, mean], view.shape, Step("sub", (0, 1)))
    squares = Reduce(
        [centred], fresh(kept), node.name, how="mean", axes=last, shape=view.shape, steps=(Step("mul", (0, 0)),)
    )
    epsilon = work.stored(np.float32(attribute(node, "epsilon", 1e-5)))
    spread = work.loop([work.emit(squares), epsilon], kept, Step("add", (0, 1)), Step("sqrt", (-1,)))
    inputs = [centred, spread, *(work.view(name) for name in node.input[1:] if name)]
    steps = [Step("div", (0, 1)), Step("mul", (-1, 2)), Step("add", (-2, 3))][: len(inputs) - 1]
    work.give(node, work.loop(inputs, view.shape, *steps, name=node.name))


FORMS: dict[str, Form] = {
    **products.FORMS,
    **dict.fromkeys((*_UNARY, *_BINARY), _elementwise),
    **dict.fromkeys(_TESTS, _test),
    **dict.fromkeys(("Max", "Min"), _extreme),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    "Not": _not,
    "Pow": _pow,
    "Where": _where,
    "Cast": _cast,
    "Clip": _clip,
    "Gelu": _gelu,
    "Identity": _identity,
    "Transpose": _transpose,
    "Expand": _expand,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
}
