"""Does a bundle answer here as it did where it was gated? It carries a few questions with its own answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle, open_bundle
from ..bundle.examples import read_examples, tokens_of
from ..errors import GateFailed
from ..runtimes import Answers, Engine, load_engine
from ..runtimes.base import joined
from .arithmetic import arithmetic_of

ALLOWED = 1  # answers that may differ: rounding turns one now and then, a kernel that computes otherwise several


@dataclass(frozen=True)
class SelfTest:
    """How many of a bundle's own answers come out otherwise here."""

    bundle: str
    n: int
    answers_differ: int
    steps_differ: int
    allowed: int
    differing: tuple[int, ...]  # which of them, counted from 1
    arithmetic: str  # here
    proven: str  # where it was gated

    @property
    def passed(self) -> bool:
        return self.answers_differ <= self.allowed

    @property
    def summary(self) -> str:
        """One line."""
        told = f"{self.answers_differ} of {self.n} answers differ from those at its gate"
        return f"{told}, {self.steps_differ} took another number of segments; {self.allowed} may differ"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `hrm-edge selftest --json` prints."""
        return {"passed": self.passed, **asdict(self), "differing": list(self.differing)}

    def raise_if_failed(self) -> None:
        """GateFailed, with what to do, unless few enough differ."""
        if not self.passed:
            raise GateFailed(
                f"{self.bundle}: {self.summary}; it was proven with {self.proven or 'unknown arithmetic'} and ran "
                f"with {self.arithmetic}; measure it here with `hrm-edge eval` or `hrm-edge check`"
            )


def self_test(bundle: str | Path | Bundle, threads: int | None = None, allowed: int | None = None) -> SelfTest:
    """Answer a bundle's own examples here, one by one as `solve` does, and count what differs.

    ``allowed``: answers that may; :data:`ALLOWED` by default, but never all of them.

    InputError where it carries none, or can not run here.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    carried = read_examples(opened)
    questions = tokens_of([each.question for each in carried.examples], opened)
    expected = tokens_of([each.answer for each in carried.examples], opened)
    identifiers = np.array([each.puzzle_identifier for each in carried.examples])
    engine = load_engine(opened, threads)
    answers = answer_alone(engine, questions, identifiers, carried.max_think_steps, carried.halt)
    differ = (answers.tokens != expected).any(axis=1)
    return SelfTest(
        bundle=str(opened.path),
        n=len(questions),
        answers_differ=int(differ.sum()),
        steps_differ=int((answers.steps != [each.steps for each in carried.examples]).sum()),
        allowed=min(ALLOWED, len(questions) - 1) if allowed is None else allowed,
        differing=tuple(int(row) + 1 for row in np.flatnonzero(differ)),
        arithmetic=arithmetic_of(engine),
        proven=carried.arithmetic,
    )


def answer_alone(
    engine: Engine, questions: np.ndarray, identifiers: np.ndarray | None, max_think_steps: int, halt: str
) -> Answers:
    """One call a puzzle, as `solve` asks."""
    if engine.num_puzzle_identifiers == 1:
        identifiers = None
    return joined(
        [
            engine.solve(
                questions[[row]],
                max_think_steps,
                halt,
                puzzle_identifiers=None if identifiers is None else identifiers[[row]],
            )
            for row in range(len(questions))
        ]
    )
