"""A few questions that a bundle carries with its own answers, `examples.json`: what it said where it was gated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..files import write_atomically
from ..records import STRICT, FromZero, OneOrMore, Text, from_json
from ..tasks.carried import read_task

if TYPE_CHECKING:
    from ..runtimes import Answers
    from .folder import Bundle

EXAMPLES = "examples.json"
HOW_MANY = 16


@dataclass(frozen=True, config=STRICT)
class Example:
    """One question with its answer, as the text that its task formats them to."""

    question: Text
    answer: Text
    steps: OneOrMore
    puzzle_identifier: FromZero


@dataclass(frozen=True, config=STRICT)
class Examples:
    """What stands in the file. ``arithmetic``: the backend and the kind of CPU that answered."""

    halt: Text
    max_think_steps: OneOrMore
    arithmetic: str
    examples: Annotated[tuple[Example, ...], Field(min_length=1, max_length=1000)]


def write_examples(
    folder: Path,
    puzzles: PuzzleSet,
    answers: Answers,
    max_think_steps: int,
    halt: str = "learned",
    arithmetic: str = "",
    ask: Callable[[PuzzleSet], Answers] | None = None,
) -> None:
    """Write a few of the puzzles that a bundle was asked, with its answers, into its folder before it is sealed.

    Half of them are those that it thought about longest before it halted, where rounding has had most time to show.
    ``ask``: what asks them as they will be asked again, where ``answers`` were given in other calls: a kernel may
    round otherwise for single rows.
    """
    rows = _chosen(answers)
    few = puzzles.select(rows)
    alone = None if ask is None else ask(few)
    tokens, taken = (answers.tokens[rows], answers.steps[rows]) if alone is None else (alone.tokens, alone.steps)
    texts = zip(few.task.format_many(few.questions), few.task.format_many(tokens), strict=True)
    identifiers = np.zeros(len(few), int) if few.identifiers is None else few.identifiers
    examples = [
        Example(question, answer, int(steps), int(identifier))
        for (question, answer), steps, identifier in zip(texts, taken, identifiers, strict=True)
    ]
    made = Examples(halt, max_think_steps, arithmetic, tuple(examples))
    write_atomically(folder / EXAMPLES, json.dumps(asdict(made), indent=1, sort_keys=True) + "\n")


def read_examples(bundle: Bundle) -> Examples:
    """Those of an opened bundle (their hash was checked then). InputError where it has none."""
    path = bundle.path / EXAMPLES
    if EXAMPLES not in bundle.manifest.files:
        raise InputError(
            f"{bundle.path}: has no {EXAMPLES} to compare with (it was exported without its gate, or by an older "
            "hrm-edge); export it again"
        )
    found = from_json(Examples, path.read_bytes(), path)
    trained = bundle.manifest.architecture["halt_max_steps"]
    if found.max_think_steps > trained:
        raise InputError(
            f"{path}: asks for {found.max_think_steps} segments, and the bundle was gated with {trained}; "
            "export the bundle again"
        )
    return found


def tokens_of(texts: list[str], bundle: Bundle) -> np.ndarray:
    """int32[n, S] of an opened bundle's own examples."""
    task = read_task(bundle.path, bundle.manifest.task)
    rows = []
    for text in texts:
        try:
            rows.append(task.read_back(text))
        except ValueError:
            where = bundle.path / EXAMPLES
            raise InputError(f"{where}: {text[:40]!r} is no board of it; export the bundle again") from None
    return np.stack(rows)


def _chosen(answers: Answers) -> np.ndarray:
    """Rows of the examples, rising."""
    longest = np.argsort(-answers.steps * answers.halted, kind="stable")[: HOW_MANY // 2]
    others = np.setdiff1d(np.arange(len(answers.steps)), longest)
    spread = np.linspace(0, len(others) - 1, min(HOW_MANY - len(longest), len(others)))
    return np.sort(np.concatenate([longest, others[spread.astype(int)]]))
