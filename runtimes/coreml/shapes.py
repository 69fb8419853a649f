"""Operations of an ML program that only move values, or unpack stored ones: numpy twins of their definitions."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from .ops import Call, Kernel, kind
from .package import unpacked


@kind("transpose", exact=True)
def _transpose(call: Call) -> Kernel:
    perm = call.integers("perm")
    return lambda x: x.transpose(perm)


@kind("reshape", "x", "shape", exact=True)
def _reshape(call: Call) -> Kernel:
    def kernel(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
        sizes = shape.tolist()
        if 0 in sizes and x.size:  # 0: the same size as in x, counted from the right
            old = (1,) * (len(sizes) - x.ndim) + x.shape
            sizes = [size or old[i - len(sizes)] for i, size in enumerate(sizes)]
        return x.reshape(sizes)

    return kernel


@kind("squeeze", exact=True)
def _squeeze(call: Call) -> Kernel:
    axes = call.integers("axes", None)
    return lambda x: np.squeeze(x, axes)


@kind("expand_dims", exact=True)
def _expand_dims(call: Call) -> Kernel:
    axes = call.integers("axes") or ()
    return lambda x: np.expand_dims(x, axes)


@kind("concat", "*values", exact=True)
def _concat(call: Call) -> Kernel:
    axis = call.integer("axis")
    if call.flag("interleave"):
        raise InputError(f"{call.where}: 'interleave' is not supported")
    return lambda *values: np.concatenate(values, axis)


@kind("slice_by_index", "x", "begin", "end", exact=True)
def _slice_by_index(call: Call) -> Kernel:
    stride, from_start, to_end, single = (
        call.integers(name, None) for name in ("stride", "begin_mask", "end_mask", "squeeze_mask")
    )

    def index(begin: np.ndarray, end: np.ndarray) -> tuple[int | slice, ...]:
        parts: list[int | slice] = []
        for axis, (first, last) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
            if single and single[axis]:
                parts.append(first)
                continue
            low = None if from_start and from_start[axis] else first
            high = None if to_end and to_end[axis] else last
            parts.append(slice(low, high, stride[axis] if stride else 1))
        return tuple(parts)

    begin, end = call.constants.get("begin"), call.constants.get("end")
    if isinstance(begin, np.ndarray) and isinstance(end, np.ndarray):
        known = index(begin, end)
        return lambda x, begin, end: x[known]
    return lambda x, begin, end: x[index(begin, end)]


@kind("gather", "x", "indices", exact=True)
def _gather(call: Call) -> Kernel:
    axis = call.integer("axis", 0)
    if call.integer("batch_dims", 0):
        raise InputError(f"{call.where}: 'batch_dims' is not supported")
    return lambda x, indices: np.take(x, indices, axis)


# Quantization. Rounding is to the nearest, ties to even.


@kind("quantize", "input")
def _quantize(call: Call) -> Kernel:
    dtype = call.dtype
    limits = np.iinfo(dtype)
    scale, zero_point = call.parameter("scale"), call.parameter("zero_point", None)
    axis = call.parameter("axis", None)

    def kernel(x: np.ndarray) -> np.ndarray:
        y = np.rint(x / _along(scale, x, axis))
        if zero_point is not None:
            y += _along(zero_point, x, axis)
        return np.clip(y, limits.min, limits.max).astype(dtype)

    return kernel


@kind("dequantize", "input")
def _dequantize(call: Call) -> Kernel:
    scale, zero_point = call.parameter("scale"), call.parameter("zero_point", None)
    axis = call.parameter("axis", None)
    return lambda x: _dequantized(x, scale, zero_point, axis)


def _dequantized(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None, axis: object) -> np.ndarray:
    y = x.astype(np.float32)
    if zero_point is not None:
        y -= _along(zero_point, x, axis).astype(np.float32)
    return y * _along(scale, x, axis)


def _along(values: np.ndarray, x: np.ndarray, axis: object) -> np.ndarray:
    """A vector of numbers, one for each position along an axis of x, shaped to go with x."""
    if values.ndim == 0:
        return values
    if axis is None:
        raise ValueError("has several scales, but does not say along which axis")
    shape = [1] * x.ndim
    shape[int(axis)] = len(values)  # type: ignore[call-overload]
    return values.reshape(shape)


# Compressed weights, decoded once: their inputs are constants, and so is the result.


@kind("constexpr_affine_dequantize", "quantized_data")
def _constexpr_affine_dequantize(call: Call) -> Kernel:
    scale, zero_point, axis = (call.parameter(name) for name in ("scale", "zero_point", "axis"))
    return lambda x: _dequantized(x, scale, zero_point, axis)


@kind("constexpr_blockwise_shift_scale", "data", "scale", "offset?")
def _constexpr_blockwise_shift_scale(call: Call) -> Kernel:
    def kernel(data: np.ndarray, scale: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
        y = data.astype(np.float32)
        if offset is not None:
            y -= _spread(offset, data.shape)
        return y * _spread(scale, data.shape)

    return kernel


def _spread(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One number for each block of a tensor → one for each of its elements."""
    for axis, (few, many) in enumerate(zip(values.shape, shape, strict=True)):
        if few == 0 or many % few:
            raise ValueError(f"{few} blocks do not divide {many} values")
        if few != many:
            values = np.repeat(values, many // few, axis)
    return values


@kind("constexpr_lut_to_dense", "indices", "lut", "shape?", exact=True)
def _constexpr_lut_to_dense(call: Call) -> Kernel:
    if "shape" in call.inputs:
        return _packed_lut
    if call.parameter("vector_axis", None) is not None:
        raise InputError(f"{call.where}: 'vector_axis' is not supported")
    return lambda indices, lut, _: _lut(indices, lut)


def _packed_lut(indices: np.ndarray, lut: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Before iOS 18: one table for all, its indices packed into bytes."""
    bits = len(lut).bit_length() - 1
    if len(lut) != 2**bits or bits not in (1, 2, 4, 6, 8):
        raise ValueError(f"its table has {len(lut)} entries")
    sizes = shape.tolist()
    count = int(np.prod(sizes))
    if len(indices) != -(-count * bits // 8):
        raise ValueError(f"has {len(indices)} bytes of indices for {count} values")
    entries = indices if bits == 8 else unpacked(indices, f"uint{bits}", count)
    return lut[entries].reshape(sizes)


def _lut(indices: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """Since iOS 18: tables for blocks of a tensor."""
    entries, vector = lut.shape[-2:]
    if vector != 1:
        raise ValueError("has vectors as entries, but no axis to lay them along")
    blocks = lut.shape[:-2]
    # Which table each element belongs to: the tables are numbered in a tensor that is spread over the elements.
    table = _spread(np.arange(int(np.prod(blocks))).reshape(blocks), indices.shape)
    return lut.reshape(-1, entries)[table, indices]
