"""Products of an ML program: of matrices, and over a grid."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from .ops import Call, Kernel, kind


@kind("matmul", "x", "y")
def _matmul(call: Call) -> Kernel:
    turn_x, turn_y = call.flag("transpose_x"), call.flag("transpose_y")

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # A vector has nothing to transpose.
        x = x.swapaxes(-1, -2) if turn_x and x.ndim > 1 else x
        y = y.swapaxes(-1, -2) if turn_y and y.ndim > 1 else y
        if x.ndim > 2 and y.ndim == 2:
            return (x.reshape(-1, x.shape[-1]) @ y).reshape(*x.shape[:-1], y.shape[-1])
        return x @ y

    return kernel


@kind("linear", "x", "weight", "bias?")
def _linear(call: Call) -> Kernel:
    def kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        y = x.reshape(-1, x.shape[-1]) @ weight.T  # one product for all rows, however many axes they have
        if bias is not None:
            y += bias
        return y.reshape(*x.shape[:-1], weight.shape[0])

    return kernel


@kind("conv", "x", "weight", "bias?")
def _conv(call: Call) -> Kernel:
    """Over two axes, each group of channels by itself: x[B, C, H, W], weight[C', C / groups, h, w]."""
    groups = call.integer("groups", 1)
    pad = call.integers("pad", np.zeros(4, np.int32)) if call.text("pad_type") == "custom" else None
    strides, dilations = (call.integers(name, np.ones(2, np.int32)) for name in ("strides", "dilations"))
    if pad is None or len(pad) != 4 or strides != (1, 1) or dilations != (1, 1):
        raise InputError(f"{call.where}: only steps of one over two axes are supported, with padding that is given")
    above, below, left, right = pad

    def kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        out, per_group, high, wide = weight.shape
        padded = np.pad(x, ((0, 0), (0, 0), (above, below), (left, right)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (high, wide), axis=(2, 3))
        seen = seen.reshape(len(x), groups, per_group, *seen.shape[2:])
        taps = weight.reshape(groups, out // groups, per_group, high, wide)
        y = np.einsum("bgcxyhw,gochw->bgoxy", seen, taps, optimize=True).reshape(len(x), out, *seen.shape[3:5])
        return y if bias is None else y + bias[:, None, None]

    return kernel
