"""What answers puzzles: :class:`Engine`, the contract, with the requests that it takes and the answers it gives."""

from __future__ import annotations

import contextlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ..errors import ArtifactError, InputError
from ..halting import FIXED, RULES, halting_head
from ..identifiers import Numbering, format_ranges, rows_of
from ..tasks.base import PAD

if TYPE_CHECKING:
    from ..tasks import Task


@dataclass(frozen=True)
class Answers:
    """One row per puzzle, in the order asked.

    ``tokens`` int32[B, S]: the last guess of each row; it is the guess of the segment the row stopped at.
    ``steps`` int32[B]: segments run for that row.
    ``halted`` bool[B]: the row's halting rule fired (always False for ``fixed``, which has no rule).
    ``q`` float32[B, 2]: the halting head's (halt, continue) values at the row's last segment.
    ``trace`` int32[T, B, S] or None: the guess after each segment, T = max(steps); a row that has stopped
    repeats its answer.
    """

    tokens: np.ndarray
    steps: np.ndarray
    halted: np.ndarray
    q: np.ndarray
    trace: np.ndarray | None = None


def joined(parts: list[Answers]) -> Answers:
    """Groups of rows as one; a shorter trace goes on with its last guess."""
    names = ("tokens", "steps", "halted", "q")
    fields: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    traces = [part.trace for part in parts if part.trace is not None]
    if traces:
        longest = max(len(trace) for trace in traces)
        fields["trace"] = np.concatenate([t[np.minimum(np.arange(longest), len(t) - 1)] for t in traces], axis=1)
    return Answers(**fields)


@dataclass(frozen=True)
class Request:
    """Checked arguments of one ``solve`` call, as the loops see them."""

    tokens: np.ndarray  # int32[B, S]
    max_think_steps: int
    halt: str
    trace: bool
    puzzle_identifiers: np.ndarray | None  # int32[B]; None when the model has a single identifier


class SegmentOutput(NamedTuple):
    """One puzzle after one segment; what an engine keeps to itself is None.

    ``guess`` int32[S]; ``q`` float32[2], the halting head's (halt, continue); ``logits`` float32[S, V]; ``state``:
    each state tensor float32[…] after the segment, in the network's order.
    """

    guess: np.ndarray
    q: np.ndarray
    logits: np.ndarray | None = None
    state: tuple[np.ndarray, ...] | None = None


class Segments(NamedTuple):
    """All puzzles in flight after one segment, in the order they came: :class:`SegmentOutput`'s, one row each.

    ``guess`` int32[b, S], ``q`` float32[b, 2], ``logits`` float32[b, S, V], ``state`` float32[b, …] each.
    """

    guess: np.ndarray
    q: np.ndarray
    logits: np.ndarray | None = None
    state: tuple[np.ndarray, ...] | None = None

    def row(self, number: int) -> SegmentOutput:
        """One of them."""
        return SegmentOutput(
            self.guess[number],
            self.q[number],
            None if self.logits is None else self.logits[number],
            None if self.state is None else tuple(tensor[number] for tensor in self.state),
        )


class Flight(ABC):
    """Puzzles that one thread thinks over together, segment by segment; between segments they come and go.

    ``rows``: how many there may be at once. After an error nobody knows what state it is in: open another.
    """

    rows: int

    @abstractmethod
    def put(self, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        """Begin checked puzzles ``tokens`` int32[n, S], ``puzzle_identifiers`` int32[n], behind those in flight."""

    @abstractmethod
    def think(self) -> Segments:
        """One segment on each puzzle in flight, of which there must be one."""

    @abstractmethod
    def keep(self, rows: np.ndarray) -> None:
        """Let those go that ``rows`` bool[b] does not name; the others keep their order."""


@dataclass(eq=False, repr=False)
class Engine(ABC):
    """A model ready to answer puzzles of one task; may be called from several threads at once."""

    loop: ClassVar[str]  # "host" or "graph"
    shows_segments: ClassVar[bool] = False  # or answers only: each segment that is looked at is then asked anew

    task: Task
    halt_max_steps: int
    _: KW_ONLY
    backend: str
    no_ACT_continue: bool = False
    batch: int | None = None  # the fixed number of rows of the artifact's inputs; None: it takes any
    num_puzzle_identifiers: int = 1
    kept_identifiers: np.ndarray | None = None  # int32[…]: those that the model's table has left, rising; None: all
    numbering: Numbering | None = None  # whose the identifiers of its training were; None: unknown
    state: tuple[str, ...] = ()  # names of the state tensors, where segments show them
    streams: int = 1  # calls that it was opened to answer side by side

    def solve(
        self,
        tokens: np.ndarray,
        max_think_steps: int | None = None,
        halt: str = "learned",
        trace: bool = False,
        puzzle_identifiers: np.ndarray | None = None,
    ) -> Answers:
        """Answer ``tokens`` int[B, S]; a row's answer does not depend on the rows beside it.

        ``max_think_steps``: segments at most, the trained ``halt_max_steps`` by default. ``halt``:
        "learned" stops when the model's own halting head says so, "verified" as soon as the task accepts
        the guess (rows it never accepts run on to the end), "fixed" runs exactly ``max_think_steps``.
        ``puzzle_identifiers`` int[B], zeros by default, matter only to models trained with several; they are
        those of the training data, also where an export kept some of them only: there they must be given.
        Raises :class:`InputError` on a wrong shape, dtype, token, mode or number of segments, and on identifiers
        that are missing or that the model has not.
        """
        return self.answer(self.request(tokens, max_think_steps, halt, trace, puzzle_identifiers))

    def in_whole_calls(self) -> Engine:
        """The same, whose artifact is given all rows of a call at once, as by those who ask it without this code;
        for the engine itself that may be slower."""
        return self

    def answer(self, request: Request) -> Answers:
        """:meth:`solve` of arguments that :meth:`request` has checked."""
        return self._solve(request) if len(request.tokens) else self._no_answers(request)

    def request(
        self,
        tokens: np.ndarray,
        max_think_steps: int | None = None,
        halt: str = "learned",
        trace: bool = False,
        puzzle_identifiers: np.ndarray | None = None,
    ) -> Request:
        """The arguments of :meth:`solve`, checked."""
        rows = checked_tokens(tokens, self.task)
        return Request(
            tokens=rows,
            max_think_steps=_checked_steps(max_think_steps, self.halt_max_steps),
            halt=checked_halt(halt, self.task),
            trace=bool(trace),
            puzzle_identifiers=self._checked_identifiers(puzzle_identifiers, len(rows)),
        )

    @abstractmethod
    def _solve(self, request: Request) -> Answers:
        """Answer a checked request of at least one row."""

    @contextmanager
    def flight(self, rows: int | None = None) -> Iterator[Flight]:
        """A :class:`Flight` of this thread's own, of so many ``rows`` where the artifact takes any number.

        What shows its answers only is asked again for 1, 2, … segments, one puzzle at a time: exact, as nothing in
        it is random, and about T/2 times the work.
        """
        yield _AskedAgain(self)

    @property
    def together(self) -> int:
        """Rows that a thread had best think over together: one on a CPU, or as many as the artifact takes."""
        return self.batch or 1

    def segments(self, request: Request) -> Iterator[SegmentOutput]:
        """Think over a request of one row segment by segment, without an end: who looks decides (:meth:`stops`)."""
        # Who looked has seen enough, and the flight is as good as before.
        with self.flight(1) as flight, contextlib.suppress(GeneratorExit):
            flight.put(request.tokens, request.puzzle_identifiers)
            while True:
                yield flight.think().row(0)

    def halts(self, q: np.ndarray) -> np.ndarray:
        """bool[B]: whether the halting head, float[B, 2], asks to stop."""
        return halting_head(self.no_ACT_continue).says_stop(q)

    def require(self, name: str, output: Any, shape: tuple[int, ...], whole: bool = False) -> None:
        """InputError unless what an artifact gives is an array of this shape, of ``whole`` or other numbers."""
        wanted = np.integer if whole else np.floating
        if output.shape != shape or not np.issubdtype(output.dtype, wanted):
            raise ArtifactError(
                f"the artifact gives {name} as {output.dtype} of shape {list(output.shape)}, and {self.task.name} "
                f"needs {'whole numbers' if whole else 'floats'} of shape {list(shape)}; export the bundle again"
            )

    def require_guess(self, logits: Any, q: Any, rows: int) -> None:
        """InputError unless these are one segment's ``logits`` and ``q`` for so many rows."""
        self.require("logits", logits, (rows, self.task.seq_len, self.task.vocab_size))
        self.require("q", q, (rows, 2))

    def guess_of(self, logits: np.ndarray) -> np.ndarray:
        """int32[b, S] of ``logits`` float[b, S, V]; ArtifactError where one is no number. −inf forbids a token."""
        if np.isnan(logits).any():
            raise ArtifactError("the artifact gives logits that are no numbers (nan); export the bundle again")
        return logits.argmax(axis=-1).astype(np.int32)

    def stops(self, request: Request, rows: np.ndarray | slice, guess: np.ndarray, q: np.ndarray) -> np.ndarray:
        """bool[b]: which of the request's ``rows`` stop on ``guess`` int32[b, S] with ``q`` float[b, 2].

        Every answer passes here. ArtifactError unless ``q`` is finite: the network has computed nothing.
        """
        if not np.isfinite(q).all():
            bad = q[~np.isfinite(q).all(axis=1)][0].tolist()
            raise ArtifactError(
                f"the halting head's values are {bad}, as {self.backend} computes them, and no answer of such a "
                "network counts; export the bundle again"
            )
        return RULES[request.halt].stops(self.task, request.tokens[rows], guess, self.halts(q))

    def _checked_identifiers(self, identifiers: np.ndarray | None, count: int) -> np.ndarray | None:
        if self.num_puzzle_identifiers == 1 and identifiers is None:
            return None
        if identifiers is None and self.kept_identifiers is not None:
            kept = format_ranges(self.kept_identifiers)
            shown = kept if len(kept) <= 60 else f"{kept[:60].rpartition(',')[0]},…"
            raise InputError(
                f"this model kept the embeddings of puzzles {shown} alone, so each puzzle must say which it is: "
                "pass puzzle_identifiers (0: no puzzle in particular), or name a puzzle folder that has them"
            )
        if identifiers is None:
            return np.zeros(count, np.int32)
        values = np.asarray(identifiers)
        limit = self.num_puzzle_identifiers
        if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"puzzle_identifiers must be integers of shape ({count},), one per puzzle, "
                f"not {values.dtype} of shape {values.shape}"
            )
        if self.kept_identifiers is not None:
            return rows_of(values, self.kept_identifiers)
        if count and not (values.min() >= 0 and values.max() < limit):
            raise InputError(f"puzzle_identifiers must lie between 0 and {limit - 1} for this model")
        return values.astype(np.int32) if limit > 1 else None

    def _no_answers(self, request: Request) -> Answers:
        length = self.task.seq_len
        return Answers(
            tokens=np.zeros((0, length), np.int32),
            steps=np.zeros(0, np.int32),
            halted=np.zeros(0, bool),
            q=np.zeros((0, 2), np.float32),
            trace=np.zeros((0, 0, length), np.int32) if request.trace else None,
        )


class _AskedAgain(Flight):
    """One puzzle of an engine that shows its answers only."""

    rows = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, tokens: np.ndarray, puzzle_identifiers: np.ndarray | None) -> None:
        self._asked = Request(tokens, 0, FIXED.name, False, puzzle_identifiers)

    def think(self) -> Segments:
        self._asked = replace(self._asked, max_think_steps=self._asked.max_think_steps + 1)
        answers = self._engine._solve(self._asked)
        return Segments(answers.tokens, answers.q)

    def keep(self, rows: np.ndarray) -> None:
        """There is one or none."""


def checked_tokens(tokens: Any, task: Task) -> np.ndarray:
    """``tokens`` int[B, S] as int32; InputError where they are no questions of the task, padding among them."""
    try:
        values = np.asarray(tokens)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"tokens must be one rectangular array of shape [B, {task.seq_len}]") from error
    if values.ndim != 2 or values.shape[1] != task.seq_len:
        raise InputError(
            f"tokens must have shape [B, {task.seq_len}] for {task.name}, not {list(values.shape)}; "
            "a single puzzle is tokens[None]"
        )
    if not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"tokens must be integers (int32), not {values.dtype}")
    if values.size and not (values.min() >= 0 and values.max() < task.vocab_size):
        row, column = np.argwhere((values < 0) | (values >= task.vocab_size))[0]
        raise InputError(
            f"token {values[row, column]} of puzzle {row}, cell {column} is outside {task.name}'s "
            f"vocabulary (0 to {task.vocab_size - 1})"
        )
    if not (held := task.in_questions[values]).all():
        row, column = np.argwhere(~held)[0]
        raise InputError(
            f"token {values[row, column]} of puzzle {row}, cell {column} is {_meaning(values[row, column], task)}, "
            f"which no question of {task.name} holds; its tokens are {_listed(task)}: use task.parse(text)"
        )
    return np.ascontiguousarray(values, dtype=np.int32)


def _meaning(token: int, task: Task) -> str:
    return "padding" if token == PAD else repr(task.vocabulary[token])


def _listed(task: Task) -> str:
    """``1 for '.', 2 for '1' … 10 for '9'``: what people who pass digits as tokens have to know."""
    named = [f"{token} for {task.vocabulary[token]!r}" for token in task.question_tokens]
    return ", ".join(named) if len(named) < 5 else f"{', '.join(named[:2])} … {named[-1]}"


def _checked_steps(max_think_steps: Any, default: int) -> int:
    if max_think_steps is None:
        return default
    try:
        steps = operator.index(max_think_steps)
    except TypeError:
        steps = 0
    # A graph's int32 input is the upper bound; nobody waits for that many segments.
    if isinstance(max_think_steps, bool) or not 1 <= steps < 2**31:
        raise InputError(f"max_think_steps must be a whole number of segments, at least 1, not {max_think_steps!r}")
    return steps


def checked_halt(halt: Any, task: Task) -> str:
    """A rule's name; InputError where there is none of it, or the task has no rules that it would need."""
    if not isinstance(halt, str) or halt not in RULES:
        raise InputError(f"halt must be one of {', '.join(RULES)}, not {halt!r}")
    if RULES[halt].judged and not task.has_rules:
        raise task.no_rules("an answer cannot be verified, so halt must be learned or fixed")
    return halt
