"""Precisions: one record each, from which the exporters, the audit, the gate and the command line derive.

A new precision is a record here, its name in the targets that can write it (`exporters/targets`), and, where it
stores weights in a new way, the algorithm (`exporters/quantize`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import InputError

# float: every number is of one type. products: weights and what they are multiplied with are integers.
# weights: only what is stored has few bits. palette: weights are indices into a table of a few values.
# Each but float has its algorithm in `exporters/quantize`.
Family = Literal["float", "products", "weights", "palette"]
# What `--help` says of a family.
FAMILIES: dict[Family, str] = {
    "products": "weights and matrix products",
    "weights": "stored small, computed in float",
}

# Half a point of 400 puzzles is two of them: enough where hardly an answer changes. Fewer bits change more answers
# either way, and it takes more puzzles to see half a point among them.
_FEW_CHANGE, _MANY_CHANGE = 400, 1000

_QAT = "tune the checkpoint with `hrm-edge train --qat`"


@dataclass(frozen=True)
class Precision:
    """What is true of one precision.

    ``stored``: type of a stored weight, of ``bits`` each. ``left``, ``right``: types that the operands of a
    compiled product may have (input and weight; the audit fails on others); None: any. ``gate_puzzles``: how many
    the gate asks by default. ``instead``: what to try when the bundle answers worse; empty: nothing is more exact.
    """

    name: str
    family: Family
    stored: str
    bits: int
    left: frozenset[str] | None
    right: frozenset[str]
    gate_puzzles: int
    instead: str

    @property
    def calibrated(self) -> bool:
        """Whether a plan is made for it from puzzles that are rolled out in float."""
        return self.family != "float"

    @property
    def quantizes_inputs(self) -> bool:
        """Whether what a weight is multiplied with is rounded too, so that each call of a layer has a scale."""
        return self.family == "products"

    @property
    def is_full(self) -> bool:
        """Whether it computes as the float reference does, so that nothing can have been lost."""
        return self.stored == "float32"

    @property
    def q_tolerance(self) -> float:
        """How far a value of ``q`` may be from another device's on the same puzzle, after as many segments.

        Sums in another order move it by some 1e-5 in float32. Where values are rounded to few bits, one that
        falls to the other side is carried through every segment that follows: the INT8 products of `sudoku-9x9`
        in float, in place of integers, moved it by up to 0.35 in nine of ten puzzles, and by 1.5 in the tenth.
        """
        return 0.01 if self.is_full else 0.5

    def advice(self, dropped: bool) -> str:
        """The end of the line that says a bundle answers otherwise than it may. ``dropped``: it solves fewer."""
        more = ", or allow more with --max-drop" if dropped else ""
        return f"; {self.instead}{more}" if self.instead else ""


def _float(name: str, dtype: str, bits: int, instead: str) -> Precision:
    types = frozenset({dtype})
    return Precision(name, "float", dtype, bits, types, types, _FEW_CHANGE, instead)


def _stored(name: str, family: Family, bits: int, types: set[str], instead: str) -> Precision:
    kind = name.removesuffix("-weights")
    return Precision(name, family, kind, bits, None, frozenset(types), _MANY_CHANGE, instead)


_INT8 = frozenset({"int8", "uint8"})
FP32 = _float("fp32", "float32", 32, "")
BF16 = _float("bf16", "bfloat16", 16, "export --precision fp16")
_ALL = (
    FP32,
    _float("fp16", "float16", 16, "export --precision fp32"),
    BF16,
    Precision("int8", "products", "int8", 8, _INT8, _INT8, _MANY_CHANGE, _QAT),
    _stored("int8-weights", "weights", 8, {"int8", "uint8"}, "export --precision fp16"),
    _stored("int4-weights", "weights", 4, {"int4", "uint4"}, "export --precision int8-weights"),
    _stored("palette6-weights", "palette", 6, {"palette6"}, "export --precision int8-weights"),
    _stored("palette4-weights", "palette", 4, {"palette4"}, "export --precision palette6-weights"),
)
PRECISIONS = {precision.name: precision for precision in _ALL}


def precision_named(name: str) -> Precision:
    """The record of a precision. Raises InputError where there is none of that name."""
    if name not in PRECISIONS:
        raise InputError(f"--precision {name}: unknown; choose {' or '.join(PRECISIONS)}")
    return PRECISIONS[name]
