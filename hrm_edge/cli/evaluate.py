"""`hrm-edge eval`: how often a checkpoint or bundle is right, and whether several agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..text import echo, echo_json
from .flags import Data, Json, MaxThinkSteps, N, Seed, Threads

if TYPE_CHECKING:
    from ..data.puzzles import PuzzleSet
    from ..measure.accuracy import Evaluation, Score
    from ..measure.artifact import Artifact
    from ..progress import Progress


def command(
    artifacts: Annotated[
        list[str],
        typer.Argument(help="Checkpoint folders, shipped models by name, or bundles; several are compared."),
    ],
    data: Data = None,
    by: Annotated[str, typer.Option(help="source, segments or source,segments; segments takes longer.")] = "source",
    n: N = None,
    max_think_steps: MaxThinkSteps = None,
    halt: Annotated[str, typer.Option(help="learned, verified or fixed.")] = "learned",
    retries: Annotated[int, typer.Option(min=0, help="Symmetric variants to try when a board is not right.")] = 0,
    threads: Threads = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Exact-solve and token accuracy, by source and by number of segments.

    exact: any answer that obeys the task's rules, as any shortest path of a maze. accuracy and exact_accuracy: as
    the public HRM and TRM code counts, against the given answers: the mean part of a puzzle's labelled cells that
    are as given, and the puzzles of which all are; "–" where no answer is given. MFLOP: million operations a
    puzzle, of matrix products and convolutions (a multiply-add is two): one segment's times the mean segments.

    With several artifacts the others are also compared with the first, answer for answer.
    """
    from ..data.leaks import distinct_puzzles
    from ..measure.accuracy import check_match, evaluate
    from ..measure.artifact import open_artifact
    from ..progress import progress, say

    opened = [open_artifact(path, threads) for path in artifacts]
    with progress() as report:
        given = puzzles_for(opened, data, n, seed, report)
    puzzles = distinct_puzzles(given, say)
    for artifact in opened:
        check_match(artifact.engine, puzzles)  # of all, before any work
    results: list[tuple[Artifact, Evaluation]] = []
    for artifact in opened:
        if artifact.warning:
            say(f"warning: {artifact.warning}")
        with progress() as report:
            evaluation = evaluate(
                artifact.engine,
                puzzles,
                max_think_steps=max_think_steps,
                halt=halt,
                retries=retries,
                seed=seed,
                by=[part.strip() for part in by.split(",") if part.strip()],
                segment_flops=artifact.segment_flops,
                progress=report,
            )
        results.append((artifact, evaluation))
        if not json_:
            _print(artifact, evaluation, puzzles)
            if len(results) > 1:
                _print_agreement(results[0][0], _agreement(results[0][1], evaluation))
    if json_:
        echo_json(_json(results, puzzles))


def puzzles_for(
    opened: list[Artifact], data: Path | None, n: int | None, seed: int, progress: Progress | None = None
) -> PuzzleSet:
    """From the file, else the held-out puzzles of the first checkpoint given."""
    from ..data.choose import evaluated_puzzles

    checkpoint = next((artifact.checkpoint for artifact in opened if artifact.checkpoint is not None), None)
    return evaluated_puzzles(opened[0].engine.task, checkpoint, data, n, seed, progress)


def _agreement(first: Evaluation, other: Evaluation) -> dict[str, Any]:
    """How two artifacts' answers to the same puzzles differ."""
    differ = (first.answers.tokens != other.answers.tokens).any(axis=1)
    return {
        "answers_differ": int(differ.sum()),
        "steps_differ": int((first.answers.steps != other.answers.steps).sum()),
        "lost": int((first.right & ~other.right).sum()),
        "won": int((~first.right & other.right).sum()),
        "differing_puzzles": [int(row) + 1 for row in differ.nonzero()[0][:20]],
    }


def _json(results: list[tuple[Artifact, Evaluation]], puzzles: PuzzleSet) -> dict[str, Any]:
    """One artifact: its scores. Several: `{"results": [scores…]}`, each but the first with its agreement."""
    rows: list[dict[str, Any]] = []
    for artifact, evaluation in results:
        row = {"artifact": str(artifact.path), "data": puzzles.name, **evaluation.to_dict()}
        if rows:
            row["agreement"] = _agreement(results[0][1], evaluation)
        rows.append(row)
    return rows[0] if len(rows) == 1 else {"results": rows}


def _print(artifact: Artifact, evaluation: Evaluation, puzzles: PuzzleSet) -> None:
    from ..measure.statistics import megaflops
    from .tables import print_rows

    flops = evaluation.segment_flops

    def cells(name: str, score: Score) -> tuple[str, ...]:
        fractions = ("–" if part is None else f"{part:.2%}" for part in (score.accuracy, score.exact_accuracy))
        work = "–" if flops is None else megaflops(flops * score.steps_mean)
        return name, str(score.n), f"{score.exact:.2%}", *fractions, f"{score.steps_mean:.2f}", work

    echo(f"{artifact.label} on {puzzles.name}")
    by_source = evaluation.by_source if len(evaluation.by_source) > 1 else {}
    rows = [*by_source.items(), ("all", evaluation.total)]
    rows += [(f"all, after {k}", score) for k, score in evaluation.by_segments.items()]
    head = ("puzzles", "n", "exact", "accuracy", "exact_accuracy", "segments", "MFLOP")
    print_rows(head, (cells(*row) for row in rows))
    if flops is not None:
        echo(f"  MFLOP a puzzle; a segment takes {megaflops(flops)}")
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
