"""What a graph is lowered to: operations on views of buffers, each with one form in C.

A buffer is memory: a constant, a tensor that the caller's state keeps, or a place in the arena. A view reads or
writes it with strides, so slices, transposes and reshapes cost nothing. All shapes are those of one puzzle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

Kind = Literal["float", "int8_t", "int32_t"]
PANEL = 16  # columns of a float weight that lie together


@dataclass(eq=False)
class Buffer:
    """``size`` elements of a C type. ``data``: a constant's; ``field``: the member of the state where it stands.

    ``only``: the macro of the machines that need a constant; elsewhere it is not stored.
    """

    size: int
    kind: Kind = "float"
    data: np.ndarray | None = None
    field: str | None = None
    only: str | None = None

    @property
    def bytes(self) -> int:
        return self.size * (1 if self.kind == "int8_t" else 4)


class View(NamedTuple):
    """Elements ``offset + Σ index·stride`` of a buffer."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def geometry(self) -> tuple[Any, ...]:
        return self.offset, self.shape, self.strides, self.buffer.kind

    @property
    def contiguous(self) -> bool:
        return all(n == 1 or s == t for n, s, t in zip(self.shape, self.strides, _rising(self.shape), strict=True))

    @property
    def whole(self) -> bool:
        """Whether it is all of its buffer, in order."""
        return self.offset == 0 and self.contiguous and math.prod(self.shape) == self.buffer.size

    def transposed(self, order: Sequence[int]) -> View:
        return self._replace(
            shape=tuple(self.shape[i] for i in order), strides=tuple(self.strides[i] for i in order)
        )

    def broadcast(self, shape: Sequence[int]) -> View:
        """Read as ``shape``, as numpy broadcasts."""
        missing = len(shape) - len(self.shape)
        old, strides = (1,) * missing + self.shape, (0,) * missing + self.strides
        return self._replace(
            shape=tuple(shape),
            strides=tuple(0 if n == 1 != m else s for n, m, s in zip(old, shape, strides, strict=True)),
        )

    def cut(self, axis: int, kept: range) -> View:
        """Of one dimension those that are ``kept``."""
        axis %= len(self.shape)
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + kept.start * strides[axis]
        shape[axis], strides[axis] = len(kept), strides[axis] * kept.step
        return View(self.buffer, offset, tuple(shape), tuple(strides))

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """The same elements in the same order; None where strides can not say that."""
        kept = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        strides: list[int] = []
        sizes = list(shape)
        while kept or any(n != 1 for n in sizes):
            count = 1
            run: list[int] = []
            old: list[tuple[int, int]] = []
            while sizes and (not run or count < math.prod(n for n, _ in old)):
                run.append(sizes.pop(0))
                count *= run[-1]
                while kept and math.prod(n for n, _ in old) < count:
                    old.append(kept.pop(0))
            if any(a[1] != b[0] * b[1] for a, b in pairwise(old)):
                return None
            step = old[-1][1] if old else 0
            made: list[int] = []
            for n in reversed(run):
                made.append(step)
                step *= n
            strides += reversed(made)
        strides += [0] * len(sizes)
        return self._replace(shape=tuple(shape), strides=tuple(strides))

    def as_rows(self) -> tuple[int, int, int, int] | None:
        """(rows, width, stride of a row, stride in it), all leading dimensions taken as one; None: they are not."""
        width, step = (self.shape[-1], self.strides[-1]) if self.shape else (1, 0)
        leading = [(n, s) for n, s in zip(self.shape[:-1], self.strides[:-1], strict=True) if n != 1]
        for (_, outer), (n, inner) in pairwise(leading):
            if outer != n * inner:
                return None
        rows = math.prod(n for n, _ in leading)
        return rows, width, leading[-1][1] if leading else 0, step

    def in_rows(self) -> tuple[int, int, int, int]:
        """:meth:`as_rows` of a view that is known to be rows."""
        found = self.as_rows()
        assert found is not None
        return found


def _rising(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return strides[::-1]


def whole(buffer: Buffer, shape: Sequence[int]) -> View:
    """All of a buffer, in C's order."""
    return View(buffer, 0, tuple(shape), tuple(_rising(shape)))


def fresh(shape: Sequence[int], kind: Kind = "float", order: Sequence[int] | None = None) -> View:
    """A view of a new buffer. ``order``: dimensions from the slowest to the fastest, where not as they stand."""
    shape = tuple(shape)
    order = list(range(len(shape)) if order is None else order)
    view = whole(Buffer(math.prod(shape), kind), [shape[i] for i in order])
    return view.transposed(np.argsort(order).tolist())


def constant(array: np.ndarray) -> View:
    """A view of a constant: float32, int8 or (of any other integers and of truth) int32."""
    kind: Kind = "float" if array.dtype.kind == "f" else "int8_t" if array.dtype == np.int8 else "int32_t"
    types = {"float": np.float32, "int8_t": np.int8, "int32_t": np.int32}
    if kind == "int32_t":
        array = np.clip(array.astype(np.int64), -(2**31), 2**31 - 1)
    data = np.ascontiguousarray(array.astype(types[kind]))
    return whole(Buffer(data.size, kind, data.reshape(-1)), array.shape)


class Step(NamedTuple):
    """One function on scalars. ``args``: inputs of the operation by number, or earlier steps as ``-1 - number``."""

    function: str
    args: tuple[int, ...]
    kind: Kind = "float"


@dataclass(eq=False)
class Op:
    """Reads ``inputs`` and writes ``output``; ``name``: of the graph's node."""

    inputs: list[View]
    output: View
    name: str = ""
    attributes: ClassVar[tuple[str, ...]] = ()

    def key(self) -> tuple[Any, ...]:
        """Equal for operations that differ in their buffers alone."""
        views = tuple(view.geometry for view in (*self.inputs, self.output))
        constants = tuple(view.buffer.data is not None for view in self.inputs)
        return type(self).__name__, tuple(getattr(self, name) for name in self.attributes), views, constants


@dataclass(eq=False)
class Loop(Op):
    """The last of some steps, for every element of the output; without steps, a copy."""

    steps: tuple[Step, ...] = ()
    attributes = ("steps",)


@dataclass(eq=False)
class Reduce(Op):
    """The steps' result over ``shape``, summed, averaged, … over ``axes``; the output keeps these as 1."""

    how: str = "sum"
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    attributes = ("how", "axes", "shape", "steps")


@dataclass(eq=False)
class Softmax(Op):
    """Over the last dimension."""


@dataclass(eq=False)
class Product(Op):
    """``[…, M, K] @ […, K, N]`` in float; columns lie side by side in all three.

    ``packed``: the right one is a constant, stored as ``[N / 16, K, 16]``.
    """

    packed: bool = False
    attributes = ("packed",)


@dataclass(eq=False)
class IntProduct(Op):
    """int8 ``[…, M, K]`` @ packed int8 ``[K, N]``, summed in int32, times both scales.

    Inputs: the steps, the packed weight, its columns' sums, the scale of the steps, the columns' scales.
    """

    depth: int = 0  # K
    attributes = ("depth",)


@dataclass(eq=False)
class SparseProduct(Op):
    """A constant ``[M, K]``, mostly zero, @ ``[K, N]``. Inputs: where rows begin, columns, values; ``[K, N]``."""


@dataclass(eq=False)
class Convolution(Op):
    """Inputs: ``[1, C, H, W]``, weight ``[O, C / groups, kH, kW]`` (depthwise ``[kH, kW, C]``), perhaps a bias."""

    groups: int = 1
    kernel: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    depthwise: bool = False
    attributes = ("groups", "kernel", "pads", "strides", "dilations", "depthwise")


@dataclass(eq=False)
class Lookup(Op):
    """Rows of a table by their numbers. Inputs: ``table[V, D]``, numbers."""


@dataclass
class Program:
    """A lowered graph: operations in order, and the view of every output by name."""

    ops: list[Op] = field(default_factory=list)
    outputs: dict[str, View] = field(default_factory=dict)
