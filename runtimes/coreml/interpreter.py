"""Runs a saved Core ML program in numpy on any machine: the reference interpreter.

What is executed is what was saved: the package's operations, its decoded weights, loops and states. Values of type
float16 are rounded as the program says (see :mod:`.ops` for how). It is no fast engine, but costs little more
than its matrix products: names, constants and what can be freed when are settled at load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..base import Graph
from .ops import rounded_to_float16
from .package import read_package
from .prepare import Ready, fits, prepare, sizes
from .program import Value, storage_dtype


@dataclass(frozen=True)
class Program:
    """A saved program, ready to run; may be called from several threads, each with states of its own."""

    path: Path
    inputs: tuple[Value, ...]
    states: tuple[Value, ...]
    outputs: tuple[str, ...]
    _ready: Ready

    def __call__(
        self, feeds: Mapping[str, np.ndarray], states: dict[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Run once: arrays by input name → arrays by output name, float16 ones as float32.

        ``states``: from :meth:`new_states`, changed to what the program leaves in them. A scalar may be fed
        where one number in one axis is declared. Raises :class:`InputError` when an input is missing or does
        not fit, or when the program can not run to its end.
        """
        frame = self._ready.frame.copy()
        unknown = feeds.keys() - {value.name for value in self.inputs}
        if unknown:
            raise InputError(f"{self.path}: has no input {sorted(unknown)[0]!r}")
        for value in self.inputs:
            frame[self._ready.slots[value.name]] = self._fed(value, feeds)
        if self.states and states is None:
            raise InputError(
                f"{self.path}: keeps states ({', '.join(repr(v.name) for v in self.states)}); give them"
            )
        cells = {value.name: [(states or {})[value.name]] for value in self.states}
        for name, cell in cells.items():
            frame[self._ready.slots[name]] = cell
        try:
            with np.errstate(all="ignore"):
                self._ready.body.run(frame)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        for name, cell in cells.items():
            states[name] = cell[0]  # type: ignore[index]
        # Copies: an output may be a view of an input, of a constant or of another output.
        return {
            name: np.array(frame[slot]) for name, slot in zip(self.outputs, self._ready.body.outputs, strict=True)
        }

    def new_states(self) -> dict[str, np.ndarray]:
        """Zeros for every state, as Core ML makes them."""
        return {value.name: np.zeros(sizes(value), storage_dtype(value.dtype)) for value in self.states}

    def session(self) -> Graph:
        """Calls that share states of their own."""
        states = self.new_states()
        return lambda feeds: self(feeds, states)

    def _fed(self, value: Value, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        if value.name not in feeds:
            raise InputError(f"{self.path}: input {value.name!r} is missing")
        array, dtype = np.asarray(feeds[value.name]), storage_dtype(value.dtype)
        if {array.shape, value.shape} == {(), (1,)}:  # a package describes its scalars as (1,)
            array = array.reshape([1] * len(value.shape or ()))
        if not fits(array.shape, value.shape):
            raise InputError(
                f"{self.path}: input {value.name!r} must have shape {sizes(value)}, not {list(array.shape)}"
            )
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise InputError(f"{self.path}: input {value.name!r} must be {value.dtype}, not {array.dtype}")
        array = array.astype(dtype, copy=False)
        return rounded_to_float16(array) if value.dtype == "float16" else array


def load_program(path: Path) -> Program:
    """The default function of a saved package, ready to run. InputError: it is damaged, or an operation in it is
    not supported, which is named."""
    main = read_package(path).main
    try:
        ready = prepare(main)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    states = tuple(value for value in main.inputs if value.state)
    inputs = tuple(value for value in main.inputs if not value.state)
    return Program(Path(path), inputs, states, main.block.outputs, ready)
