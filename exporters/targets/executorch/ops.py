"""What each ONNX operator of our graphs becomes in torch, in forms that XNNPACK takes: one function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from ...graph.edit import attribute, ensure
from ...graph.lowering import Emit, Few, norm_of

if TYPE_CHECKING:
    from .lowering import TorchLowering


def _plain(function: Callable[..., Any]) -> Emit:
    return lambda low, node: function(*map(low.var, node.input))


def _mul(low: TorchLowering, node: onnx.NodeProto) -> Any:
    """A gain of ones, which other backends know a norm by, is nothing here."""
    for gain, x in (node.input, reversed(node.input)):
        known = low.known(gain)
        if known is not None and (known == 1).all() and known.ndim <= low.var(x).ndim and low.known(x) is None:
            return low.var(x)
    return low.var(node.input[0]) * low.var(node.input[1])


def _mean_of_last(low: TorchLowering, x: Tensor) -> Tensor:
    """As a product with a stored row: XNNPACK takes that, and means of four dimensions alone."""
    width = x.shape[-1]
    return F.linear(x, low.module.stored(f"mean of {width}", np.full((1, width), 1 / width, np.float32)))


def _div(low: TorchLowering, node: onnx.NodeProto) -> Any:
    found = norm_of(low, node)
    if found is None or found[1] not in ([-1], [len(low.shape(node.input[0])) - 1]):
        return low.var(node.input[0]) / low.var(node.input[1])
    x = low.var(node.input[0])
    return x * torch.rsqrt(_mean_of_last(low, x * x) + found[0])


def _pow(low: TorchLowering, node: onnx.NodeProto) -> Any:
    exponent, x = low.known(node.input[1]), low.var(node.input[0])
    if exponent is not None and exponent.size == 1 and float(exponent) == 2:
        return x * x
    return x ** low.var(node.input[1])


def _matmul(low: TorchLowering, node: onnx.NodeProto) -> Any:
    left, right = node.input
    value = low.values[right]
    if isinstance(value, Few):
        return _integer_product(low, node)
    if isinstance(value, np.ndarray) and value.ndim == 2:
        x, weight = low.var(left), low.turned(right)
        added = low.bias_of(node.output[0], len(weight))
        if added is None:
            return F.linear(x, weight)
        bias = next(name for name in added.input if name != node.output[0])
        low.fused[added.output[0]] = made = F.linear(x, weight, low.var(bias))
        return made
    b, known = low.var(right), low.known(left)
    if known is not None and known.ndim == 2 and b.ndim == 3:
        return torch.bmm(_in_every_row(low, left, known, len(b)), b)
    a = low.var(left)
    if a.ndim == b.ndim > 2 and a.shape[:-2] == b.shape[:-2]:
        rows = [each.reshape(-1, *each.shape[-2:]) for each in (a, b)]
        return torch.bmm(*rows).reshape(*a.shape[:-1], b.shape[-1])
    return torch.matmul(a, b)


def _in_every_row(low: TorchLowering, name: str, matrix: np.ndarray, rows: int) -> Tensor:
    """A stored matrix for each row: XNNPACK takes products of batches, and ``matmul`` copies what it repeats."""
    return low.module.stored(f"{name} in {rows} rows", np.repeat(matrix[None], rows, axis=0))


def _integer_product(low: TorchLowering, node: onnx.NodeProto) -> Any:
    """int8 steps × int8 steps, rounded to int8 steps at once: the quantizer behind the product is part of it.

    The result has one scale for XNNPACK, and one a channel in the plan: the weight's own are divided by those, and
    what comes out, in steps, is multiplied with them (see ``_dequantize``).
    """
    rounding = low.reader_of(node.output[0], "QuantizeLinear")
    ensure(rounding is not None, f"lower: the result of {node.name} has no scale")
    assert rounding is not None
    product = F.linear(low.var(node.input[0]), low.steps(node.input[1], low.array(rounding.input[1])))
    low.fused[rounding.output[0]] = made = low.rounded(product, 1.0)
    return made


def _gemm(low: TorchLowering, node: onnx.NodeProto) -> Any:
    plain = all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta")) and not attribute(
        node, "transA", 0
    )
    ensure(plain, f"lower: {node.name} is more than x W + b")
    weight = low.turned(node.input[1], rows=bool(attribute(node, "transB", 0)))
    return F.linear(low.var(node.input[0]), weight, *map(low.var, node.input[2:]))


def _conv(low: TorchLowering, node: onnx.NodeProto) -> Any:
    ensure(attribute(node, "auto_pad", b"NOTSET") == b"NOTSET", f"lower: {node.name} chooses its own padding")
    x, weight, *bias = map(low.var, node.input)
    places = x.ndim - 2
    before, after = np.reshape(attribute(node, "pads", [0] * 2 * places), (2, places))
    if not (before == after).all():
        both = [int(n) for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]
        x, before = F.pad(x, both), np.zeros(places, np.int64)
    convolve = {1: F.conv1d, 2: F.conv2d}[places]
    ones = [1] * places
    return convolve(
        x,
        weight,
        bias[0] if bias else None,
        stride=list(attribute(node, "strides", ones)),
        padding=[int(n) for n in before],
        dilation=list(attribute(node, "dilations", ones)),
        groups=attribute(node, "group", 1),
    )


def _reshape(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x, shape = low.var(node.input[0]), low.array(node.input[1])
    if not attribute(node, "allowzero", 0):
        shape = np.array([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])
    return x.reshape([int(n) for n in shape])


def _transpose(low: TorchLowering, node: onnx.NodeProto) -> Any:
    return low.var(node.input[0]).permute(list(attribute(node, "perm")))


def _concat(low: TorchLowering, node: onnx.NodeProto) -> Any:
    return torch.cat([low.var(name) for name in node.input], dim=attribute(node, "axis"))


def _slice(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x = low.var(node.input[0])
    starts, ends = (low.array(name) for name in node.input[1:3])
    axes = low.array(node.input[3]) if len(node.input) > 3 else np.arange(len(starts))
    steps = low.array(node.input[4]) if len(node.input) > 4 else np.ones(len(starts), np.int64)
    for axis, first, last, step in zip(axes, starts, ends, steps, strict=True):
        ensure(step > 0, f"lower: {node.name} runs backwards")
        begin, end, stride = slice(first, last, step).indices(x.shape[axis])
        x = torch.ops.aten.slice.Tensor(x, int(axis) % x.ndim, begin, end, stride)
    return x


def _gather(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x, index, axis = low.var(node.input[0]), low.known(node.input[1]), attribute(node, "axis", 0)
    if index is not None and not index.ndim:
        at = int(index) % x.shape[axis]
        axis %= x.ndim
        return x.narrow(axis, at, 1).reshape([*x.shape[:axis], *x.shape[axis + 1 :]])  # no copy, as squeezing is
    numbers = low.var(node.input[1])
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(numbers, x)
    picked = torch.index_select(x, axis, numbers.reshape(-1).to(torch.int64))
    axis %= x.ndim
    return picked.reshape([*x.shape[:axis], *numbers.shape, *x.shape[axis + 1 :]])


def _expand(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x = low.var(node.input[0])
    shape = torch.broadcast_shapes(x.shape, [int(n) for n in low.array(node.input[1])])
    return x.expand(shape).clone()


def _unsqueeze(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x, axes = low.var(node.input[0]), low.array(node.input[1])
    rank = x.ndim + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x = low.var(node.input[0])
    axes = low.array(node.input[1]) if len(node.input) > 1 else np.flatnonzero(np.array(x.shape) == 1)
    return x.squeeze([int(axis) for axis in axes])


def _flatten(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x, axis = low.var(node.input[0]), attribute(node, "axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))


def _shape(low: TorchLowering, node: onnx.NodeProto) -> Any:
    shape = np.array(low.shape(node.input[0]), np.int64)
    return shape[slice(attribute(node, "start", 0), attribute(node, "end", None))]


def _reduce(function: Callable[..., Tensor]) -> Emit:
    def emit(low: TorchLowering, node: onnx.NodeProto) -> Any:
        x = low.var(node.input[0])
        given = len(node.input) > 1 and node.input[1]
        axes = [int(axis) for axis in low.array(node.input[1])] if given else list(range(x.ndim))
        return function(x, axes, bool(attribute(node, "keepdims", 1)))

    return emit


def _mean(low: TorchLowering, node: onnx.NodeProto) -> Any:
    """Over the last dimension or, of three, the second: as a product, which XNNPACK takes."""
    x = low.var(node.input[0])
    given = len(node.input) > 1 and node.input[1]
    axes = [int(axis) % x.ndim for axis in low.array(node.input[1])] if given else list(range(x.ndim))
    keep = bool(attribute(node, "keepdims", 1))
    if keep and axes == [x.ndim - 1]:
        return _mean_of_last(low, x)
    if keep and axes == [1] and x.ndim == 3:
        length = x.shape[1]
        mean = np.full((1, length), 1 / length, np.float32)
        return torch.bmm(_in_every_row(low, f"mean over {length}", mean, len(x)), x)
    return x.mean(axes, keep)


def _split(low: TorchLowering, node: onnx.NodeProto) -> list[Any]:
    x, axis = low.var(node.input[0]), attribute(node, "axis", 0)
    if len(node.input) > 1:
        sizes = [int(size) for size in low.array(node.input[1])]
    else:
        each = -(-x.shape[axis] // len(node.output))  # the last one may be smaller
        sizes = [min(each, x.shape[axis] - each * i) for i in range(len(node.output))]
    return list(x.split(sizes, dim=axis))


def _layer_norm(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x, gain, *bias = map(low.var, node.input)
    first = attribute(node, "axis", -1) % x.ndim
    epsilon = attribute(node, "epsilon", 1e-5)
    if first < x.ndim - 1:
        return F.layer_norm(x, x.shape[first:], gain, bias[0] if bias else None, epsilon)
    centred = x - _mean_of_last(low, x)
    normed = centred * torch.rsqrt(_mean_of_last(low, centred * centred) + epsilon) * gain
    return normed + bias[0] if bias else normed


def _gelu(low: TorchLowering, node: onnx.NodeProto) -> Any:
    exact = attribute(node, "approximate", b"none") == b"none"
    return F.gelu(low.var(node.input[0]), approximate="none" if exact else "tanh")


def _softmax(low: TorchLowering, node: onnx.NodeProto) -> Any:
    return torch.softmax(low.var(node.input[0]), dim=attribute(node, "axis", -1))


def _argmax(low: TorchLowering, node: onnx.NodeProto) -> Any:
    return torch.argmax(low.var(node.input[0]), attribute(node, "axis", 0), bool(attribute(node, "keepdims", 1)))


def _clip(low: TorchLowering, node: onnx.NodeProto) -> Any:
    x = low.var(node.input[0])
    low_end, high_end = (low.array(name).item() if name else None for name in (*node.input[1:], "", "")[:2])
    return torch.clamp(x, low_end, high_end)


def _cast(low: TorchLowering, node: onnx.NodeProto) -> Any:
    kinds = {onnx.TensorProto.INT32: torch.int32, onnx.TensorProto.INT64: torch.int64}
    kinds |= {onnx.TensorProto.BOOL: torch.bool, onnx.TensorProto.FLOAT: low.dtype}
    return low.var(node.input[0]).to(kinds[attribute(node, "to")])


def _quantize(low: TorchLowering, node: onnx.NodeProto) -> Any:
    scale = low.array(node.input[1])
    ensure(scale.ndim == 0 and not low.array(node.input[2]).any(), f"lower: {node.name} is not one symmetric scale")
    return low.rounded(low.var(node.input[0]), float(scale))


def _dequantize(low: TorchLowering, node: onnx.NodeProto) -> Any:
    scale, zero = low.array(node.input[1]), low.array(node.input[2])
    ensure(not zero.any(), f"lower: {node.name} has a zero point")
    data = low.known(node.input[0])
    if data is not None:
        return Few(node.input[0], data, scale, attribute(node, "axis", 1), attribute(node, "block_size", 0))
    x = low.var(node.input[0])
    if scale.ndim == 0:
        return low.widened(x, float(scale))
    return low.widened(x, 1.0) * low.module.stored(node.input[1], scale)


EMIT: dict[str, Emit] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "ArgMax": _argmax,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Cos": _plain(torch.cos),
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "Identity": lambda low, node: low.values[node.input[0]],
    "LayerNormalization": _layer_norm,
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "MatMul": _matmul,
    "Max": _plain(torch.maximum),
    "Min": _plain(torch.minimum),
    "Mul": _mul,
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "Pow": _pow,
    "QuantizeLinear": _quantize,
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _mean,
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Sin": _plain(torch.sin),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(torch.where),
}
