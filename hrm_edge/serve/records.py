"""What goes over the wire, as pydantic models: they read requests, write answers, and are the OpenAPI document.

Requests are strict: an unknown field or a number as text is refused. Times are milliseconds, deadlines seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .. import limits
from ..halting import HALT_MODES, LEARNED

Halt = StrEnum("Halt", {name: name for name in HALT_MODES})  # type: ignore[misc]


def _whole(value: Any) -> Any:
    """To JSON, 3.0 is the whole number that 3 is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)  # behind the limits, which JSON Schema would lose otherwise
Token = Annotated[int, Field(ge=0, lt=limits.VOCABULARY), _WHOLE]
Text = Annotated[str, Field(min_length=1, max_length=4 * limits.SEQUENCE)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=limits.SEQUENCE)]

RETRIES = 1000  # symmetric variants of one puzzle at most
PRIORITY = 100
_Q = tuple[float | None, float | None]


class Wire(BaseModel):
    """Base of all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SolveRequest(Wire):
    """Puzzles, and how to think about them: the flags of `hrm-edge solve`."""

    puzzles: Annotated[
        Text | Annotated[list[Text | Tokens], Field(min_length=1)],
        Field(
            description="One puzzle as text, or a list in which each is text or the list of its tokens. A text may "
            "have line ends, as a drawn board has."
        ),
    ]
    bundle: Annotated[str | None, Field(description="Its name, where several are served.")] = None
    max_think_steps: Annotated[
        Annotated[int, Field(ge=1), _WHOLE] | None,
        Field(description="Segments at most; null: as many as in training."),
    ] = None
    halt: Annotated[Halt, Field(description="When to stop thinking.")] = Halt(LEARNED.name)
    retries: Annotated[
        int, Field(ge=0, le=RETRIES, description="Symmetric variants to try of what does not verify."), _WHOLE
    ] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Which variants are tried."), _WHOLE] = 0
    deadline: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="Seconds from now for each puzzle.")
    ] = None
    priority: Annotated[int, Field(ge=-PRIORITY, le=PRIORITY, description="Larger goes first."), _WHOLE] = 0
    puzzle_identifiers: Annotated[
        list[Annotated[int, Field(ge=0, lt=limits.IDENTIFIERS), _WHOLE]] | None,
        Field(description="One a puzzle, for models that were trained with several."),
    ] = None


class Milliseconds(Wire):
    queued: float
    thinking: float


class Answer(Wire):
    """What came of one puzzle. ``index`` counts the request's puzzles from 0."""

    index: int
    answer: Annotated[str, Field(description="The board on one line; '?' where the model left padding.")]
    tokens: Annotated[list[int] | None, Field(description="The same, where the puzzle came as tokens.")] = None
    verified: Annotated[bool | None, Field(description="Does it keep the rules? null: the task has none.")]
    steps: Annotated[int, Field(description="Segments of the attempt that answered.")]
    halted: Annotated[bool, Field(description="Whether its halting rule ended it.")]
    q: Annotated[_Q, Field(description="The halting head's (halt, continue) at the last segment.")]
    variant: Annotated[int, Field(description="0 as asked, k the k-th symmetric variant.")]
    segments: Annotated[int, Field(description="Segments over all attempts.")]
    ms: Milliseconds


class Refused(Wire):
    """Why one puzzle has no answer, in one line."""

    index: int
    error: str


class SolveResponse(Wire):
    """One result for each puzzle, in the order asked. ``refused`` counts those that have none."""

    bundle: str
    task: str
    results: list[Answer | Refused]
    refused: int


class Segment(Wire):
    """A puzzle's guess after a segment, which is counted from 1; an event of `/v1/think`."""

    index: int
    segment: int
    guess: str
    q: _Q
    verified: bool | None


class Done(Wire):
    """The last event of `/v1/think`."""

    bundle: str
    task: str
    refused: int


class Problem(Wire):
    """Why a whole request was refused, in one line."""

    error: str


class BundleInfo(Wire):
    """What is served under a name. ``warning``: why its answers are not to be relied on."""

    name: str
    task: str
    rows: int
    cols: int
    vocabulary: Annotated[list[str], Field(description="The symbol of each token; the first is padding.")]
    target: str
    precision: str
    loop: str
    halt_max_steps: Annotated[int, Field(description="Segments at most, unless a request says otherwise.")]
    num_puzzle_identifiers: int
    gated: bool
    warning: str | None
    self_test: Annotated[str | None, Field(description="How its own examples came out here; null: it has none.")]
    sha256: Annotated[str, Field(description="Of its manifest, which holds those of all its files.")]
    loaded: Annotated[int, Field(description="How many times it was loaded, reloads included.")]


class BundleList(Wire):
    bundles: list[BundleInfo]


class Reloaded(Wire):
    """What came of one bundle: where ``error`` is not null, the one that was open goes on."""

    name: str
    sha256: str
    error: str | None


class ReloadResponse(Wire):
    bundles: list[Reloaded]


class Health(Wire):
    status: Literal["ok"]


class Readiness(Wire):
    status: Literal["ready", "draining"]


def finite(values: Any) -> _Q:
    """The two values of ``q`` float32[2], null for what JSON has no number for."""
    first, second = (float(value) for value in values)
    return _number(first), _number(second)


def _number(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
