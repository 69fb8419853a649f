"""The C form of every ONNX operator: a function for each, listed in :data:`FORMS`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from ....errors import InputError
from ...graph.edit import attribute
from .ir import (
    Convolution,
    IntProduct,
    Lookup,
    Loop,
    Product,
    Reduce,
    Softmax,
    SparseProduct,
    Step,
    View,
    fresh,
)
from .lowering import Form, Lowering, Quantized

# Columns that an int8 weight is stored for are a multiple of this, rows of 4: what vector units multiply at once.
COLUMNS, DEPTH = 16, 4
# A constant that is multiplied from the left is stored by its entries where fewer than this are not zero.
_SPARSE = 0.3

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
        view = _cut(view, axis, range(view.shape[axis])[slice(*_span(start, end, step, view.shape[axis]))])
    work.give(node, view)


def _span(start: int, end: int, step: int, size: int) -> tuple[int, int | None, int]:
    """ONNX's span as Python's: an end before the beginning is none when going down."""
    return start, None if step < 0 and end < -size else end, step


def _cut(view: View, axis: int, kept: range) -> View:
    axis %= len(view.shape)
    shape, strides = list(view.shape), list(view.strides)
    offset = view.offset + kept.start * strides[axis]
    shape[axis], strides[axis] = len(kept), strides[axis] * kept.step
    return View(view.buffer, offset, tuple(shape), tuple(strides))


def _split(work: Lowering, node: onnx.NodeProto) -> None:
    view, axis, begin = work.view(node.input[0]), attribute(node, "axis", 0), 0
    for name in node.output:
        size = work.shape(name)[axis]
        work.views[name] = _cut(view, axis, range(begin, begin + size))
        begin += size


def _concat(work: Lowering, node: onnx.NodeProto) -> None:
    shape, axis, begin = work.shape(node.output[0]), attribute(node, "axis"), 0
    whole_ = fresh(shape, work.kind(node.output[0]))
    for name in node.input:
        view = work.view(name)
        size = view.shape[axis]
        work.emit(Loop([view], _cut(whole_, axis, range(begin, begin + size)), node.name))
        begin += size
    work.give(node, whole_)


def _gather(work: Lowering, node: onnx.NodeProto) -> None:
    data, numbers = node.input
    axis = attribute(node, "axis", 0)
    known = work.constants.get(numbers)
    if known is not None and known.size == 1 and data not in work.constants:
        view = work.view(data)
        at = int(known.reshape(-1)[0]) % view.shape[axis]
        return _given_as(work, node, _cut(view, axis, range(at, at + 1)))
    table = work.view(data)
    if axis % len(table.shape) or len(table.shape) != 2:
        raise InputError(f"--target c: {node.name} gathers along axis {axis}, which has no form in C")
    index = work.view(numbers)
    output = fresh((*index.shape, table.shape[1]), table.buffer.kind)
    return work.give(node, work.emit(Lookup([table, index], output, node.name)))


def _given_as(work: Lowering, node: onnx.NodeProto, view: View) -> None:
    seen = view.reshaped(work.shape(node.output[0]))
    assert seen is not None, "dimensions of one element come and go freely"
    work.give(node, seen)


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
        return _given_as(work, node, view)
    output = fresh(kept, view.buffer.kind)
    work.emit(Reduce([view], output, node.name, how=how, axes=over, shape=view.shape))
    return _given_as(work, node, output)


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


# -- products --------------------------------------------------------------------------------------------


def _matmul(work: Lowering, node: onnx.NodeProto) -> None:
    left, right = node.input
    shape = work.shape(node.output[0])
    a, b = work.quantized.get(left), work.quantized.get(right)
    if a is not None and b is not None and isinstance(b.steps, np.ndarray) and b.steps.ndim == 2:
        return work.give(node, _integers(work, node, a, b, shape))
    known = work.constants.get(left)
    if known is not None and known.ndim == 2 and np.count_nonzero(known) < _SPARSE * known.size:
        view = work.dense(work.view(right))
        if len(view.shape) == 3 and view.shape[0] == 1:
            return work.give(node, _sparse(work, node, known, view, shape))
    return work.give(node, _product(work, node, work.view(left), work.view(right), shape))


def _product(work: Lowering, node: onnx.NodeProto, left: View, right: View, shape: tuple[int, ...]) -> View:
    if len(left.shape) < 2 or len(right.shape) < 2:
        raise InputError(f"--target c: {node.name} multiplies a vector, which has no form in C")
    left, right = work.dense(left), work.dense(right)
    batch = shape[:-2]
    order = work.output_order(node.output[0], len(shape))
    return work.emit(
        Product(
            [left.broadcast((*batch, *left.shape[-2:])), right.broadcast((*batch, *right.shape[-2:]))],
            fresh(shape, order=order),
            node.name,
        )
    )


def _sparse(work: Lowering, node: onnx.NodeProto, known: np.ndarray, view: View, shape: tuple[int, ...]) -> View:
    rows, columns = np.nonzero(known)
    begins = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(known)))])
    parts = [work.stored(begins), work.stored(columns), work.stored(known[rows, columns])]
    return work.emit(SparseProduct([*parts, view], fresh(shape), node.name))


def packed(steps: np.ndarray) -> np.ndarray:
    """int8[K, N] as int8[N / 16, K / 4, 16, 4], filled up with zeros: four rows of a column lie side by side."""
    K, N = steps.shape
    steps = np.pad(steps, ((0, -K % DEPTH), (0, -N % COLUMNS)))
    return steps.reshape(-1, DEPTH, steps.shape[1] // COLUMNS, COLUMNS).transpose(2, 0, 3, 1)


def _integers(work: Lowering, node: onnx.NodeProto, a: Quantized, b: Quantized, shape: tuple[int, ...]) -> View:
    assert isinstance(a.steps, View)
    assert isinstance(b.steps, np.ndarray)
    columns = -(-b.steps.shape[1] // COLUMNS) * COLUMNS
    sums = np.pad(b.steps.astype(np.int32).sum(0), (0, columns - b.steps.shape[1]))
    scales = np.broadcast_to(b.scale.reshape(-1), b.steps.shape[1])
    known = [work.stored(each) for each in (packed(b.steps), sums, a.scale, scales)]
    known[1].buffer.only = "HRM_VNNI"
    return work.emit(IntProduct([a.steps, *known], fresh(shape), node.name, depth=b.steps.shape[0]))


def _quantize(work: Lowering, node: onnx.NodeProto) -> None:
    """To int8, the zero point taken off: rounded half to even, and clamped as the graph clamps."""
    view = work.view(node.input[0])
    scale, zero = _scale_and_zero(work, node)
    low, high = (-128, 127) if zero.dtype == np.int8 else (0, 255)
    point = int(zero.reshape(-1)[0]) if zero.size else 0
    bounds = (low - point, high - point)
    if scale.size != 1 or bounds != (-128, 127):
        raise InputError(f"--target c: {node.name} rounds to {zero.dtype} with zero point {point}; int8 and 0 do")
    if len(view.shape) and view.shape[-1] % DEPTH:  # rows that begin at whole words
        width = view.shape[-1] + -view.shape[-1] % DEPTH
        output = _cut(fresh((*view.shape[:-1], width), "int8_t"), -1, range(view.shape[-1]))
    else:
        output = fresh(view.shape, "int8_t")
    steps = (Step("div", (0, 1)), Step("round", (-1,), "int8_t"))
    inputs = [each.broadcast(view.shape) for each in (view, work.stored(scale.reshape(())))]
    work.give(node, work.emit(Loop(inputs, output, node.name, steps=steps)))


def _dequantize(work: Lowering, node: onnx.NodeProto) -> None:
    scale, _ = _scale_and_zero(work, node)
    work.quantized[node.output[0]] = Quantized(work.view(node.input[0]), scale.reshape(()))


def stored_steps(work: Lowering, node: onnx.NodeProto) -> bool:
    """A DequantizeLinear of a constant: kept as steps where they are int8 about zero, with a scale a column."""
    steps = work.constants[node.input[0]]
    scale, zero = _scale_and_zero(work, node)
    axis = attribute(node, "axis", 1) % max(steps.ndim, 1)
    by_column = scale.size == 1 or axis == steps.ndim - 1
    if steps.dtype != np.int8 or steps.ndim != 2 or zero.any() or not by_column or attribute(node, "block_size", 0):
        return False
    work.quantized[node.output[0]] = Quantized(steps, scale)
    return True


def _scale_and_zero(work: Lowering, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray]:
    scale = work.array(node.input[1], f"the scale of {node.name}")
    zero = work.array(node.input[2], "a zero point") if len(node.input) > 2 and node.input[2] else None
    return scale, np.zeros((), np.uint8) if zero is None else zero


def _gemm(work: Lowering, node: onnx.NodeProto) -> None:
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1:
        raise InputError(
            f"--target c: {node.name} is a Gemm with factors or a turned input, which has no form in C"
        )
    weight = work.array(node.input[1], f"the weight of {node.name}")
    right = work.stored(np.ascontiguousarray(weight.T if attribute(node, "transB", 0) else weight))
    shape = work.shape(node.output[0])
    made = _product(work, node, work.view(node.input[0]), right, shape)
    if len(node.input) > 2 and node.input[2]:
        made = work.loop([made, work.view(node.input[2])], shape, Step("add", (0, 1)))
    work.give(node, made)


def _conv(work: Lowering, node: onnx.NodeProto) -> None:
    weight = work.array(node.input[1], f"the weight of {node.name}")
    one = weight.ndim == 3  # along a line: a grid of one row
    view, shape = work.view(node.input[0]), work.shape(node.output[0])
    bias = work.array(node.input[2], "a bias") if len(node.input) > 2 and node.input[2] else None
    facts = {name: _pair(attribute(node, name, None), one) for name in ("strides", "dilations")}
    pads = list(attribute(node, "pads", [0] * (2 * (weight.ndim - 2))))
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or weight.ndim not in (3, 4):
        raise InputError(f"--target c: {node.name} is a convolution whose form has none in C")
    begins = tuple([0, *pads[:1]] if one else pads[:2])
    groups = attribute(node, "group", 1)
    depthwise = weight.shape[1] == 1 and groups == len(weight) == view.shape[1]
    if depthwise and weight.size == len(weight) and shape == view.shape and not any(pads):
        parts = [weight] + ([bias] if bias is not None else [])
        inputs = [work.stored(part.reshape(-1, *[1] * (len(shape) - 2))) for part in parts]
        steps = [Step("mul", (0, 1)), Step("add", (-1, 2))][: len(parts)]
        return work.give(node, work.loop([view, *inputs], shape, *steps, name=node.name))
    kernel = (1, *weight.shape[2:]) if one else weight.shape[2:]
    stored = weight.reshape(*weight.shape[:2], *kernel)
    if depthwise:
        stored = stored[:, 0].transpose(1, 2, 0)
    if one:
        view = View(view.buffer, view.offset, _as_grid(view.shape), (*view.strides[:2], 0, view.strides[2]))
    if depthwise and view.strides[1] != 1:  # channels side by side, for a vector unit
        view = work.emit(Loop([view], fresh(view.shape, order=(0, 2, 3, 1))))
    grid = _as_grid(shape) if one else shape
    output = fresh(grid, order=(0, 2, 3, 1) if view.strides[1] == 1 else None)
    inputs = [view, work.stored(np.ascontiguousarray(stored)), *([] if bias is None else [work.stored(bias)])]
    work.emit(
        Convolution(
            inputs, output, node.name, groups, kernel, begins, facts["strides"], facts["dilations"], depthwise
        )
    )
    return _given_as(work, node, output)


def _as_grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``[B, C, W]`` as a grid of one line."""
    return (*shape[:2], 1, shape[2])


def _pair(values: Any, one: bool) -> tuple[int, int]:
    if values is None:
        return (1, 1)
    return (1, values[0]) if one else (values[0], values[1])


FORMS: dict[str, Form] = {
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
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
