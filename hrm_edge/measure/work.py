"""What one segment has to compute and to move at the least, and how long that takes at a machine's ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Of one segment. ``flops``: of the products of one row by the precision of their operands, a multiply-add two.

    ``weight_bytes``: of the products' stored operands as they are stored, each as often as it is read;
    ``row_bytes``: of all else that products read and write, for each row. What a cache spares is not known here.
    """

    flops: Mapping[str, int]
    weight_bytes: int
    row_bytes: int

    def seconds_of_products(self, rows: int, ceilings: Mapping[str, float]) -> float | None:
        """Seconds at ``ceilings``, operations a second by precision; None where one is not known."""
        if not self.flops or any(not ceilings.get(precision) for precision in self.flops):
            return None
        return sum(rows * flops / ceilings[precision] for precision, flops in self.flops.items())

    def bytes(self, rows: int) -> int:
        """Read and written by a segment of ``rows``."""
        return self.weight_bytes + rows * self.row_bytes
