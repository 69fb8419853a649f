"""Slots on the GPU: e and the state tensors stay in device memory between segments, only guesses come back."""

from __future__ import annotations

import numpy as np

from ..loops import NEXT, state_tensors
from .cuda import DeviceMemory, Graph, Stream
from .device import Bound, LoadedEngine

_SEEN = ("logits", "q")


class DeviceSlots:
    """`Slots` made of a start and a segment engine. Serves one thread at a time."""

    def __init__(self, start: LoadedEngine, segment: LoadedEngine, rows: int) -> None:
        """``rows``: how many slots; both engines must take so many."""
        self._segment_engine, self._start_engine = segment, start
        self._stream = Stream()
        given = [tensor.name for tensor in segment.tensors if not tensor.is_input]
        self._next = {name: name + NEXT for name in state_tensors(given)}
        begun = frozenset(("e", *self._next))
        self._start = Bound(start, self._stream, rows, capture=True, skip_host=begun)
        self._start.set_rows(rows)
        inside = begun | frozenset(self._next.values())
        self._segment = Bound(segment, self._stream, rows, capture=True, skip_host=inside)
        self._segment.set_rows(rows)
        self._state = {name: self._segment.device[name] for name in ("e", *self._next)}
        for memory in self._state.values():
            self._stream.clear(memory)
        self._rows = rows
        self._graph: Graph | None = None
        self._segments = 0

    def put(self, slots: np.ndarray, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        """See `Slots`: starts every slot's puzzle anew, and lets only the fresh ones into the state."""
        self._stream.synchronize()  # what was read from these pinned arrays before must have been read
        fresh = {"tokens": tokens, "puzzle_identifiers": puzzle_identifiers}
        for name, values in fresh.items():
            if values is not None:
                self._start.host[name].array[slots] = values
                self._start.upload(name)
        self._start.enqueue()
        for name in self._state:
            self._take(name, slots)

    def think(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Slots`."""
        if self._graph is not None:
            self._stream.launch(self._graph)
        else:
            self._think()
        self._stream.synchronize()
        self._segments += 1
        if self._segments == 1:
            self._after_the_first()
        logits, q = (self._segment.host[name].array.copy() for name in _SEEN)
        return logits, q

    def _take(self, name: str, slots: np.ndarray) -> None:
        """Copy what the start engine made of these slots into the state, neighbours in one go."""
        made: DeviceMemory = self._start.device[name]
        state = self._state[name]
        row = state.size // self._rows
        for run in np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1):
            first = int(run[0]) * row
            self._stream.move(state.address + first, made.address + first, len(run) * row)

    def _think(self) -> None:
        """One segment; its new state is copied over the old, so that every call is the same work."""
        self._segment.enqueue()
        for name, following in self._next.items():
            state = self._state[name]
            self._stream.move(state.address, self._segment.device[following].address, state.size)
        for name in _SEEN:
            self._segment.download(name)

    def _after_the_first(self) -> None:
        """What a call sets up when it first runs is in place: record the next ones, and keep RTX's kernels."""
        if self._segment.capturable():
            # Recording does not run anything, so the state stays as it is.
            self._graph = self._stream.capture(self._think)
        for engine in (self._start_engine, self._segment_engine):
            engine.keep_kernels()
