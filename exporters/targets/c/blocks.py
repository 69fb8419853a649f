"""What a segment does over and over becomes one function: found in the operations, whatever the network.

Two runs of operations are alike when they differ in nothing but the buffers that come from outside. These and the
constants in which the runs differ become the function's parameters, so code does not grow with the steps of a
segment, nor with its layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from .ir import Buffer, IntProduct, Op, Product, SparseProduct

PRODUCTS = (Product, IntProduct, SparseProduct)
# Shorter runs than this, or runs that save less, stay where they are.
_SHORTEST, _LEAST_SAVED = 4, 8


@dataclass(eq=False)
class Function:
    """``ops`` are those of the first call; its buffers and constants stand for the parameters."""

    number: int
    ops: list[Op]
    buffers: list[Buffer]
    constants: list[Buffer]
    written: set[Buffer]  # among the buffers
    instances: list[tuple[Buffer, ...]] = field(default_factory=list)  # distinct constants of the calls


@dataclass(eq=False)
class Call:
    """One call. ``names``: of its products, as the graph calls them here."""

    function: Function
    buffers: list[Buffer]
    constants: tuple[Buffer, ...]
    names: list[str]

    @property
    def instance(self) -> int:
        return self.function.instances.index(self.constants)


Item = Op | Call


def reads(item: Item) -> Iterator[Buffer]:
    """The buffers that are no constants and that an operation or a call reads."""
    if isinstance(item, Op):
        yield from (view.buffer for view in item.inputs if view.buffer.data is None)
        return
    for mine, theirs in zip(item.buffers, item.function.buffers, strict=True):
        if theirs not in item.function.written:
            yield mine


def writes(item: Item) -> Iterator[Buffer]:
    """The buffers that an operation or a call writes."""
    if isinstance(item, Op):
        yield item.output.buffer
        return
    for mine, theirs in zip(item.buffers, item.function.buffers, strict=True):
        if theirs in item.function.written:
            yield mine


def fold_repeats(ops: Sequence[Op], kept: set[Buffer]) -> tuple[list[Item], list[Function]]:
    """Operations, with calls in place of runs that come more than once. ``kept``: buffers that are read later."""
    items: list[Item] = list(ops)
    functions: list[Function] = []
    while (found := _best_run(items)) is not None:
        starts, length = found
        function, calls = _made(items, starts, length, kept, len(functions) + 1)
        functions.append(function)
        for start, call in reversed(list(zip(starts, calls, strict=True))):
            items[start : start + length] = [call]
    return items, functions


def _best_run(items: list[Item]) -> tuple[list[int], int] | None:
    """(where it begins each time, its length) of the run that saves most when it is written once."""
    born: dict[Buffer, int] = {}
    for i, item in enumerate(items):
        for buffer in writes(item):
            born.setdefault(buffer, i)
    numbers: dict[object, int] = {}
    # A call is like no other item.
    keys = [
        numbers.setdefault(item.key(), len(numbers)) if isinstance(item, Op) else -1 - i
        for i, item in enumerate(items)
    ]
    places = _places(items, born)
    alike = _same_keys(np.array(keys))
    best, saved = None, _LEAST_SAVED - 1
    for i in range(len(items)):
        ahead = alike.get(i, {})
        if len(items) - i - _SHORTEST <= saved or sum(ahead.values()) <= saved:
            continue  # it cannot save more
        runs = {j: _alike(places, i, j, most) for j, most in ahead.items()}
        for length in sorted(set(runs.values()), reverse=True):
            if length < _SHORTEST:
                break
            starts = [i]
            for j, most in runs.items():
                if most >= length and j >= starts[-1] + length:
                    starts.append(j)
            while len(starts) > 1 and starts[1] < i + length:
                starts.pop(1)
            if (len(starts) - 1) * length <= saved:
                continue
            starts = [i, *(j for j in starts[1:] if _renamed(items, i, j, length))]
            if (len(starts) - 1) * length > saved:
                best, saved = (starts, length), (len(starts) - 1) * length
    return best


def _renamed(items: list[Item], i: int, j: int, length: int) -> bool:
    """Whether the run at ``j`` is that at ``i`` with each buffer exchanged for one: a parameter has one value."""
    partners: dict[Buffer, Buffer] = {}
    for one, other in zip(items[i : i + length], items[j : j + length], strict=True):
        assert isinstance(one, Op)
        assert isinstance(other, Op)
        for a, b in zip((*one.inputs, one.output), (*other.inputs, other.output), strict=True):
            if partners.setdefault(a.buffer, b.buffer) is not b.buffer:
                return False
    return True


def _places(items: list[Item], born: dict[Buffer, int]) -> np.ndarray:
    """int64[n, slots]: which item makes each buffer that an operation reads or writes; -1: none, as constants."""
    rows = [
        [-1 if view.buffer.data is not None else born.get(view.buffer, -1) for view in (*item.inputs, item.output)]
        if isinstance(item, Op)
        else []
        for item in items
    ]
    places = np.full((len(rows), max(map(len, rows), default=0)), -1)
    for row, made in zip(places, rows, strict=True):
        row[: len(made)] = made
    return places


def _same_keys(keys: np.ndarray) -> dict[int, dict[int, int]]:
    """i → j → how many operations from ``i`` and from ``j`` on are of the same kinds, where enough are; i < j."""
    found: dict[int, dict[int, int]] = {}
    for apart in range(_SHORTEST, len(keys)):
        same = keys[:-apart] == keys[apart:]
        edges = np.flatnonzero(np.diff(same, prepend=False, append=False))
        for first, end in edges.reshape(-1, 2):
            for i in range(first, end - _SHORTEST + 1):
                found.setdefault(i, {})[i + apart] = min(end - i, apart)
    return found


def _alike(places: np.ndarray, i: int, j: int, most: int) -> int:
    """How many operations from ``i`` and ``j`` on are alike: of what was made at one place of both, or outside."""
    one, other = places[i : i + most], places[j : j + most]
    differ = ~np.where(one >= i, one - i == other - j, other < j).all(1)
    return int(differ.argmax()) if differ.any() else most


def _made(
    items: list[Item], starts: list[int], length: int, kept: set[Buffer], number: int
) -> tuple[Function, list[Call]]:
    """The function for some runs, and a call for each."""
    runs = [[op for op in items[start : start + length] if isinstance(op, Op)] for start in starts]
    inside = [{id(op) for op in run} for run in runs]
    outside = [
        {buffer for item in items if id(item) not in own for buffer in (*reads(item), *writes(item))} | kept
        for own in inside
    ]
    slots = [[view.buffer for op in run for view in (*op.inputs, op.output)] for run in runs]
    together = dict.fromkeys(zip(*slots, strict=True))  # the same buffer in every run, each once
    buffers, constants = [], []
    for each in together:
        if each[0].data is not None:
            if any(a is not b for a, b in pairwise(each)):
                constants.append(each)
        elif any(
            buffer.field is not None or buffer in others for buffer, others in zip(each, outside, strict=True)
        ):
            buffers.append(each)
    written = {op.output.buffer for op in runs[0]}
    function = Function(
        number,
        runs[0],
        [each[0] for each in buffers],
        [each[0] for each in constants],
        {each[0] for each in buffers if each[0] in written},
    )
    calls = []
    for turn, run in enumerate(runs):
        values = tuple(each[turn] for each in constants)
        if values not in function.instances:
            function.instances.append(values)
        names = [op.name for op in run if isinstance(op, PRODUCTS)]
        calls.append(Call(function, [each[turn] for each in buffers], values, names))
    return function, calls
