"""Score any engine on a set of puzzles: exact solves, tokens, by source and by number of segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..data.puzzles import PuzzleSet, judged, judged_only
from ..errors import InputError
from ..halting import FIXED
from ..identifiers import require_same
from ..progress import Progress
from ..runtimes import Answers, Engine
from ..runtimes.engine import joined
from ..solve.retries import solve_with_retries
from ..solve.scheduler import Outcome, Scheduler
from ..tasks.base import PAD

# Puzzles per call of an engine. Large enough for a continuous batch, small enough for progress and for a
# trace of 32 guesses; fixed, because rounding may depend on the batch and a rerun must give the same answers.
CHUNK = 128

SEGMENT_COUNTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Score:
    """Scores on one group of puzzles; fractions are 0 to 1.

    `exact`: of all `n`, those answered rightly (:func:`rightness`: any answer that obeys the task's rules).
    Of the `labelled` ones, which have a given answer, two more, named and counted as the public HRM and TRM code
    logs them; both are None where nothing has a label. `accuracy`: the mean over puzzles of the part of a puzzle's
    labelled cells, givens included, that equal the label. `exact_accuracy`: those whose labelled cells all do.
    `steps_mean`: segments a puzzle took, in all its attempts. `wrong`: of all, those halted on an answer that is
    not right; `gave_up`: those that never halted, whose last guess is not. Both are None where halting is off.
    """

    exact: float
    token: float | None  # the same as `accuracy`
    n: int
    steps_mean: float
    exact_accuracy: float | None = None
    labelled: int = 0
    wrong: float | None = None
    gave_up: float | None = None

    @property
    def accuracy(self) -> float | None:
        return self.token

    def to_dict(self, segment_flops: int | None = None) -> dict[str, Any]:
        """All of it; `puzzle_flops` are those of a segment times `steps_mean`, None where they are not known."""
        flops = None if segment_flops is None else segment_flops * self.steps_mean
        return {**asdict(self), "accuracy": self.accuracy, "puzzle_flops": flops}


@dataclass(frozen=True)
class Evaluation:
    """One engine's scores on one puzzle set, with the answers they were counted from."""

    total: Score
    steps_histogram: dict[int, int]
    by_source: dict[str, Score]
    by_segments: dict[int, Score]
    unjudged: int  # puzzles in none of the scores: nothing tells whether their answers are right
    right: np.ndarray  # bool[N]; False where unjudged
    answers: Answers
    segment_flops: int | None = None  # of the engine, one puzzle; None: unknown
    right_within: dict[int, float] = field(default_factory=dict)  # by segments: of all, halted by then, and right

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `hrm-edge eval --json` prints (keys as in the command's help)."""
        flops = self.segment_flops
        return {
            **self.total.to_dict(flops),
            "segment_flops": flops,
            "steps_histogram": {str(steps): count for steps, count in self.steps_histogram.items()},
            "by_source": {name: score.to_dict(flops) for name, score in self.by_source.items()},
            "by_segments": {str(k): score.to_dict(flops) for k, score in self.by_segments.items()},
            "unjudged": self.unjudged,
            "right_within": {str(k): part for k, part in self.right_within.items()},
        }


def rightness(puzzles: PuzzleSet, tokens: np.ndarray) -> np.ndarray:
    """bool[N]: is each answer right? `tokens` int32[N, S].

    Equal to the label, or another answer the task's own rules accept: a maze may have several shortest
    paths. With one right answer (a proper Sudoku) the two are the same thing. Without rules the label alone
    decides: its padding counts for nothing, and a label that is all padding is no label.
    """
    if not puzzles.task.has_rules:
        if puzzles.answers is None:
            raise puzzles.task.no_rules("without labels nothing tells which answers are right")
        return label_match(puzzles, tokens)
    if puzzles.answers is None:
        return np.asarray(puzzles.task.verify(puzzles.questions, tokens), dtype=bool)
    right = (tokens == puzzles.answers).all(axis=1)
    if not right.all():
        others = ~right
        right[others] = puzzles.task.verify(puzzles.questions[others], tokens[others])
    return right


def label_match(puzzles: PuzzleSet, tokens: np.ndarray) -> np.ndarray:
    """bool[N]: does each answer equal its label in all labelled cells? False where there is no label."""
    labelled = _labelled_cells(puzzles)
    return ((tokens == puzzles.answers) | ~labelled).all(axis=1) & labelled.any(axis=1)


def _labelled_cells(puzzles: PuzzleSet) -> np.ndarray:
    """bool[N, S]"""
    return np.zeros(puzzles.questions.shape, bool) if puzzles.answers is None else puzzles.answers != PAD


def token_accuracy(puzzles: PuzzleSet, tokens: np.ndarray) -> np.ndarray | None:
    """float[N]: the fraction of all labelled cells, givens included, that equal the label; None without labels."""
    if puzzles.answers is None:
        return None
    labelled = _labelled_cells(puzzles)
    return ((tokens == puzzles.answers) & labelled).sum(axis=1) / labelled.sum(axis=1).clip(min=1)


def by_chunks(count: int) -> Iterator[slice]:
    """The rows of each chunk of ``count`` puzzles."""
    return (slice(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK))


def answer_all(
    engine: Engine,
    puzzles: PuzzleSet,
    *,
    max_think_steps: int | None = None,
    halt: str = "learned",
    retries: int = 0,
    seed: int = 0,
    calls: Callable[[int], Iterator[slice]] = by_chunks,
    progress: Progress | None = None,
) -> Answers:
    """The engine's answers to every puzzle, in order, without a trace.

    With `retries` (see :func:`solve_with_retries`) `steps` counts the segments of all attempts. `calls`: the rows
    of each call of the engine, of a number of puzzles. An engine of several streams is asked for each row alone.
    """
    if engine.streams > 1 and calls is by_chunks:
        asked: dict[str, Any] = {"max_think_steps": max_think_steps, "halt": halt, "retries": retries, "seed": seed}
        return _side_by_side(engine, puzzles, progress, asked)

    settings: dict[str, Any] = {"max_think_steps": max_think_steps, "halt": halt}

    def solve(some: PuzzleSet) -> Answers:
        settings["puzzle_identifiers"] = some.identifiers
        if not retries:
            return engine.solve(some.questions, **settings)
        tried = solve_with_retries(engine, some.questions, retries, seed=seed, **settings)
        return replace(tried.answers, steps=tried.segments)

    chunks = in_chunks(puzzles, progress, f"solving with {engine.backend}", calls)
    parts = [solve(some) for _, some in chunks]
    return joined(parts)


def _side_by_side(
    engine: Engine, puzzles: PuzzleSet, progress: Progress | None, options: dict[str, Any]
) -> Answers:
    identifiers = [None] * len(puzzles) if puzzles.identifiers is None else puzzles.identifiers
    rows = zip(puzzles.questions, identifiers, strict=True)
    came: list[Outcome] = []
    with Scheduler(engine) as scheduler:
        items = ({"tokens": tokens, "puzzle_identifier": each} for tokens, each in rows)
        for outcome in scheduler.map(items, **options):
            came.append(outcome)
            if progress is not None:
                progress(f"solving with {engine.backend}", len(came), len(puzzles))
    return Answers(
        tokens=np.stack([outcome.tokens for outcome in came]),
        steps=np.array([outcome.segments for outcome in came], np.int32),
        halted=np.array([outcome.halted for outcome in came]),
        q=np.stack([outcome.q for outcome in came]),
    )


def evaluate(
    engine: Engine,
    puzzles: PuzzleSet,
    *,
    max_think_steps: int | None = None,
    halt: str = "learned",
    retries: int = 0,
    seed: int = 0,
    by: Sequence[str] = ("source",),
    segment_flops: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score `engine` on `puzzles`. Those without a label count for nothing where a task has no rules.

    Arguments are those of :func:`answer_all`. `by`: "source" and/or "segments", which costs a second pass, with
    halting off and no retries. `segment_flops`: the engine's (`Artifact.segment_flops`). InputError for puzzles
    that do not fit or have no right answer, and for a breakdown that does not exist.
    """
    check_match(engine, puzzles)
    counted = judged(puzzles)
    judged_only(puzzles)  # refuses, before the work, when there is none
    if unknown := sorted(set(by) - {"source", "segments"}):
        raise InputError(f"cannot break scores down by {unknown[0]!r}; use source, segments or source,segments")
    answers = answer_all(
        engine, puzzles, max_think_steps=max_think_steps, halt=halt, retries=retries, seed=seed, progress=progress
    )
    count = _Counts(puzzles, answers.tokens, answers.steps, None if halt == FIXED.name else answers.halted)
    sources = np.array(puzzles.sources)
    names = dict.fromkeys(sources[counted].tolist()) if "source" in by else ()
    by_source = {name: count.score(counted & (sources == name)) for name in names}
    return Evaluation(
        total=count.score(counted),
        steps_histogram={
            int(k): int(n) for k, n in zip(*np.unique(answers.steps[counted], return_counts=True), strict=True)
        },
        by_source=by_source,
        by_segments=by_segments(engine, puzzles, max_think_steps, progress) if "segments" in by else {},
        unjudged=int((~counted).sum()),
        right=count.right,
        answers=answers,
        segment_flops=segment_flops,
        right_within=count.right_within(counted),
    )


def by_segments(
    engine: Engine, puzzles: PuzzleSet, max_think_steps: int | None = None, progress: Progress | None = None
) -> dict[int, Score]:
    """Scores of the guess after 1, 2, 4, … segments (at most `max_think_steps`, else 32), halting off."""
    puzzles = judged_only(puzzles)
    counts = [k for k in SEGMENT_COUNTS if max_think_steps is None or k <= max_think_steps]
    if max_think_steps is not None and max_think_steps not in counts:
        counts.append(max_think_steps)
    parts = in_chunks(puzzles, progress, f"segment by segment with {engine.backend}")
    every = np.concatenate([guesses_after(engine, some, counts) for _, some in parts], axis=1)
    return {
        k: _Counts(puzzles, tokens, np.full(len(tokens), k)).score()
        for k, tokens in zip(counts, every, strict=True)
    }


def guesses_after(engine: Engine, puzzles: PuzzleSet, counts: Sequence[int]) -> np.ndarray:
    """int32[len(counts), N, S]: the guesses after each of these numbers of segments, which rise; halting off.

    A host loop is asked once, for a trace; a graph loop shows only its last guess, so it is asked once for
    each number of segments.
    """
    settings: dict[str, Any] = {"halt": "fixed", "puzzle_identifiers": puzzles.identifiers}
    if engine.loop == "graph":
        return np.stack([engine.solve(puzzles.questions, k, **settings).tokens for k in counts])
    trace = engine.solve(puzzles.questions, counts[-1], trace=True, **settings).trace
    assert trace is not None  # asked for above
    return trace[[k - 1 for k in counts]]


def check_match(engine: Engine, puzzles: PuzzleSet) -> None:
    """InputError unless there are puzzles, of the engine's task and with the identifiers of its training."""
    if len(puzzles) == 0:
        raise InputError(f"{puzzles.name}: no puzzles to measure on")
    if (puzzles.task.name, puzzles.task.definition) != (engine.task.name, engine.task.definition):
        raise InputError(
            f"{puzzles.name}: holds {puzzles.task.name} puzzles, but the model solves {engine.task.name}"
        )
    require_same(puzzles.numbering, engine.numbering, puzzles.name)


def in_chunks(
    puzzles: PuzzleSet, progress: Progress | None, what: str, calls: Callable[[int], Iterator[slice]] = by_chunks
) -> Iterator[tuple[np.ndarray, PuzzleSet]]:
    """(rows int[b], the puzzles there) of each chunk; `progress` is told once a chunk is done with."""
    for call in calls(len(puzzles)):
        rows = np.arange(call.start, call.stop)
        yield rows, puzzles.select(rows)
        if progress is not None:
            progress(what, int(rows[-1]) + 1, len(puzzles))


class _Counts:
    """What scores are counted from: ``tokens`` int32[N, S], given after ``steps`` int[N] segments.

    ``halted`` bool[N]: whose halting rule stopped them; None: nothing halts.
    """

    def __init__(
        self, puzzles: PuzzleSet, tokens: np.ndarray, steps: np.ndarray, halted: np.ndarray | None = None
    ) -> None:
        self.right, self.steps, self.halted = rightness(puzzles, tokens), steps, halted
        self.token, self.match = token_accuracy(puzzles, tokens), label_match(puzzles, tokens)
        self.labelled = np.asarray(_labelled_cells(puzzles).any(axis=1))

    def score(self, rows: np.ndarray | slice = slice(None)) -> Score:
        """Of the puzzles at ``rows``, at least one."""
        right, labelled = self.right[rows], self.labelled[rows]
        token = exact = None
        if self.token is not None and labelled.any():
            token, exact = float(self.token[rows][labelled].mean()), float(self.match[rows][labelled].mean())
        return Score(
            exact=float(right.mean()),
            token=token,
            n=len(right),
            steps_mean=float(self.steps[rows].mean()),
            exact_accuracy=exact,
            labelled=int(labelled.sum()),
            wrong=None if self.halted is None else float((~right & self.halted[rows]).mean()),
            gave_up=None if self.halted is None else float((~right & ~self.halted[rows]).mean()),
        )

    def right_within(self, rows: np.ndarray) -> dict[int, float]:
        """Of the puzzles at ``rows``, by segments 1, 2, 4, …: those that had halted by then, and are right."""
        if self.halted is None:
            return {}
        steps = self.steps[rows]
        counts = [2**k for k in range((int(steps.max()) - 1).bit_length() + 1)]
        halted = self.right[rows] & self.halted[rows]
        return {k: float((halted & (steps <= k)).mean()) for k in counts}
