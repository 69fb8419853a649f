"""The report of a bundle as strict records: what is measured is made plain, what is read can also be drawn."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from ..bundle.manifest import Batch
from ..errors import InputError
from ..measure.drift import SegmentDrift
from ..records import LARGEST, STRICT, Count, Fraction, MaybeFraction, MaybeSize, OneOrMore, Size, between, must_be
from ..tasks import Task
from ..tasks.carried import CarriedTask, known_task

FORMAT_VERSION = 2

_LONGEST = 4000  # characters, but for boards
_MOST = 100_000  # entries of a list


def _is_line(text: str) -> bool:
    return len(text) <= _LONGEST and text.isprintable()


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise PydanticCustomError("must_be", "", {"wanted": "two numbers, the lower first"})
    return pair


Line = Annotated[str, must_be("a line of text", _is_line)]
Lines = Annotated[tuple[Line, ...], Field(max_length=2000)]
Named = dict[Line, Line]
Counts = Annotated[tuple[Count, ...], Field(max_length=1000)]
Anything = Annotated[int | float, between(-LARGEST, LARGEST)]
Points = Annotated[int | float, between(-100, 100)]
Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)]


@dataclass(frozen=True, config=STRICT)
class BundleFacts:
    """Which bundle the report is about, and what it was made from and with."""

    name: Line
    task: Line
    target: Line
    precision: Line
    precision_parts: Named
    loop: Line
    batch: Batch
    parameters: OneOrMore
    hidden_size: OneOrMore
    halt_max_steps: OneOrMore
    bytes: Count | None
    source: Named
    tools: Named


@dataclass(frozen=True, config=STRICT)
class Verdict:
    """The gate's verdict, and what the paired comparison can show."""

    passed: bool
    reason: Line
    notes: Annotated[tuple[Line, ...], Field(max_length=100)]
    puzzles: Line
    puzzles_hash: Line
    n: OneOrMore
    halt: Line
    max_think_steps: OneOrMore
    max_drop: Size
    lost: Count
    won: Count
    drop_points: Points
    drop_interval: Annotated[tuple[Points, Points], AfterValidator(_ordered)]
    confidence: Fraction
    p_value: Fraction
    answers_differ: Count
    halt_shift: Anything
    max_halt_shift: Size


@dataclass(frozen=True, config=STRICT)
class Side:
    """One side's figures on all puzzles."""

    engine: Line
    exact: Fraction
    exact_interval: Interval
    token: Fraction | None
    token_interval: Interval | None
    steps_mean: Size
    halted: Fraction


@dataclass(frozen=True, config=STRICT)
class Sides:
    reference: Side
    candidate: Side


@dataclass(frozen=True, config=STRICT)
class Rate:
    exact: Fraction
    interval: Interval


@dataclass(frozen=True, config=STRICT)
class SegmentAccuracy:
    """Exact accuracy of both sides after so many segments, halting off."""

    segments: OneOrMore
    n: OneOrMore
    reference: Rate
    candidate: Rate


@dataclass(frozen=True, config=STRICT)
class Differences:
    """Where answers that differ came apart, in one summary."""

    followed: Count
    only_stops: Count
    segment_median: MaybeSize
    margin_median: MaybeSize
    margin_max: MaybeSize


@dataclass(frozen=True, config=STRICT)
class Halting:
    """How many puzzles took 1, 2, … segments, and how many of them the same number on both sides."""

    reference: Counts
    candidate: Counts
    agree: Fraction
    within_one: Fraction


@dataclass(frozen=True, config=STRICT)
class Layer:
    """A weight matrix, as in the quantization record."""

    name: Line
    dtype: Line
    calls: Count
    absmax: MaybeSize
    error: MaybeSize
    kept: Line | None


@dataclass(frozen=True, config=STRICT)
class Site:
    """An activation quantizer, as in the quantization record."""

    name: Line
    absmax: MaybeSize
    scale: MaybeSize
    clipped: MaybeFraction


@dataclass(frozen=True, config=STRICT)
class Calibration:
    """As in the quantization record; of its fingerprints, how many are of puzzles that were measured on."""

    puzzles: Line
    n: Count
    segments: Line
    estimator: Line
    smooth: Anything
    samples: Count
    measured: Count


@dataclass(frozen=True, config=STRICT)
class Trial:
    """As in the quantization record, and what its counts come to."""

    what: Line
    n: OneOrMore
    exact: Fraction
    token: Fraction
    lost: Count
    won: Count
    steps_mean: Size
    halt_agree: Fraction
    float_exact: Fraction
    float_steps_mean: Size
    drop_points: Points
    p_value: Fraction


@dataclass(frozen=True, config=STRICT)
class Products:
    """As in the quantization record."""

    expected: Count
    found: Count
    kinds: dict[Line, Count]
    missing: Lines


@dataclass(frozen=True, config=STRICT)
class Quantization:
    """The quantization record as a page needs it."""

    precision: Line
    checkpoint: Line
    weights_bytes: Count
    float_weights_bytes: Count
    layers: Annotated[tuple[Layer, ...], Field(max_length=2000)]
    sites: Annotated[tuple[Site, ...], Field(max_length=20_000)]
    calibration: Calibration | None
    comparison: Annotated[tuple[Trial, ...], Field(max_length=1000)]
    sensitivity: Annotated[tuple[Trial, ...], Field(max_length=2000)]
    budget: Annotated[tuple[Trial, ...], Field(max_length=2000)]
    products: Products | None
    trained: bool
    notes: Annotated[tuple[Line, ...], Field(max_length=100)]


@dataclass(frozen=True, config=STRICT)
class SpeedRow:
    """One engine's row of `hrm-edge bench`."""

    engine: Line
    backend: Line
    precision: Line
    loop: Line
    batch: OneOrMore
    ms_per_segment: Size
    ms_per_segment_quartiles: Annotated[tuple[Size, Size], AfterValidator(_ordered)]
    ms_per_puzzle: Size
    ratio_vs_eager: MaybeSize
    exact: MaybeFraction
    peak_rss_mb: MaybeSize
    size_mb: Size


@dataclass(frozen=True, config=STRICT)
class Speed:
    """All rows, which of them is the bundle's, and how it compares."""

    rows: Annotated[tuple[SpeedRow, ...], Field(max_length=100)]
    own: Count | None
    ratio_vs_eager: MaybeSize
    ratio_vs_float: MaybeSize


@dataclass(frozen=True, config=STRICT)
class Answer:
    """One side's answer to a puzzle; `wrong`: cells, counted from 0."""

    answer: str
    right: bool
    wrong: Annotated[tuple[Count, ...], Field(max_length=_MOST)]
    steps: Count


@dataclass(frozen=True, config=STRICT)
class Began:
    """Where two answers came apart: after which segment, in how many cells, the float model's margin there."""

    segment: OneOrMore
    cells: Count
    margin: MaybeSize


@dataclass(frozen=True, config=STRICT)
class Puzzle:
    """A puzzle that both sides answered; numbers count from 1."""

    number: OneOrMore
    source: Line
    question: str
    began: Began | None
    reference: Answer
    candidate: Answer


@dataclass(frozen=True, config=STRICT)
class Puzzles:
    """How many puzzles are of a kind, and the first few of them."""

    total: Count
    shown: Annotated[tuple[Puzzle, ...], Field(max_length=100)]


@dataclass(frozen=True, config=STRICT)
class PuzzleKinds:
    lost: Puzzles
    won: Puzzles
    differ: Puzzles


@dataclass(frozen=True, config=STRICT)
class Report:
    """Everything the pages show; fractions are 0 to 1, sizes bytes, times ms."""

    bundle: BundleFacts
    gate: Verdict
    accuracy: Sides
    by_segments: Annotated[tuple[SegmentAccuracy, ...], Field(max_length=1000)]
    drift: Annotated[tuple[SegmentDrift, ...], Field(max_length=1000)]
    differences: Differences | None
    halting: Halting
    quantization: Quantization | None
    speed: Speed | None
    puzzles: PuzzleKinds
    task: CarriedTask | None = None  # what the bundle carries of it; None: its name says all
    format_version: Annotated[int, must_be(str(FORMAT_VERSION), lambda version: version == FORMAT_VERSION)] = (
        FORMAT_VERSION
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a task that its name says all of is left out."""
        content = asdict(self)
        if self.task is None:
            del content["task"]
        return content

    def to_json(self) -> str:
        """The content of `report.json`."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @functools.cached_property
    def whole_task(self) -> Task:
        """The task of the bundle. InputError where this hrm-edge does not know it."""
        name = self.bundle.task
        return known_task(name) if self.task is None else self.task.task(name)

    @model_validator(mode="after")
    def _check_whole(self) -> Report:
        """What no single field can tell."""
        if len(self.halting.reference) != len(self.halting.candidate):
            raise ValueError("halting must count both sides up to the same segment")
        if self.speed and self.speed.own is not None and self.speed.own >= len(self.speed.rows):
            raise ValueError("speed.own must be one of the rows")
        states = {tuple(state.name for state in row.states) for row in self.drift}
        if len(states) > 1 or () in states:
            raise ValueError("drift must be of the same state tensors in every segment")
        try:
            task = self.whole_task
        except InputError as error:
            raise ValueError(f"bundle.task is unknown ({error})") from None
        for kind in ("lost", "won", "differ"):
            for number, puzzle in enumerate(getattr(self.puzzles, kind).shown):
                if problem := _board_problem(task, puzzle):
                    raise ValueError(f"puzzles.{kind}.shown[{number}] {problem}")
        return self


def _board_problem(task: Task, puzzle: Puzzle) -> str | None:
    sides = (puzzle.reference, puzzle.candidate)
    for board in (puzzle.question, *(side.answer for side in sides)):
        try:
            task.read_back(board)
        except ValueError:
            return f"must hold boards of {task.name}, not {board[:40]!r}"
    if any(cell >= task.seq_len for side in sides for cell in side.wrong):
        return f"names a wrong cell beyond the {task.seq_len} of {task.name}"
    return None
