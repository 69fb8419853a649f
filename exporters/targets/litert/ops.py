"""What each ONNX operator of our graphs becomes in TensorFlow Lite: one small function an operator.

Forms are those that the XNNPACK delegate takes, wherever there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ...graph.edit import attribute, ensure
from ...graph.lowering import Emit, Few, norm_of

if TYPE_CHECKING:
    from .lowering import LiteRTLowering

_VALID = 1  # the schema's Padding without any


def _plain(code: str, **options: Any) -> Emit:
    """The same operator by another name, on the same operands."""
    return lambda low, node: low.make(code, node, *map(low.var, node.input), **options)


def _mul(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    """A gain of ones, which other backends know a norm by, is nothing here."""
    for gain, x in (node.input, reversed(node.input)):
        known = low.known(gain)
        if known is not None and (known == 1).all() and low.shape(x) == low.shape(node.output[0]):
            return low.var(x)
    return _plain("MUL")(low, node)


def _div(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    """x / sqrt(mean(x²) + eps), a norm, is x · rsqrt: a division less for every element."""
    found = norm_of(low, node)
    if found is None:
        return _plain("DIV")(low, node)
    eps, axes = found
    x, shape = low.var(node.input[0]), low.shape(node.input[0])
    mean_shape = low.shape(node.input[1])
    square = low.op("MUL", [x, x], low.new(f"{node.name}.square", shape))
    mean = low.op("MEAN", [square, low.ints(axes)], low.new(f"{node.name}.mean", mean_shape), keepDims=True)
    shifted = low.op("ADD", [mean, low.number(eps)], low.new(f"{node.name}.shifted", mean_shape))
    scale = low.op("RSQRT", [shifted], low.new(f"{node.name}.scale", mean_shape))
    return low.make("MUL", node, x, scale)


def _pow(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    exponent = low.known(node.input[1])
    if exponent is not None and exponent.size == 1 and float(exponent) == 2:
        x = low.var(node.input[0])
        return low.make("MUL", node, x, x)
    return _plain("POW")(low, node)


def _reciprocal(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    return low.make("DIV", node, low.number(1.0), low.var(node.input[0]))


def _matmul(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    left, right = node.input
    value = low.values[right]
    rounded = low.producers.get(left)
    if isinstance(value, Few) and rounded is not None and rounded.op_type == "DequantizeLinear":
        return _integer_product(low, node, low.var(rounded.input[0]))
    if isinstance(value, Few) or (isinstance(value, np.ndarray) and value.ndim == 2):
        return _fully_connected(low, node, low.turned(right))
    turned = low.producers.get(right)
    if turned is not None and turned.op_type == "Transpose":
        perm = list(attribute(turned, "perm"))
        if perm == [*range(len(perm) - 2), len(perm) - 1, len(perm) - 2]:
            return low.make("BATCH_MATMUL", node, low.var(left), low.var(turned.input[0]), adjY=True)
    return low.make("BATCH_MATMUL", node, low.var(left), low.var(right))


def _gemm(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    plain = all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta")) and not attribute(
        node, "transA", 0
    )
    ensure(plain, f"lower: {node.name} is more than x W + b")
    weight = low.turned(node.input[1], rows=bool(attribute(node, "transB", 0)))
    return low.make("FULLY_CONNECTED", node, low.var(node.input[0]), weight, *map(low.var, node.input[2:]))


def _integer_product(low: LiteRTLowering, node: onnx.NodeProto, x: int) -> Any:
    """int8 steps × int8 steps, rounded to int8 steps at once: the quantizer behind the product is part of it.

    The result has one scale in this format, and one a channel in the plan: the weight's own scales, one a channel,
    are divided by those, and what comes out, in steps, is multiplied with them (see ``_dequantize``).
    """
    rounding = low.reader_of(node.output[0], "QuantizeLinear")
    ensure(rounding is not None, f"lower: the result of {node.name} has no scale")
    assert rounding is not None
    weight = low.steps(node.input[1], low.array(rounding.input[1]))
    output = low.new(node.name, low.shape(node.output[0]), "int8", np.ones(1))
    made = low.op("FULLY_CONNECTED", [x, weight], output, keepNumDims=True)
    low.fused[rounding.output[0]] = made
    return made


def _fully_connected(low: LiteRTLowering, node: onnx.NodeProto, weight: int) -> Any:
    """A product with a stored weight; a vector that alone is added to it becomes its bias.

    Where the weight is int8, XNNPACK rounds each row of the input to int8 as it goes.
    """
    x = low.var(node.input[0])
    added = low.bias_of(node.output[0], low.shape(node.output[0])[-1])
    bias = [] if added is None else [low.var(next(n for n in added.input if n != node.output[0]))]
    output = low.new(node.name, low.shape(node.output[0]))
    made = low.op("FULLY_CONNECTED", [x, weight, *bias], output, keepNumDims=True)
    if added is not None:
        low.fused[added.output[0]] = made
    return made


def _conv(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    """A convolution over a sequence or a grid, with the channels last: ONNX has them second."""
    ensure(attribute(node, "auto_pad", b"NOTSET") == b"NOTSET", f"lower: {node.name} chooses its own padding")
    weight, (rows, channels, *size) = low.array(node.input[1]), low.shape(node.input[0])
    flat = len(size) == 1  # a sequence is a grid of one row
    places = len(size)
    pads = np.reshape(attribute(node, "pads", [0] * 2 * places), (2, places)).T
    strides, dilations = (list(attribute(node, name, [1] * places)) for name in ("strides", "dilations"))
    wide = list(low.shape(node.output[0])[2:])
    x = _channels_last(low, node.input[0])
    if flat:
        weight = weight[:, :, None]
        size, wide, strides, dilations = [1, *size], [1, *wide], [1, *strides], [1, *dilations]
        pads = np.vstack(([0, 0], pads))
    x = low.reshaped(x, [rows, *size, channels], low.new(f"{node.name}.grid", [rows, *size, channels]))
    if pads.any():
        size = [n + int(both.sum()) for n, both in zip(size, pads, strict=True)]
        around = np.vstack(([0, 0], pads, [0, 0])).astype(np.int32)
        padded = low.new(f"{node.name}.padded", [rows, *size, channels])
        x = low.op("PAD", [x, low.constant(around, f"{node.name}.pads")], padded)
    filters, each, *_ = weight.shape
    groups = attribute(node, "group", 1)
    how = {"padding": _VALID, "strideH": strides[0], "strideW": strides[1]}
    how |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
    if groups == channels and each == 1:
        code, weight = "DEPTHWISE_CONV_2D", weight.transpose(1, 2, 3, 0)
        how["depthMultiplier"] = filters // channels
    else:
        code, weight = "CONV_2D", weight.transpose(0, 2, 3, 1)
        ensure(groups == 1, f"lower: {node.name} has {groups} groups of {channels} channels")
    bias = (
        low.var(node.input[2])
        if len(node.input) > 2
        else low.constant(np.zeros(filters, np.float32), f"zeros/{filters}")
    )
    kernel = low.constant(np.ascontiguousarray(weight), node.input[1])
    y = low.op(code, [x, kernel, bias], low.new(f"{node.name}.places", [rows, *wide, filters]), **how)
    return _channels_second(low, node, y, [rows, *wide, filters])


def _channels_last(low: LiteRTLowering, name: str) -> int:
    """A value [B, C, …] as some tensor of [B, …, C], its places in one axis or several.

    Where the graph has just turned a sequence [B, S, C] round to make it, that sequence.
    """
    shape = low.shape(name)
    behind = low.producers.get(name)
    while behind is not None and behind.op_type == "Reshape" and low.shape(behind.input[0])[:2] == shape[:2]:
        behind = low.producers.get(behind.input[0])
    if behind is not None and behind.op_type == "Transpose" and list(attribute(behind, "perm")) == [0, 2, 1]:
        return low.var(behind.input[0])
    order = [0, *range(2, len(shape)), 1]
    turned = low.new(f"{name}.last", [shape[i] for i in order])
    return low.op("TRANSPOSE", [low.var(name), low.ints(order)], turned)


def _channels_second(low: LiteRTLowering, node: onnx.NodeProto, y: int, shape: list[int]) -> int:
    """The convolution's result as ONNX has it; where it is only turned back to a sequence, that sequence too."""
    rows, *_, channels = shape
    name = node.output[0]
    reader = low.reader_of(name, "Reshape")
    if reader is not None and low.shape(reader.output[0])[:2] == (rows, channels):
        name = reader.output[0]
    turned = low.reader_of(name, "Transpose")
    if turned is not None and list(attribute(turned, "perm")) == [0, 2, 1]:
        low.fused[turned.output[0]] = low.reshaped(y, low.shape(turned.output[0]), low.result(turned))
    outcome = low.shape(node.output[0])
    order = [0, len(shape) - 1, *range(1, len(shape) - 1)]
    second = low.op("TRANSPOSE", [y, low.ints(order)], low.new(f"{node.name}.second", [shape[i] for i in order]))
    return low.reshaped(second, outcome, low.result(node))


def _to_shape(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    """Reshape, Squeeze, Unsqueeze, Flatten: the same numbers in other dimensions."""
    return low.reshaped(low.var(node.input[0]), low.shape(node.output[0]), low.result(node))


def _transpose(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    return low.make("TRANSPOSE", node, low.var(node.input[0]), low.ints(attribute(node, "perm")))


def _concat(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    axis = attribute(node, "axis") % len(low.shape(node.output[0]))
    return low.make("CONCATENATION", node, *map(low.var, node.input), axis=axis)


def _slice(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    shape = low.shape(node.input[0])
    starts, ends = (low.array(name) for name in node.input[1:3])
    axes = low.array(node.input[3]) if len(node.input) > 3 else np.arange(len(starts))
    steps = low.array(node.input[4]) if len(node.input) > 4 else np.ones(len(starts), np.int64)
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, first, last, step in zip(axes, starts, ends, steps, strict=True):
        ensure(step > 0, f"lower: {node.name} runs backwards")
        begin[axis], end[axis], stride[axis] = slice(first, last, step).indices(shape[axis])
    x = low.var(node.input[0])
    if set(stride) == {1}:
        size = [last - first for first, last in zip(begin, end, strict=True)]
        return low.make("SLICE", node, x, low.ints(begin), low.ints(size))
    return low.make("STRIDED_SLICE", node, x, *map(low.ints, (begin, end, stride)))


def _gather(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    shape, index = low.shape(node.input[0]), low.known(node.input[1])
    axis = attribute(node, "axis", 0) % len(shape)
    x = low.var(node.input[0])
    if index is None or index.ndim:
        return low.make("GATHER", node, x, low.var(node.input[1]), axis=axis)
    # One index: a slice whose axis goes.
    begin = [int(index) % shape[axis] if i == axis else 0 for i in range(len(shape))]
    size = [1 if i == axis else n for i, n in enumerate(shape)]
    part = low.op("SLICE", [x, low.ints(begin), low.ints(size)], low.new(f"{node.name}.slice", size))
    return low.reshaped(part, low.shape(node.output[0]), low.result(node))


def _expand(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    shape = low.shape(node.output[0])
    return low.make("BROADCAST_TO", node, low.var(node.input[0]), low.ints(shape))


def _shape(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    shape = np.array(low.shape(node.input[0]), np.int64)
    return shape[slice(attribute(node, "start", 0), attribute(node, "end", None))]


def _reduce(code: str) -> Emit:
    def emit(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
        given = len(node.input) > 1 and node.input[1]
        rank = len(low.shape(node.input[0]))
        axes = [int(axis) % rank for axis in low.array(node.input[1])] if given else list(range(rank))
        keep = bool(attribute(node, "keepdims", 1))
        return low.make(code, node, low.var(node.input[0]), low.ints(axes), keepDims=keep)

    return emit


def _split(low: LiteRTLowering, node: onnx.NodeProto) -> list[Any]:
    shape = low.shape(node.input[0])
    axis, x, parts, first = attribute(node, "axis", 0) % len(shape), low.var(node.input[0]), [], 0
    for i, name in enumerate(node.output):
        size = list(low.shape(name))
        begin = [first if j == axis else 0 for j in range(len(shape))]
        parts.append(low.op("SLICE", [x, low.ints(begin), low.ints(size)], low.result(node, i)))
        first += size[axis]
    return parts


def _layer_norm(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    """(x − mean) · rsqrt(variance + eps) · gain + bias, in operators that the delegate takes."""
    x, shape = low.var(node.input[0]), low.shape(node.input[0])
    first = attribute(node, "axis", -1) % len(shape)
    axes, one = low.ints(range(first, len(shape))), [*shape[:first], *[1] * (len(shape) - first)]

    def made(code: str, inputs: list[int], part: str, size: Any, **options: Any) -> int:
        return low.op(code, inputs, low.new(f"{node.name}.{part}", size), **options)

    mean = made("MEAN", [x, axes], "mean", one, keepDims=True)
    centred = made("SUB", [x, mean], "centred", shape)
    square = made("MUL", [centred, centred], "square", shape)
    variance = made("MEAN", [square, axes], "variance", one, keepDims=True)
    shifted = made("ADD", [variance, low.number(attribute(node, "epsilon", 1e-5))], "shifted", one)
    scale = made("RSQRT", [shifted], "scale", one)
    normed, gain, bias = made("MUL", [centred, scale], "normed", shape), low.var(node.input[1]), node.input[2:]
    if not bias:
        return low.make("MUL", node, normed, gain)
    return low.make("ADD", node, made("MUL", [normed, gain], "scaled", shape), low.var(bias[0]))


def _gelu(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    exact = attribute(node, "approximate", b"none") == b"none"
    return low.make("GELU", node, low.var(node.input[0]), approximate=not exact)


def _softmax(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    last = len(low.shape(node.input[0])) - 1
    ensure(attribute(node, "axis", -1) in (-1, last), f"lower: {node.name} is not over the last dimension")
    return low.make("SOFTMAX", node, low.var(node.input[0]), beta=1.0)


def _argmax(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    from ai_edge_litert.schema_py_generated import TensorType

    shape = low.shape(node.input[0])
    axis = attribute(node, "axis", 0) % len(shape)
    found = low.new(f"{node.name}.index", [n for i, n in enumerate(shape) if i != axis], "int32")
    low.op("ARG_MAX", [low.var(node.input[0]), low.ints([axis])], found, outputType=TensorType.INT32)
    return low.reshaped(found, low.shape(node.output[0]), low.result(node))


def _clip(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    x = low.var(node.input[0])
    for code, bound in zip(("MAXIMUM", "MINIMUM"), node.input[1:], strict=False):
        if bound:
            name = node.output[0]
            x = low.op(code, [x, low.var(bound)], low.new(f"{name}.{code}", low.shape(name), low.dtype(name)))
    return x


def _identity(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    return low.values[node.input[0]]


def _quantize(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    scale = low.array(node.input[1])
    ensure(scale.ndim == 0 and not low.array(node.input[2]).any(), f"lower: {node.name} is not one symmetric scale")
    name = node.output[0]
    return low.op("QUANTIZE", [low.var(node.input[0])], low.new(name, low.shape(name), "int8", scale.reshape(1)))


def _dequantize(low: LiteRTLowering, node: onnx.NodeProto) -> Any:
    scale, zero = low.array(node.input[1]), low.array(node.input[2])
    ensure(not zero.any(), f"lower: {node.name} has a zero point")
    data = low.known(node.input[0])
    if data is not None:
        return Few(node.input[0], data, scale, attribute(node, "axis", 1), attribute(node, "block_size", 0))
    x = low.var(node.input[0])
    if scale.ndim == 0:
        return low.make("DEQUANTIZE", node, x)
    return low.make("MUL", node, low.dequantized(x, node.name), low.constant(scale, node.input[1]))


EMIT: dict[str, Emit] = {
    "Abs": _plain("ABS"),
    "Add": _plain("ADD"),
    "And": _plain("LOGICAL_AND"),
    "ArgMax": _argmax,
    "Cast": _plain("CAST"),
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Cos": _plain("COS"),
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Equal": _plain("EQUAL"),
    "Exp": _plain("EXP"),
    "Expand": _expand,
    "Flatten": _to_shape,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _plain("GREATER"),
    "GreaterOrEqual": _plain("GREATER_EQUAL"),
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "Less": _plain("LESS"),
    "LessOrEqual": _plain("LESS_EQUAL"),
    "MatMul": _matmul,
    "Max": _plain("MAXIMUM"),
    "Min": _plain("MINIMUM"),
    "Mul": _mul,
    "Neg": _plain("NEG"),
    "Not": _plain("LOGICAL_NOT"),
    "Or": _plain("LOGICAL_OR"),
    "Pow": _pow,
    "QuantizeLinear": _quantize,
    "Reciprocal": _reciprocal,
    "ReduceMax": _reduce("REDUCE_MAX"),
    "ReduceMean": _reduce("MEAN"),
    "ReduceMin": _reduce("REDUCE_MIN"),
    "ReduceSum": _reduce("SUM"),
    "Relu": _plain("RELU"),
    "Reshape": _to_shape,
    "Shape": _shape,
    "Sigmoid": _plain("LOGISTIC"),
    "Sin": _plain("SIN"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain("SQRT"),
    "Squeeze": _to_shape,
    "Sub": _plain("SUB"),
    "Tanh": _plain("TANH"),
    "Transpose": _transpose,
    "Unsqueeze": _to_shape,
    "Where": _plain("SELECT_V2"),
}
