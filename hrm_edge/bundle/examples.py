"""A few questions that a bundle carries with its own answers, `examples.json`: what it said where it was gated."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..data.puzzles import PuzzleSet
from ..errors import InputError
from ..files import write_atomically
from ..precision import PRECISIONS
from ..records import STRICT, FromZero, Number, OneOrMore, Size, Text, from_json
from ..tasks.carried import read_task

if TYPE_CHECKING:
    from ..runtimes import Answers
    from .folder import Bundle

EXAMPLES = "examples.json"
HOW_MANY = 16
ASKED = ("halt", "max_think_steps", "q_tolerance")  # what of it says how they are to be asked and compared


@dataclass(frozen=True, config=STRICT)
class Example:
    """One question with its answer, as the text that its task formats them to and as tokens.

    ``q``: the halting head's (halt, continue) at the last segment. Older files have neither tokens nor q.
    """

    question: Text
    answer: Text
    steps: OneOrMore
    puzzle_identifier: FromZero
    question_tokens: tuple[FromZero, ...] = ()
    answer_tokens: tuple[FromZero, ...] = ()
    q: tuple[Number, Number] | None = None


@dataclass(frozen=True, config=STRICT)
class Examples:
    """What stands in the file. ``arithmetic``: the backend and the kind of CPU that answered.

    ``q_tolerance``: how far each value of ``q`` may be from the one that another device computes.
    """

    halt: Text
    max_think_steps: OneOrMore
    arithmetic: str
    examples: Annotated[tuple[Example, ...], Field(min_length=1, max_length=1000)]
    q_tolerance: Size = 0


def write_examples(
    folder: Path,
    puzzles: PuzzleSet,
    answers: Answers,
    max_think_steps: int,
    halt: str = "learned",
    arithmetic: str = "",
    q_tolerance: float = 0,
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
    if alone is None:
        tokens, taken, q = (values[rows] for values in (answers.tokens, answers.steps, answers.q))
    else:
        tokens, taken, q = alone.tokens, alone.steps, alone.q
    identifiers = np.zeros(len(few), int) if few.identifiers is None else few.identifiers
    columns = (
        few.task.format_many(few.questions),
        few.task.format_many(tokens),
        taken.tolist(),
        identifiers.tolist(),
        map(tuple, few.questions.tolist()),
        map(tuple, tokens.tolist()),
        map(_shortest, q),
    )
    made = Examples(
        halt, max_think_steps, arithmetic, tuple(Example(*each) for each in zip(*columns, strict=True)), q_tolerance
    )
    write_atomically(folder / EXAMPLES, json.dumps(asdict(made), indent=1, sort_keys=True) + "\n")


def read_examples(bundle: Bundle) -> Examples:
    """Those of an opened bundle (their hash was checked then). InputError where it has none."""
    path = bundle.path / EXAMPLES
    if EXAMPLES not in bundle.manifest.files:
        raise InputError(
            f"{bundle.path}: has no {EXAMPLES} to compare with (it was exported without its gate, or by an older "
            "hrm-edge); export it again"
        )
    found = _read(path)
    trained = bundle.manifest.architecture["halt_max_steps"]
    if found.max_think_steps > trained:
        raise InputError(
            f"{path}: asks for {found.max_think_steps} segments, and the bundle was gated with {trained}; "
            "export the bundle again"
        )
    widest = max(each.q_tolerance for each in PRECISIONS.values())
    if found.q_tolerance > widest:
        raise InputError(
            f"{path}: allows q to be {found.q_tolerance:g} away, and no precision more than {widest}; "
            "export the bundle again"
        )
    return found


def examples_in(folder: Path) -> Examples | None:
    """Those that stand in the folder of a bundle that is being made."""
    path = folder / EXAMPLES
    return _read(path) if path.exists() else None


def _read(path: Path) -> Examples:
    content = path.read_bytes()
    try:
        found = json.loads(content)
        found = {**_LATER, **found, "examples": [{**_LATER_EACH, **each} for each in found["examples"]]}
        content = json.dumps(found).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # for the record to say what is wrong
    return from_json(Examples, content, path)


def _shortest(q: np.ndarray) -> tuple[float, float] | None:
    """float32[2] with no more digits than tell these numbers from all others; None where one is no number."""
    if not np.isfinite(q).all():
        return None
    halt, go_on = (float(str(value)) for value in q.astype(np.float32))
    return halt, go_on


def tokens_of(examples: Sequence[Example], bundle: Bundle, what: str) -> np.ndarray:
    """int32[n, S] of an opened bundle's own examples, of each the ``what``: question or answer.

    InputError where a text is no board, or another one than the tokens beside it, which programs in other languages
    ask.
    """
    task, where = read_task(bundle.path, bundle.manifest.task), bundle.path / EXAMPLES
    rows = []
    for number, each in enumerate(examples, 1):
        text, beside = getattr(each, what), getattr(each, f"{what}_tokens")
        try:
            row = task.read_back(text)
        except ValueError:
            raise InputError(f"{where}: {text[:40]!r} is no board of it; export the bundle again") from None
        if beside and list(beside) != row.tolist():
            raise InputError(
                f"{where}: example {number} has tokens of another {what} beside it; export the bundle again"
            )
        rows.append(row)
    return np.stack(rows)


def _chosen(answers: Answers) -> np.ndarray:
    """Rows of the examples, rising."""
    longest = np.argsort(-answers.steps * answers.halted, kind="stable")[: HOW_MANY // 2]
    others = np.setdiff1d(np.arange(len(answers.steps)), longest)
    spread = np.linspace(0, len(others) - 1, min(HOW_MANY - len(longest), len(others)))
    return np.sort(np.concatenate([longest, others[spread.astype(int)]]))


# What files of earlier versions lack.
_LATER: dict[str, Any] = {"q_tolerance": 0}
_LATER_EACH: dict[str, Any] = {"question_tokens": [], "answer_tokens": [], "q": None}
