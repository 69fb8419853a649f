"""Does a bundle answer here as it did where it was gated? It carries a few questions with its own answers and q."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle, open_bundle
from ..bundle.examples import read_examples, tokens_of
from ..errors import GateFailed
from ..runtimes import Answers, Engine, load_engine
from ..runtimes.engine import joined
from .arithmetic import arithmetic_of

ALLOWED = 1  # answers that may differ: rounding turns one now and then, a kernel that computes otherwise several


@dataclass(frozen=True)
class SelfTest:
    """How many of a bundle's own answers come out otherwise here.

    ``q_differ``: of those that came out the same after as many segments, the ones with a value of ``q`` that is
    more than ``q_tolerance`` away; None where the bundle carries no ``q``. ``q_furthest``: how far the furthest is.
    """

    bundle: str
    n: int
    answers_differ: int
    steps_differ: int
    q_differ: int | None
    q_furthest: float | None
    q_tolerance: float
    allowed: int
    differing: tuple[int, ...]  # which of them, counted from 1
    arithmetic: str  # here
    proven: str  # where it was gated

    @property
    def steps_allowed(self) -> int:
        """How many may take another number of segments: rounding moves some; most, only halting that is broken."""
        return max(self.allowed, self.n // 2)

    @property
    def passed(self) -> bool:
        differ = max(self.answers_differ, self.q_differ or 0)
        return differ <= self.allowed and self.steps_differ <= self.steps_allowed

    @property
    def equal(self) -> bool:
        """Whether nothing differs at all."""
        return not (self.answers_differ or self.steps_differ or self.q_differ)

    @property
    def summary(self) -> str:
        """One line."""
        if self.equal:
            answers = f"all {self.n} answers are" if self.n > 1 else "its one answer is"
            told = f"equal: {answers} the same as at its gate, after as many segments"
            return told if self.q_furthest is None else f"{told}; {self._q_away}"
        told = (
            f"not equal: {self.answers_differ} of {self.n} answers differ from those at its gate, "
            f"{self.steps_differ} took another number of segments"
        )
        if self.q_differ is not None:
            told += f", {self.q_differ} of the others differ in q"
            told += "" if self.q_furthest is None else f" ({self._q_away})"
        told += f"; at most {self.allowed} may differ"
        if self.steps_differ > self.steps_allowed:
            told += f", and {self.steps_allowed} take another number of segments: it halts otherwise here"
        return told

    @property
    def _q_away(self) -> str:
        return f"q is at most {self.q_furthest:.2g} away, and {self.q_tolerance:g} is allowed"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `hrm-edge selftest --json` prints."""
        return {"passed": self.passed, "equal": self.equal, **asdict(self), "differing": list(self.differing)}

    def raise_if_failed(self) -> None:
        """GateFailed, with what to do, unless few enough differ."""
        if not self.passed:
            raise GateFailed(
                f"{self.bundle}: {self.summary}; it was proven with {self.proven or 'unknown arithmetic'} and ran "
                f"with {self.arithmetic}; measure it here with `hrm-edge eval` or `hrm-edge check`"
            )


def self_test(
    bundle: str | Path | Bundle,
    threads: int | None = None,
    allowed: int | None = None,
    *,
    engine: Engine | None = None,
) -> SelfTest:
    """Answer a bundle's own examples here, one by one as `solve` does, and count what differs.

    ``allowed``: answers that may; :data:`ALLOWED` by default, but never all of them. ``engine``: the bundle's own,
    where it is loaded already.

    InputError where it carries none, or can not run here.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    carried = read_examples(opened)
    questions = tokens_of(carried.examples, opened, "question")
    expected = tokens_of(carried.examples, opened, "answer")
    identifiers = np.array([each.puzzle_identifier for each in carried.examples])
    engine = engine or load_engine(opened, threads)
    answers = answer_alone(engine, questions, identifiers, carried.max_think_steps, carried.halt)
    differ = (answers.tokens != expected).any(axis=1)
    longer = answers.steps != [each.steps for each in carried.examples]
    has_q = np.array([each.q is not None for each in carried.examples])
    away = np.abs(answers.q - [each.q or (0, 0) for each in carried.examples]).max(axis=1)
    away = away[has_q & ~(differ | longer)]
    return SelfTest(
        bundle=str(opened.path),
        n=len(questions),
        answers_differ=int(differ.sum()),
        steps_differ=int(longer.sum()),
        q_differ=int((~(away <= carried.q_tolerance)).sum()) if has_q.any() else None,
        q_furthest=float(away.max()) if away.size and np.isfinite(away).all() else None,
        q_tolerance=carried.q_tolerance,
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
