"""How a product's stored weight is written in MIL: as floats, as int8 or int4 steps, or as a table and indices.

``linear`` reads a weight as [N, K]; our graphs store it as [K, N]. What is stored in few bits stays so in the file:
a ``constexpr`` operator widens it where the model is loaded or run, as the device prefers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....bundle.quantization import BLOCKS
from ....errors import InputError
from ...graph.lowering import Few

_BLOCKS = tuple(block.replace(".", "_") for block in BLOCKS)  # as safe() spells them
_HALF_MAX = float(np.finfo(np.float16).max)


def safe(name: str) -> str:
    """A name as MIL has them: letters, digits and underscores."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


@dataclass(frozen=True)
class Numbers:
    """How floats are computed and stored. ``ios``: the oldest system; ``bits`` of palettized weights, or None."""

    half: bool = False
    ios: int = 17
    bits: int | None = None

    @property
    def dtype(self) -> str:
        """As MIL spells it."""
        return "fp16" if self.half else "fp32"

    def stored(self, array: np.ndarray, name: str) -> np.ndarray:
        """The array in a dtype that MIL has; raises InputError when float16 cannot hold it."""
        if array.dtype == np.int64:
            return np.clip(array, -(2**31), 2**31 - 1).astype(np.int32)
        if array.dtype != np.float32 or not self.half:
            return array
        if not np.abs(array).max(initial=0) <= _HALF_MAX:
            raise InputError(
                f"weight {name} has values that float16 cannot hold (above {_HALF_MAX:g}); "
                "export with --precision fp32"
            )
        return array.astype(np.float16)


def emit_weight(weight: Few | np.ndarray, name: str, numbers: Numbers, turned: bool = False) -> Any:
    """A MIL variable [N, K] that holds ``weight`` [K, N] (``turned``: [N, K] already) under ``name``."""
    from coremltools.converters.mil import Builder as mb

    if isinstance(weight, Few):
        return _emit_steps(weight, name, numbers)
    rows = np.ascontiguousarray(weight if turned else weight.T)
    if numbers.bits is not None and name.startswith(_BLOCKS):
        return _emit_table(rows, name, numbers)
    return mb.const(val=numbers.stored(rows, name), name=name)


def _emit_steps(weight: Few, name: str, numbers: Numbers) -> Any:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    four, steps = weight.steps.dtype.name == "int4", np.ascontiguousarray(weight.steps.astype(np.int8).T)
    scale = numbers.stored(np.ascontiguousarray(weight.scale.T), weight.name)
    if numbers.ios >= 18:
        data = steps.astype(types.np_int4_dtype) if four else steps
        columns = scale if weight.block else scale[:, None]
        return mb.constexpr_blockwise_shift_scale(data=data, scale=columns, name=name)
    if four or weight.block:
        raise InputError("--precision int4-weights needs --ios 18")
    zero = np.zeros(len(scale), np.int8)
    return mb.constexpr_affine_dequantize(quantized_data=steps, zero_point=zero, scale=scale, axis=0, name=name)


def _emit_table(rows: np.ndarray, name: str, numbers: Numbers) -> Any:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    assert numbers.bits is not None
    levels, indices = np.unique(rows, return_inverse=True)
    if len(levels) > 2**numbers.bits:
        raise InputError(f"weight {name} has {len(levels)} different values, which {numbers.bits} bits cannot name")
    # A table is always full; its last level stands in for those that no weight has.
    table = numbers.stored(np.pad(levels, (0, 2**numbers.bits - len(levels)), mode="edge"), name)
    indices = indices.reshape(rows.shape).astype(np.uint8)
    if numbers.ios >= 18:
        kind = {4: types.np_uint4_dtype, 6: types.np_uint6_dtype}[numbers.bits]
        return mb.constexpr_lut_to_dense(indices=indices.astype(kind), lut=table.reshape(1, 1, -1, 1), name=name)
    shape = np.array(rows.shape, np.uint32)
    return mb.constexpr_lut_to_dense(indices=packed(indices, numbers.bits), lut=table, shape=shape, name=name)


def packed(indices: np.ndarray, bits: int) -> np.ndarray:
    """uint8[ceil(n · bits / 8)]: n indices one behind the other, each from its lowest bit on."""
    each = np.unpackbits(indices.reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(each.reshape(-1), bitorder="little")
