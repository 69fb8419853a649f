"""Halting inside the artifact: one call answers a batch; this only cuts, pads and reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...errors import ArtifactError, InputError
from ...halting import RULES
from ..engine import Answers, Engine, Request
from .host import padded

# (tokens int32[b, S], max_think_steps int32[], halt int32[] (, puzzle_identifiers int32[b]))
#   → (answer int32[b, S], steps int32[b], q float32[b, 2])
Model = Callable[..., Sequence[np.ndarray]]

# Rows of a call, where whoever asks the artifact itself gives it several.
SEVERAL_ROWS = 8


@dataclass(eq=False, repr=False)
class GraphLoop(Engine):
    """An engine made of one callable that runs the whole halting loop (see ``Model`` above).

    The callable returns only each row's last guess, so a trace is made by asking again for 1, 2, … segments:
    exact, because the loop is deterministic, but about T/2 times the work.

    ``rows``: of a call, where the artifact takes any number. A call lasts as long as its slowest row and computes
    those that have halted until then, so on a CPU each row has one of its own. ``most``: that it may have.
    """

    loop = "graph"

    model: Model
    rows: int = field(default=1, kw_only=True)
    most: int = field(default=SEVERAL_ROWS, kw_only=True)

    def __post_init__(self) -> None:
        self.rows = self.batch or self.rows

    def in_whole_calls(self) -> GraphLoop:
        return replace(self, rows=self.most)

    def _solve(self, request: Request) -> Answers:
        rule = RULES[request.halt]
        if rule.number is None or (rule.judged and self.task.groups is None):
            raise InputError(
                f"halt {request.halt!r} needs a loop on the host for {self.task.name}, and this bundle's loop is "
                "in its graph: export with --loop host, or halt 'learned'"
            )
        tokens, steps, q = self._ask(request, request.max_think_steps)
        trace = None
        if request.trace:
            guesses = [self._ask(request, count)[0] for count in range(1, int(steps.max()))]
            trace = np.stack([*guesses, tokens])
        return Answers(tokens, steps, self.stops(request, slice(None), tokens, q), q, trace)

    def _ask(self, request: Request, max_think_steps: int) -> list[np.ndarray]:
        """The whole request, cut into calls of the artifact's number of rows."""
        limit = np.array(max_think_steps, np.int32)
        halt = np.array(RULES[request.halt].number, np.int32)
        parts = []
        for first in range(0, len(request.tokens), self.rows):
            tokens = request.tokens[first : first + self.rows]
            missing = (self.batch or len(tokens)) - len(tokens)
            extra = []
            if request.puzzle_identifiers is not None:
                extra = [padded(request.puzzle_identifiers[first : first + self.rows], missing)]
            outputs = self.model(padded(tokens, missing), limit, halt, *extra)
            parts.append([output[: len(tokens)] for output in outputs])
            self._require_answers(len(tokens), max_think_steps, *parts[-1])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _require_answers(
        self, rows: int, max_think_steps: int, tokens: np.ndarray, steps: np.ndarray, q: np.ndarray
    ) -> None:
        self.require("answers", tokens, (rows, self.task.seq_len), whole=True)
        self.require("steps", steps, (rows,), whole=True)
        self.require("q", q, (rows, 2))
        if not (steps.min() >= 1 and steps.max() <= max_think_steps):
            raise ArtifactError(
                f"the artifact says that it took {steps.min()} to {steps.max()} segments, and at most "
                f"{max_think_steps} were asked for; export the bundle again"
            )
        if not (tokens.min() >= 0 and tokens.max() < self.task.vocab_size):
            raise ArtifactError(
                f"the artifact answers with tokens from {tokens.min()} to {tokens.max()}, and those of "
                f"{self.task.name} are 0 to {self.task.vocab_size - 1}; export the bundle again"
            )
