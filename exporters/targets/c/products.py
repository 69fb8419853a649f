"""The C form of what multiplies matrices, in float and in int8: products, convolutions, and their quantizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ....errors import InputError
from ...graph.edit import attribute
from .ir import PANEL, Convolution, IntProduct, Loop, Product, SparseProduct, Step, View, fresh
from .lowering import Form, Lowering, Quantized

# Columns that an int8 weight is stored for are a multiple of this, rows of 4: what vector units multiply at once.
COLUMNS, DEPTH = 16, 4
# A constant that is multiplied from the left is stored by its entries where fewer than this are not zero.
_SPARSE = 0.3


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
    left, batch = work.dense(left), shape[:-2]
    made = fresh(shape, order=work.output_order(node.output[0], len(shape)))
    if left.as_rows() and made.as_rows() and _packs(work, node, right):
        assert right.buffer.data is not None
        weight = work.stored(in_panels(right.buffer.data.reshape(right.shape)))
        return work.emit(Product([left, weight], made, node.name, packed=True))
    right = work.dense(right)
    inputs = [each.broadcast((*batch, *each.shape[-2:])) for each in (left, right)]
    return work.emit(Product(inputs, made, node.name))


def _packs(work: Lowering, node: onnx.NodeProto, right: View) -> bool:
    """Whether a weight is stored in panels: where none is half empty, and nothing reads the weight as it stands."""
    readers = work.readers[node.input[1]]
    alike = all(reader.op_type == node.op_type and reader.input[0] != node.input[1] for reader in readers)
    known = right.buffer.data is not None and right.whole and len(right.shape) == 2
    return known and alike and not right.shape[1] % PANEL


def in_panels(weight: np.ndarray) -> np.ndarray:
    """float32[K, N] as float32[N / 16, K, 16]: what is multiplied at once is read from one place to the next."""
    K, N = weight.shape
    return weight.reshape(K, N // PANEL, PANEL).transpose(1, 0, 2)


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
        output = fresh((*view.shape[:-1], width), "int8_t").cut(-1, range(view.shape[-1]))
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
    return work.give_as(node, output)


def _as_grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``[B, C, W]`` as a grid of one line."""
    return (*shape[:2], 1, shape[2])


def _pair(values: Any, one: bool) -> tuple[int, int]:
    if values is None:
        return (1, 1)
    return (1, values[0]) if one else (values[0], values[1])


FORMS: dict[str, Form] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
