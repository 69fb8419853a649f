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
    """Over one axis or two, each group of channels by itself: x[B, C, *sizes], weight[C', C / groups, *kernel]."""
    groups = call.integer("groups", 1)
    custom = call.text("pad_type") == "custom"
    pad = call.integers("pad") if custom else None
    axes = len(pad) // 2 if pad else 0
    steps = [call.integers(name, np.ones(axes, np.int32)) for name in ("strides", "dilations")]
    if pad is None or len(pad) not in (2, 4) or any(step != (1,) * axes for step in steps):
        raise InputError(
            f"{call.where}: only steps of one over one or two axes are supported, with padding that is given"
        )
    sides = [(0, 0), (0, 0), *zip(pad[::2], pad[1::2], strict=True)]
    spatial = tuple(range(2, 2 + axes))
    # Axes of the sum: the channels of a group, and the places of the kernel.
    here, tap = "xy"[:axes], "hw"[:axes]
    sums = f"bgc{here}{tap},goc{tap}->bgo{here}"

    def kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        out, per_group, *sizes = weight.shape
        seen = np.lib.stride_tricks.sliding_window_view(np.pad(x, sides), sizes, axis=spatial)
        seen = seen.reshape(len(x), groups, per_group, *seen.shape[2:])
        taps = weight.reshape(groups, out // groups, per_group, *sizes)
        y = np.einsum(sums, seen, taps, optimize=True)
        y = y.reshape(len(x), out, *y.shape[3:])
        return y if bias is None else y + bias.reshape(-1, *[1] * axes)

    return kernel
