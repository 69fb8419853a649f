"""A compiled source as Python calls it: one state a caller, answers row by row."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError
from ...halting import RULES
from ..base import Idle, first_line
from ..engine import Answers, Engine, Flight, Request, Segments, joined

STATE = "state_"  # what a member for a tensor of the network's state begins with
_ALIGNED = 64  # bytes, for vector units
_Numbers = ctypes.c_void_p


class Library:
    """The functions of ``hrm.h``. ``fields``: members of the state → where they begin and how many, in 4 bytes.

    ``weights``: the file's bytes, where the source has none. InputError: what was compiled is not what header and
    weights say.
    """

    def __init__(
        self, library: ctypes.CDLL, fields: dict[str, tuple[int, int]], weights: np.ndarray | None = None
    ) -> None:
        self.fields, self.weights = fields, weights
        try:
            self._bind(library)
        except AttributeError as error:
            raise InputError(f"the source lacks a function ({first_line(error)})") from None
        if 4 * max(map(sum, fields.values())) > self.bytes:
            raise InputError(f"its state has {self.bytes} bytes, which is less than the header says")
        self.states = Idle(self._state)

    def _bind(self, library: ctypes.CDLL) -> None:
        state, number = ctypes.c_void_p, ctypes.c_int32
        self.bytes: int = library.hrm_state_bytes()
        self.begin, self.segment, self.guess = library.hrm_begin, library.hrm_segment, library.hrm_guess
        self.solve = library.hrm_solve
        self.begin.argtypes = (state, _Numbers, number)
        self.segment.argtypes = (state,)
        self.guess.argtypes = (state, _Numbers)
        self.solve.argtypes = (state, _Numbers, number, number, number, _Numbers)
        self.solve.restype = number
        for function in (self.begin, self.segment, self.guess):
            function.restype = None
        if self.weights is not None:
            self.take = library.hrm_take_weights
            self.take.argtypes = (state, _Numbers, ctypes.c_uint64)

    def _state(self) -> np.ndarray:
        """Memory of one caller, uint8[…], its first byte at a multiple of 64."""
        memory = np.zeros(self.bytes + _ALIGNED, np.uint8)
        begin = -memory.ctypes.data % _ALIGNED
        state = memory[begin : begin + self.bytes]
        weights = self.weights
        if weights is not None and not self.take(state.ctypes.data, weights.ctypes.data, weights.size):
            raise InputError("its weights are another model's, or this machine reads numbers in another byte order")
        return state

    def member(self, state: np.ndarray, name: str, shape: Sequence[int]) -> np.ndarray:
        """A copy of a float member of the state."""
        begin, size = self.fields[name]
        return state.view(np.float32)[begin : begin + size].reshape(shape).copy()


@dataclass(eq=False, repr=False)
class CEngine(Engine):
    """An engine over a library. Rows are independent of each other, and ``threads`` of them are answered at once.

    Halting is decided in C where it can be, and else, as for a trace, here after every segment.
    """

    loop, shows_segments = "host", True

    library: Library
    _: KW_ONLY
    threads: int = 1
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of the state's tensors
    verifies: bool = False  # whether the library knows the task's rules

    def _solve(self, request: Request) -> Answers:
        count = len(request.tokens)
        workers = min(self.threads, count)
        if workers == 1:
            return joined([self._row(request, row) for row in range(count)])
        with ThreadPoolExecutor(workers) as pool:
            return joined(list(pool.map(lambda row: self._row(request, row), range(count))))

    def _row(self, request: Request, row: int) -> Answers:
        """One row of a request."""
        rule = RULES[request.halt]
        with self.library.states.one() as state:
            if request.trace or rule.number is None or (rule.judged and not self.verifies):
                return self._stepwise(request, row, state)
            tokens = np.ascontiguousarray(request.tokens[row])
            answer = np.empty_like(tokens)
            steps = self.library.solve(
                state.ctypes.data,
                tokens.ctypes.data,
                self._identifier(request, row),
                request.max_think_steps,
                rule.number,
                answer.ctypes.data,
            )
            return self._answers(request, row, [answer], steps, self._q(state))

    def _stepwise(self, request: Request, row: int, state: np.ndarray) -> Answers:
        flight = _LibraryFlight(self, state)
        guesses: list[np.ndarray] = []
        identifiers = request.puzzle_identifiers
        flight.put(request.tokens[row : row + 1], None if identifiers is None else identifiers[row : row + 1])
        stop = False
        while not stop and len(guesses) < request.max_think_steps:
            seen = flight.think()
            guesses.append(seen.guess[0])
            stop = self.stops(request, slice(row, row + 1), seen.guess, seen.q)[0]
        return self._answers(request, row, guesses, len(guesses), self._q(state))

    def _answers(self, request: Request, row: int, guesses: list[np.ndarray], steps: int, q: np.ndarray) -> Answers:
        answer = guesses[-1][None]
        return Answers(
            answer,
            np.array([steps], np.int32),
            self.stops(request, slice(row, row + 1), answer, q[None]),
            q[None],
            np.stack(guesses)[:, None] if request.trace else None,
        )

    @contextmanager
    def flight(self, rows: int | None = None) -> Iterator[Flight]:
        with self.library.states.one() as state:
            yield _LibraryFlight(self, state)

    def _q(self, state: np.ndarray) -> np.ndarray:
        return self.library.member(state, "q", (2,))

    def _identifier(self, request: Request, row: int) -> int:
        return 0 if request.puzzle_identifiers is None else int(request.puzzle_identifiers[row])


class _LibraryFlight(Flight):
    """One puzzle in a state."""

    rows = 1

    def __init__(self, engine: CEngine, state: np.ndarray) -> None:
        self._engine, self._state = engine, state

    def put(self, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        identifier = 0 if puzzle_identifiers is None else int(puzzle_identifiers[0])
        row = np.ascontiguousarray(tokens[0])
        self._engine.library.begin(self._state.ctypes.data, row.ctypes.data, identifier)

    def think(self) -> Segments:
        engine, library, state = self._engine, self._engine.library, self._state
        library.segment(state.ctypes.data)
        guess = np.empty((1, engine.task.seq_len), np.int32)
        library.guess(state.ctypes.data, guess.ctypes.data)
        members: dict[str, tuple[int, ...]] = {"q": (2,), "logits": (engine.task.seq_len, engine.task.vocab_size)}
        members |= {STATE + name: shape for name, shape in engine.shapes.items()}
        q, logits, *held = (library.member(state, name, (1, *shape)) for name, shape in members.items())
        return Segments(guess, q, logits, tuple(held))

    def keep(self, rows: np.ndarray) -> None:
        """There is one or none."""


def facts_of(header: str) -> dict[str, Any]:
    """What a header says: macros that are numbers, the members of the state, and whether weights are a file.

    InputError: it is none that was written here.
    """
    macros = {name: int(value) for name, value in re.findall(r"^#define (HRM_\w+) (\d{1,12})\b", header, re.M)}
    body = header.partition("typedef struct hrm_state {")[2].partition("}")[0]
    fields: dict[str, tuple[int, int]] = {}
    begin = 0
    for name, size, unit in re.findall(r"^\s*(?:float|int32_t) (\w+)\[(\w+)( / 4)?\];", body, re.M):
        count = macros.get(size, 0) if size.startswith("HRM_") else int(size) if size.isdecimal() else 0
        fields[name] = (begin, count // 4 if unit else count)
        begin += fields[name][1]
    if not {"logits", "q", "tokens"} <= {name for name, (_, count) in fields.items() if count}:
        raise InputError("its hrm_state does not hold what a network keeps; export the bundle again")
    return {"macros": macros, "fields": fields, "apart": "#define HRM_WEIGHTS_FILE " in header}
