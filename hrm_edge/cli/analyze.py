"""``hrm-edge analyze``: accuracy against thinking, halting, participation ratio and ablations, with plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..text import best_effort, echo, echo_json
from .flags import Data, Json, N, Output, Seed, Threads

if TYPE_CHECKING:
    from ..analysis.tables import Table

command = typer.Typer(
    help="Accuracy against thinking, halting, states, ablations. As tables and plots.",
    no_args_is_help=True,
)


@command.command()
def segments(
    artifacts: Annotated[list[str], typer.Argument(help="Checkpoints, shipped models by name, or bundles.")],
    data: Data = None,
    counts: Annotated[
        str, typer.Option("--segments", help="Numbers of segments to measure at.")
    ] = "1,2,4,8,16,32,64",
    retries: Annotated[
        int, typer.Option(min=0, help="Also with verification and up to this many symmetric retries.")
    ] = 0,
    n: N = None,
    seed: Seed = 0,
    threads: Threads = None,
    output: Output = None,
    json_: Json = False,
) -> None:
    """Solve rate against the number of segments and of retries.

    By source; of symmetric retries with --retries. Two columns for each number of segments: halting off, and as
    `eval --halt verified --retries K` counts. By retries, r counts the first r of these K variants; `eval
    --retries r` may draw others. A task without rules (arc) has the first column alone.
    """
    from ..analysis.output import check_outputs
    from ..analysis.plots import segments_picture
    from ..analysis.segments import segment_rates
    from ..analysis.tables import card_table, segment_tables
    from ..measure.artifact import open_artifact
    from ..measure.compare import puzzles_for
    from ..progress import progress, say

    check_outputs(output or [], data)
    numbers = _whole_numbers("--segments", counts)
    opened = [open_artifact(path, threads) for path in artifacts]
    with progress() as report:
        puzzles = puzzles_for(opened, data, n, seed, report)
    for artifact in opened:
        if artifact.warning:
            say(f"warning: {artifact.warning}")
    if retries and not puzzles.task.has_rules:
        say(f"{puzzles.task.name} has no rules to verify an answer by, so --retries {retries} is left out")
    results = []
    for artifact in opened:
        with progress() as report:
            options: Any = {"segments": numbers, "retries": retries, "seed": seed, "progress": report}
            results.append(segment_rates(artifact.engine, puzzles, name=artifact.label, **options))
        if not json_:
            echo(f"{artifact.label} on {puzzles.name}, trained with up to {results[-1].limit} segments")
            for table in segment_tables(results[-1]):
                _print(table)
    content = {"results": [result.to_dict() for result in results]}
    _publish(output, json_, content, card_table(results), lambda kind: segments_picture(results, kind), show=False)


def _whole_numbers(flag: str, text: str) -> list[int]:
    from ..errors import InputError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{flag} {text}: expected whole numbers with commas between them, as in 1,4,16") from None


@command.command()
def halting(
    artifact: Annotated[str, typer.Argument(help="A checkpoint, a shipped model by name, or a bundle.")],
    data: Data = None,
    n: N = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what --n draws from --data; nothing else.")] = 0,
    threads: Threads = None,
    output: Output = None,
    json_: Json = False,
) -> None:
    """When it stops, and how often on a wrong answer.

    By source and by difficulty (the task's rating). And what its halting head knows: AUC and calibration of
    q_halt against whether the guess is right, over the guesses after 1, 2, 4, … segments with halting off.
    """
    from dataclasses import asdict

    from ..analysis.halting import halting as measure
    from ..analysis.output import check_outputs
    from ..analysis.plots import halting_picture
    from ..analysis.tables import halting_table
    from ..measure.artifact import open_artifact
    from ..measure.compare import puzzles_for
    from ..progress import progress, say

    check_outputs(output or [], data)
    opened = open_artifact(artifact, threads)
    if opened.warning:
        say(f"warning: {opened.warning}")
    with progress() as report:
        puzzles = puzzles_for([opened], data, n, seed, report)
        result = measure(opened.engine, puzzles, name=opened.label, progress=report)
    _publish(output, json_, asdict(result), halting_table(result), lambda kind: halting_picture(result, kind))


@command.command()
def participation(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A checkpoint or a shipped model; measured beside its untrained twin.")
    ] = None,
    random_weights: Annotated[
        str | None, typer.Option(help="In its place: a size with random weights (paper: 27 M parameters).")
    ] = None,
    data: Data = None,
    trajectories: Annotated[
        int,
        typer.Option(
            min=2,
            help="Most puzzles whose states are pooled: drawn from --data with --seed, or the first of a "
            "checkpoint's own.",
        ),
    ] = 100,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of random weights, and of puzzles drawn from --data or generated.")
    ] = 0,
    threads: Threads = None,
    output: Output = None,
    json_: Json = False,
) -> None:
    """Participation ratio of the states, by trajectories.

    It is (Σλ)²/Σλ² of the covariance of z_H and z_L. A sample is one cell's state at the end of a segment,
    prefix left out; samples are centred, and pooled over all segments the model is trained for and over k
    puzzles (trajectories). Figures for k are means over the disjoint sets of k. Published (untrained, paper's
    size): z_H 40.75, z_L 42.09; this convention comes to 43.8 and 41.6 at k = 5, the closest of those tried,
    and grows with k.
    """
    from dataclasses import asdict

    from ..analysis.output import check_outputs
    from ..analysis.participation import networks_and_puzzles
    from ..analysis.participation import participation as measure
    from ..analysis.plots import participation_picture
    from ..analysis.tables import participation_table
    from ..progress import progress

    check_outputs(output or [], data)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    networks, puzzles = networks_and_puzzles(checkpoint, random_weights, data, trajectories, seed)
    with progress() as report:
        results = [measure(network, *puzzles, name=name, progress=report) for name, network in networks]
    content = {"results": [asdict(result) for result in results]}
    table = participation_table(results)
    _publish(output, json_, content, table, lambda kind: participation_picture(results, kind))


@command.command()
def ablations(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder: a run for each variant and seed, the table, the plot.")
    ],
    task: Annotated[str, typer.Option(help="sudoku-6x6, sudoku, maze-15x15, …")] = "sudoku-6x6",
    preset: Annotated[str, typer.Option(help="What the full model is trained with, as in train.")] = "tiny",
    steps: Annotated[int, typer.Option(min=0, help="Training steps of each run.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="Training time of each run.")] = 0.0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this variant (full, no-hierarchy, …); repeat for more.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="As in train. Left out: generated:20000.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One field for all runs, as in --set train.bf16=false.")
    ] = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """What each part of an HRM is worth, by paired short runs.

    They differ in one part, and resume where they stopped. Trained in bfloat16 and compiled, about twice as
    quick on a CPU; --set train.compile=false where there is no C++ compiler.
    """
    from dataclasses import asdict

    import torch

    from ..analysis.ablations import run_ablations, summarize
    from ..analysis.output import check_outputs
    from ..analysis.plots import ablations_picture
    from ..analysis.tables import ablations_table

    files = [output / f"ablations{ending}" for ending in (".json", ".md", ".png")]
    check_outputs(files)
    if threads is not None:
        torch.set_num_threads(threads)
    limits = ["train.bf16=true", "train.compile=true"]
    limits += [f"train.steps={steps}"] * bool(steps) + [f"train.minutes={float(minutes)}"] * bool(minutes)
    runs = run_ablations(
        task,
        output,
        preset=preset,
        seeds=seeds,
        only=only or [],
        data=data or ["generated:20000"],
        settings=[*limits, *(set_ or [])],
    )
    rows = summarize(runs)
    content = {"task": task, "preset": preset, "runs": [asdict(run) for run in runs]}
    table = ablations_table(rows, runs[0].n)
    _publish(files, json_, content, table, lambda kind: ablations_picture(rows, kind))


def _publish(
    output: Sequence[Path] | None,
    json_: bool,
    content: Any,
    table: Table,
    picture: Callable[[str], bytes],
    show: bool = True,
) -> None:
    """The result as a table or, with --json, as numbers; and in the files of --output."""
    from ..analysis.output import write_outputs

    write_outputs(output or [], content, table, picture)
    with best_effort() if output else nullcontext():
        if json_:
            echo_json(content)
        elif show:
            _print(table)


def _print(table: Table) -> None:
    from .tables import print_rows

    print_rows(table.head, table.rows, table.left, no_wrap=False)
    for note in table.notes:
        echo(note)
