"""One puzzle, segment by segment: what a model guessed, how sure it was, and what it held in mind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtimes import Engine
from ..tasks import Task
from .shown import Shown
from .watch import think


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Shown):
    """T segments on one puzzle. It prints as a board a segment.

    ``question`` int32[S]; ``guesses`` int32[T, S]; ``q`` float32[T, 2], the halting head's (halt, continue);
    ``margin`` float32[T]: by how much it says stop, which it does above 0, as the model was trained to be asked;
    ``halted``: it was stopped by its halting rule; ``verified``: its last guess keeps the rules (a task without
    rules has none to keep).
    """

    task: Task
    question: np.ndarray
    guesses: np.ndarray
    q: np.ndarray
    margin: np.ndarray
    halted: bool
    verified: bool
    engine: str  # what thought
    _logits: np.ndarray | None
    _states: Mapping[str, np.ndarray] | None

    @property
    def answer(self) -> np.ndarray:
        """int32[S]: the last guess."""
        return self.guesses[-1]

    @property
    def steps(self) -> int:
        """How many segments there were."""
        return len(self.guesses)

    @property
    def text(self) -> list[str]:
        """Every guess on a line of its own."""
        return [self.task.format(guess) for guess in self.guesses]

    @property
    def logits(self) -> np.ndarray:
        """float32[T, S, V]; InputError where the engine keeps them to itself."""
        if self._logits is None:
            raise self._kept("logits")
        return self._logits

    @property
    def states(self) -> Mapping[str, np.ndarray]:
        """Each state tensor after each segment, float32[T, …] by name: of an HRM z_H and z_L, [T, sequence, D].

        InputError where the engine keeps them to itself.
        """
        if self._states is None:
            raise self._kept("states")
        return self._states

    def _kept(self, what: str) -> InputError:
        return InputError(
            f"{self.engine} shows no {what} of its segments; trace the checkpoint, or a bundle exported for onnx "
            "or openvino with --loop host"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: guesses as text, and q; logits and states are arrays of their own."""
        pairs = zip(self.text, self.q.tolist(), strict=True)
        return {
            "question": self.task.format(self.question),
            "answer": self.task.format(self.answer),
            "verified": self.verified if self.task.has_rules else None,
            "steps": self.steps,
            "halted": self.halted,
            "segments": [{"guess": guess, "q": q} for guess, q in pairs],
        }

    def _drawn(self) -> list[Any]:
        from ..tasks.boards import trace_boards, trace_legend

        shown = self.task, self.question, self.guesses
        return [trace_boards(*shown), trace_legend(*shown)]


def trace_puzzle(
    engine: Engine,
    question: np.ndarray,
    *,
    label: str,
    halt: str = "learned",
    max_think_steps: int | None = None,
    puzzle_identifiers: np.ndarray | None = None,
) -> Trace:
    """Think over ``question`` int32[1, S], and keep what is seen of every segment. Raises what `solve` does."""
    asked: dict[str, Any] = {
        "halt": halt,
        "max_think_steps": max_think_steps,
        "puzzle_identifiers": puzzle_identifiers,
    }
    moments = list(think(engine, question, **asked))
    seen = [moment.output for moment in moments]
    first, guesses = seen[0], np.stack([segment.guess for segment in seen])
    states = None
    if first.state is not None:
        names = engine.state or [f"z_{number}" for number in range(len(first.state))]
        states = {
            name: np.stack([segment.state[number] for segment in seen if segment.state])
            for number, name in enumerate(names)
        }
    return Trace(
        task=engine.task,
        question=question[0],
        guesses=guesses,
        q=np.stack([segment.q for segment in seen]),
        margin=np.array([moment.margin for moment in moments], np.float32),
        halted=moments[-1].stops,
        verified=bool(moments[-1].verified),
        engine=label,
        _logits=None if first.logits is None else np.stack([s.logits for s in seen if s.logits is not None]),
        _states=states,
    )
