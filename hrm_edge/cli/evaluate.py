"""`hrm-edge eval`: how often a checkpoint or bundle is right, and whether several agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..text import echo, echo_json
from .flags import HALT, Data, Json, MaxThinkSteps, N, Seed, Streams, Threads

if TYPE_CHECKING:
    from ..data.puzzles import PuzzleSet
    from ..measure.accuracy import Evaluation, Score
    from ..measure.artifact import Artifact


def command(
    artifacts: Annotated[
        list[str],
        typer.Argument(help="Checkpoint folders, shipped models by name, or bundles; several are compared."),
    ],
    data: Data = None,
    by: Annotated[str, typer.Option(help="source, segments or source,segments; segments takes longer.")] = "source",
    n: N = None,
    max_think_steps: MaxThinkSteps = None,
    halt: Annotated[str, typer.Option(help=HALT)] = "learned",
    retries: Annotated[int, typer.Option(min=0, help="Symmetric variants to try when a board is not right.")] = 0,
    threads: Threads = None,
    streams: Streams = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Exact-solve and token accuracy, by source and segments.

    exact: any answer that obeys the task's rules, as any shortest path of a maze. accuracy and exact_accuracy: as
    the public HRM and TRM code counts, against the given answers: the mean part of a puzzle's labelled cells that
    are as given, and the puzzles of which all are; "–" where no answer is given. MFLOP: million operations a
    puzzle, of matrix products and convolutions (a multiply-add is two): one segment's times the mean segments.
    What is not exact is wrong where the model halted on its answer, and else gave_up.

    With several artifacts the others are also compared with the first, answer for answer.
    """
    from ..measure.compare import open_comparison
    from ..progress import progress, say

    with progress() as report:
        found = open_comparison(artifacts, data, n, seed, threads, streams or 1, say=say, progress=report)
    for artifact in found.artifacts:
        if artifact.warning:
            say(f"warning: {artifact.warning}")
        with progress() as report:
            one = found.measure(
                artifact,
                max_think_steps=max_think_steps,
                halt=halt,
                retries=retries,
                seed=seed,
                by=by,
                progress=report,
            )
        if not json_:
            _print(artifact, one.evaluation, found.puzzles)
            if one.agreement is not None:
                _print_agreement(found.artifacts[0], one.agreement)
    if json_:
        echo_json(found.to_dict())


_FEW = 6  # numbers of segments: up to 32


def _print(artifact: Artifact, evaluation: Evaluation, puzzles: PuzzleSet) -> None:
    from ..measure.statistics import megaflops
    from .tables import print_rows

    flops = evaluation.segment_flops

    def cells(name: str, score: Score) -> tuple[str, ...]:
        parts = (score.wrong, score.gave_up, score.accuracy, score.exact_accuracy)
        fractions = ("–" if part is None else f"{part:.2%}" for part in parts)
        work = "–" if flops is None else megaflops(flops * score.steps_mean)
        return name, str(score.n), f"{score.exact:.2%}", *fractions, f"{score.steps_mean:.2f}", work

    echo(f"{artifact.label} on {puzzles.name}")
    by_source = evaluation.by_source if len(evaluation.by_source) > 1 else {}
    rows = [*by_source.items(), ("all", evaluation.total)]
    rows += [(f"all, after {k}", score) for k, score in evaluation.by_segments.items()]
    head = ("puzzles", "n", "exact", "wrong", "gave_up", "accuracy", "exact_accuracy", "segments", "MFLOP")
    print_rows(head, (cells(*row) for row in rows))
    if flops is not None:
        echo(f"  MFLOP a puzzle; a segment takes {megaflops(flops)}")
    if len(evaluation.right_within) > _FEW:  # a model that thinks as long as this may be given less
        within = ", ".join(f"{k}: {part:.2%}" for k, part in evaluation.right_within.items())
        echo(f"  right and halted within so many segments: {within}")
    if 0 < evaluation.total.labelled < evaluation.total.n:
        echo(f"  accuracy and exact_accuracy are of the {evaluation.total.labelled} puzzles whose answer is given")
    if evaluation.unjudged:
        echo(f"  {evaluation.unjudged} of {len(puzzles)} puzzles have no known answer and are left out")


def _print_agreement(first: Artifact, agreement: dict[str, Any]) -> None:
    differ, steps = agreement["answers_differ"], agreement["steps_differ"]
    if not differ and not steps:
        echo(f"  answers and number of segments are equal to those of {first.label}, puzzle for puzzle")
        return
    where = ", ".join(map(str, agreement["differing_puzzles"]))
    echo(
        f"  against {first.label}: {differ} answers differ ({agreement['lost']} lost, {agreement['won']} won)"
        f"{f', puzzles {where}' if where else ''}; {steps} took another number of segments"
    )
