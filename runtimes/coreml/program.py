"""An ML program as plain dataclasses: functions, blocks, operations, and how its types are kept in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# Types that are packed without regard to bytes: bits of one value.
PACKED = {"int4": 4, "uint4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint6": 6}
# A damaged size must not fill the memory: elements of one value at most.
MAX_SIZE = 2**28


def storage_dtype(dtype: str) -> np.dtype:
    """The numpy type that values of a program's type are kept in: float16 as float32, int4 as int8."""
    if dtype == "float16":
        return np.dtype(np.float32)
    if dtype == "string":
        return np.dtype(object)  # of no array: texts are parameters only
    if dtype in PACKED:
        return np.dtype(np.int8 if dtype == "int4" else np.uint8)
    return np.dtype(dtype)


@dataclass(frozen=True)
class Value:
    """A named value of a program. ``shape``: None for a size only known when it runs. ``state``: kept by caller."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None  # None: not even the rank is known
    state: bool = False


@dataclass(frozen=True, eq=False)
class Constant:
    """A stored value: an array in :func:`storage_dtype` of ``dtype`` (of rank 0 for a scalar), or a string."""

    dtype: str
    value: np.ndarray | str


@dataclass(frozen=True)
class Operation:
    """One operation: what each input is bound to (names of values, or constants), and what it gives."""

    kind: str
    inputs: dict[str, tuple[str | Constant, ...]]
    outputs: tuple[Value, ...]
    blocks: tuple[Block, ...] = ()
    name: str = ""

    @property
    def where(self) -> str:
        """How messages call it."""
        name = self.outputs[0].name if self.outputs else self.name
        # A damaged file may call its operations anything; a message stays one line.
        return f"{self.kind if self.kind.isidentifier() else repr(self.kind)} {name!r}"


@dataclass(frozen=True)
class Block:
    """Operations in order; ``inputs`` are a loop's variables."""

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """A program's entry: ``inputs`` fed by the caller, those that are states kept by it."""

    name: str
    inputs: tuple[Value, ...]
    block: Block


@dataclass(frozen=True)
class Package:
    """A saved ML program."""

    path: Path
    functions: dict[str, Function] = field(repr=False)
    default: str = "main"

    @property
    def main(self) -> Function:
        """The function that runs unless another is asked for."""
        return self.functions[self.default]


def operations(block: Block, around: tuple[Block, ...] = ()) -> Iterator[tuple[Operation, tuple[Block, ...]]]:
    """Every operation of a block and of the blocks inside it, in order, with the blocks it stands in."""
    inside = (*around, block)
    for operation in block.operations:
        yield operation, inside
        for inner in operation.blocks:
            yield from operations(inner, inside)
