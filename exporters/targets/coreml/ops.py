"""What each ONNX operator of our graphs becomes in Core ML's MIL: one small function an operator.

The operators that the tracer, the quantizers and the halting loop write are here, and those of common networks.
 A value is a MIL variable,
a numpy array where it is known (stored weights, shapes), or a :class:`Few` where it is stored in few bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from ....errors import InputError
from ...graph.edit import attribute, ensure
from ...graph.lowering import Few, norm_of
from .weights import safe

if TYPE_CHECKING:
    from .lowering import Lowering

# What a norm's input is multiplied by in float16: squares up to (8 · 255)² then fit, and small ones still count.
_SHRINK = 0.125
# A step may change by this part of it when it is stored in float16.
_SCALE_TOLERANCE = 0.02

Emit = Callable[["Lowering", onnx.NodeProto], Any]  # the one output, or a list of all


def _binary(op: str) -> Emit:
    return lambda low, node: low.make(op, node, x=low.var(node.input[0]), y=low.var(node.input[1]))


def _clip(low: Lowering, node: onnx.NodeProto) -> Any:
    """Of whole numbers, which the device's own ``clip`` does not take."""
    x, low_end, high_end = map(low.var, node.input)
    return low.make("minimum", node, x=low.op("maximum", x=x, y=low_end), y=high_end)


def _unary(op: str) -> Emit:
    return lambda low, node: low.make(op, node, x=low.var(node.input[0]))


def _mul(low: Lowering, node: onnx.NodeProto) -> Any:
    """x · sigmoid(x) is one operator, which every unit of the device has."""
    for gate, x in (node.input, reversed(node.input)):
        producer = low.producers.get(gate)
        if producer is not None and producer.op_type == "Sigmoid" and producer.input[0] == x:
            return low.make("silu", node, x=low.var(x))
    return _binary("mul")(low, node)


def _div(low: Lowering, node: onnx.NodeProto) -> Any:
    """x / sqrt(mean(x²) + eps), a norm, is x · rsqrt: one pass less, and no division."""
    found = norm_of(low, node)
    if found is None:
        return _binary("real_div")(low, node)
    eps, axes = found
    stem = low.prefix + safe(node.name)
    x = low.var(node.input[0])
    if low.numbers.half:  # x² is not to leave float16's range; a power of two rounds nothing
        x, eps = low.op("mul", x=x, y=low.number(_SHRINK), name=f"{stem}_small"), eps * _SHRINK**2
    square = low.op("square", x=x, name=f"{stem}_square")
    mean = low.op("reduce_mean", x=square, axes=axes, keep_dims=True, name=f"{stem}_mean")
    scale = low.op("rsqrt", x=mean, epsilon=low.number(eps), name=f"{stem}_scale")
    return low.make("mul", node, x=x, y=scale)


def _pow(low: Lowering, node: onnx.NodeProto) -> Any:
    exponent = low.known(node.input[1])
    if exponent is not None and exponent.size == 1 and float(exponent) == 2:
        return low.make("square", node, x=low.var(node.input[0]))
    return _binary("pow")(low, node)


def _neg(low: Lowering, node: onnx.NodeProto) -> Any:
    return low.make("mul", node, x=low.var(node.input[0]), y=low.number(-1.0))


def _matmul(low: Lowering, node: onnx.NodeProto) -> Any:
    left, right = node.input
    if isinstance(low.values[right], np.ndarray | Few):
        x, weight = low.var(left), low.weight(right)
        added = low.bias_of(node.output[0], weight.shape[0])
        if added is None:
            return low.make("linear", node, x=x, weight=weight)
        # Core ML's own passes would do the same, and call the product after the sum.
        made = low.make("linear", node, x=x, weight=weight, bias=low.var(added.input[1]))
        low.fused[added.output[0]] = made
        return made
    return low.make("matmul", node, x=low.var(left), y=low.var(right))


def _gemm(low: Lowering, node: onnx.NodeProto) -> Any:
    plain = all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta")) and not attribute(
        node, "transA", 0
    )
    ensure(plain, f"lower: {node.name} is more than x W + b")
    weight = low.weight(node.input[1], turned=bool(attribute(node, "transB", 0)))
    bias = {"bias": low.var(node.input[2])} if len(node.input) > 2 else {}
    return low.make("linear", node, x=low.var(node.input[0]), weight=weight, **bias)


def _conv(low: Lowering, node: onnx.NodeProto) -> Any:
    """A convolution over a sequence or a grid."""
    ensure(attribute(node, "auto_pad", b"NOTSET") == b"NOTSET", f"lower: {node.name} chooses its own padding")
    x, weight, *bias = (low.var(name) for name in node.input)
    pads = attribute(node, "pads", [0] * (2 * (x.rank - 2)))
    before, after = np.reshape(pads, (2, -1))  # of all axes; MIL wants both sides axis by axis
    pad = [int(n) for n in np.stack((before, after), axis=1).flat]
    ones = [1] * len(before)
    how = {
        "strides": attribute(node, "strides", ones),
        "dilations": attribute(node, "dilations", ones),
        "groups": attribute(node, "group", 1),
        **dict(zip(("bias",), bias, strict=False)),
    }
    return low.make("conv", node, x=x, weight=weight, pad_type="custom", pad=pad, **how)


def _reshape(low: Lowering, node: onnx.NodeProto) -> Any:
    shape = low.array(node.input[1])
    x = low.var(node.input[0])
    if not attribute(node, "allowzero", 0):
        shape = np.array([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])
    count = int(np.prod(x.shape))
    rest = int(np.prod(shape[shape >= 0]))
    return low.make("reshape", node, x=x, shape=[count // rest if n < 0 else int(n) for n in shape])


def _transpose(low: Lowering, node: onnx.NodeProto) -> Any:
    return low.make("transpose", node, x=low.var(node.input[0]), perm=list(attribute(node, "perm")))


def _concat(low: Lowering, node: onnx.NodeProto) -> Any:
    return low.make("concat", node, values=[low.var(name) for name in node.input], axis=attribute(node, "axis"))


def _slice(low: Lowering, node: onnx.NodeProto) -> Any:
    x = low.var(node.input[0])
    starts, ends = (low.array(name) for name in node.input[1:3])
    axes = low.array(node.input[3]) if len(node.input) > 3 else np.arange(len(starts))
    steps = low.array(node.input[4]) if len(node.input) > 4 else np.ones(len(starts), np.int64)
    begin, end, stride = [0] * x.rank, list(x.shape), [1] * x.rank
    for axis, first, last, step in zip(axes, starts, ends, steps, strict=True):
        ensure(step > 0, f"lower: {node.name} runs backwards")
        begin[axis], end[axis], stride[axis] = slice(first, last, step).indices(x.shape[axis])
    return low.make("slice_by_index", node, x=x, begin=begin, end=end, stride=stride)


def _gather(low: Lowering, node: onnx.NodeProto) -> Any:
    axis = attribute(node, "axis", 0)
    x, index = low.var(node.input[0]), low.known(node.input[1])
    if index is None or index.ndim:
        return low.make("gather", node, x=x, indices=low.var(node.input[1]), axis=axis)
    # One index: a slice, whose axis goes. Masks keep what they name whole.
    there = [i == axis % x.rank for i in range(x.rank)]
    begin = [int(index) % x.shape[axis] if here else 0 for here in there]
    whole = [not here for here in there]
    end = [first + 1 if here else size for first, here, size in zip(begin, there, x.shape, strict=True)]
    return low.make("slice_by_index", node, x=x, begin=begin, end=end, end_mask=whole, squeeze_mask=there)


def _expand(low: Lowering, node: onnx.NodeProto) -> Any:
    x, shape = low.var(node.input[0]), [int(n) for n in low.array(node.input[1])]
    ensure(len(shape) >= x.rank, f"lower: {node.name} gives fewer dimensions than it takes")
    if len(shape) > x.rank:
        x = low.op("reshape", x=x, shape=[1] * (len(shape) - x.rank) + list(x.shape))
    # Either side may hold a 1.
    reps = [1 if have == want or want == 1 else want for have, want in zip(x.shape, shape, strict=True)]
    return low.make("tile", node, x=x, reps=reps) if max(reps) > 1 else low.make("identity", node, x=x)


def _unsqueeze(low: Lowering, node: onnx.NodeProto) -> Any:
    axes = sorted(int(axis) for axis in low.array(node.input[1]))
    return low.make("expand_dims", node, x=low.var(node.input[0]), axes=axes)


def _shape(low: Lowering, node: onnx.NodeProto) -> Any:
    shape = np.array(low.var(node.input[0]).shape, np.int64)
    return shape[slice(attribute(node, "start", 0), attribute(node, "end", None))]


def _reduce(op: str) -> Emit:
    """Reductions to a single number keep one dimension: this device has no rank 0."""

    def emit(low: Lowering, node: onnx.NodeProto) -> Any:
        x = low.var(node.input[0])
        given = len(node.input) > 1 and node.input[1]
        axes = [int(axis) for axis in low.array(node.input[1])] if given else list(range(x.rank))
        keep = bool(attribute(node, "keepdims", 1))
        if keep or len(axes) < x.rank:
            return low.make(op, node, x=x, axes=axes, keep_dims=keep)
        return low.make("reshape", node, x=low.op(op, x=x, axes=axes, keep_dims=True), shape=[1])

    return emit


def _squeeze(low: Lowering, node: onnx.NodeProto) -> Any:
    x = low.var(node.input[0])
    axes = low.array(node.input[1]) if len(node.input) > 1 else np.flatnonzero(np.array(x.shape) == 1)
    return low.make("squeeze", node, x=x, axes=[int(axis) for axis in axes])


def _flatten(low: Lowering, node: onnx.NodeProto) -> Any:
    x, axis = low.var(node.input[0]), attribute(node, "axis", 1)
    return low.make("reshape", node, x=x, shape=[int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))])


def _split(low: Lowering, node: onnx.NodeProto) -> list[Any]:
    x, axis = low.var(node.input[0]), attribute(node, "axis", 0)
    if len(node.input) > 1:
        sizes = [int(size) for size in low.array(node.input[1])]
    else:
        whole, count = x.shape[axis], len(node.output)
        each = -(-whole // count)  # the last one may be smaller
        sizes = [min(each, whole - each * i) for i in range(count)]
    parts, first = [], 0
    for size, output in zip(
        sizes, node.output, strict=True
    ):  # one operator a part: the others have one output each
        begin, end = [0] * x.rank, list(x.shape)
        begin[axis], end[axis] = first, first + size
        parts.append(low.op("slice_by_index", x=x, begin=begin, end=end, name=low.prefix + safe(output)))
        first += size
    return parts


def _layer_norm(low: Lowering, node: onnx.NodeProto) -> Any:
    x, gain, *bias = (low.var(name) for name in node.input)
    axes = list(range(attribute(node, "axis", -1) % x.rank, x.rank))
    more = dict(zip(("beta",), bias, strict=False))
    epsilon = low.number(attribute(node, "epsilon", 1e-5))
    return low.make("layer_norm", node, x=x, axes=axes, gamma=gain, epsilon=epsilon, **more)


def _reciprocal(low: Lowering, node: onnx.NodeProto) -> Any:
    """As a division: the device's own operator adds something to what it inverts."""
    return low.make("real_div", node, x=low.number(1.0), y=low.var(node.input[0]))


def _gelu(low: Lowering, node: onnx.NodeProto) -> Any:
    exact = attribute(node, "approximate", b"none") == b"none"
    return low.make("gelu", node, x=low.var(node.input[0]), mode="EXACT" if exact else "TANH_APPROXIMATION")


def _argmax(low: Lowering, node: onnx.NodeProto) -> Any:
    axis, keep = attribute(node, "axis", 0), bool(attribute(node, "keepdims", 1))
    return low.make("reduce_argmax", node, x=low.var(node.input[0]), axis=axis, keep_dims=keep)


def _softmax(low: Lowering, node: onnx.NodeProto) -> Any:
    return low.make("softmax", node, x=low.var(node.input[0]), axis=attribute(node, "axis", -1))


def _where(low: Lowering, node: onnx.NodeProto) -> Any:
    condition, a, b = (low.var(name) for name in node.input)
    return low.make("select", node, cond=condition, a=a, b=b)


def _cast(low: Lowering, node: onnx.NodeProto) -> Any:
    kinds = {TensorProto.INT32: "int32", TensorProto.INT64: "int32", TensorProto.BOOL: "bool"}
    kinds |= {TensorProto.FLOAT: low.numbers.dtype, TensorProto.FLOAT16: "fp16"}
    return low.make("cast", node, x=low.var(node.input[0]), dtype=kinds[attribute(node, "to")])


def _quantize(low: Lowering, node: onnx.NodeProto) -> Any:
    scale = low.array(node.input[1])
    ensure(scale.ndim == 0 and not low.array(node.input[2]).any(), f"lower: {node.name} is not one symmetric scale")
    x = low.var(node.input[0])
    return low.make("quantize", node, input=x, scale=_step(low, scale, node), output_dtype="int8")


def _dequantize(low: Lowering, node: onnx.NodeProto) -> Any:
    scale, zero = low.array(node.input[1]), low.array(node.input[2])
    ensure(not zero.any(), f"lower: {node.name} has a zero point")
    data = low.known(node.input[0])
    if data is not None:
        return Few(node.input[0], data, scale, attribute(node, "axis", 1), attribute(node, "block_size", 0))
    ensure(scale.ndim == 0, f"lower: {node.name} has a scale for each channel of a computed value")
    return low.make("dequantize", node, input=low.var(node.input[0]), scale=_step(low, scale, node))


def _step(low: Lowering, scale: np.ndarray, node: onnx.NodeProto) -> Any:
    """A quantizer's step. Raises InputError where float16 would make another of it."""
    step = low.number(float(scale))
    if not abs(float(step) / float(scale) - 1) < _SCALE_TOLERANCE:
        raise InputError(
            f"{node.name}: an int8 step is {float(scale):.3g}, which float16 cannot hold; "
            "export with --precision fp16"
        )
    return step


EMIT: dict[str, Emit] = {
    "Abs": _unary("abs"),
    "Add": _binary("add"),
    "And": _binary("logical_and"),
    "ArgMax": _argmax,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Cos": _unary("cos"),
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Equal": _binary("equal"),
    "Erf": _unary("erf"),
    "Exp": _unary("exp"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _binary("greater"),
    "GreaterOrEqual": _binary("greater_equal"),
    "Identity": _unary("identity"),
    "LayerNormalization": _layer_norm,
    "Less": _binary("less"),
    "LessOrEqual": _binary("less_equal"),
    "MatMul": _matmul,
    "Max": _binary("maximum"),
    "Min": _binary("minimum"),
    "Mul": _mul,
    "Neg": _neg,
    "Not": _unary("logical_not"),
    "Or": _binary("logical_or"),
    "Pow": _pow,
    "QuantizeLinear": _quantize,
    "Reciprocal": _reciprocal,
    "ReduceMax": _reduce("reduce_max"),
    "ReduceMean": _reduce("reduce_mean"),
    "ReduceMin": _reduce("reduce_min"),
    "ReduceSum": _reduce("reduce_sum"),
    "Relu": _unary("relu"),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _unary("sigmoid"),
    "Sin": _unary("sin"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _unary("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _binary("sub"),
    "Tanh": _unary("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
