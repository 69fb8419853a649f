"""`hrm-edge bench`: speed, memory and size of engines side by side, as ratios against PyTorch eager."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..text import echo, echo_json
from .flags import Json

if TYPE_CHECKING:
    from ..data.puzzles import PuzzleSet
    from ..measure.speed import SpeedReport


def command(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(
            help="A checkpoint (folder or shipped name) and bundles of it. A checkpoint alone is first exported "
            "for every backend usable here, in both loop kinds."
        ),
    ] = None,
    random_weights: Annotated[
        str | None,
        typer.Option(help="In place of a checkpoint: a size with random weights (paper: 27 M parameters)."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Puzzles to solve with learned halting; held-out or generated ones by default."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Precision of what is exported here, or several: fp32,int8.")
    ] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Puzzles per call, the same for all.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Every round times every engine once.")] = 9,
    segments: Annotated[int, typer.Option(min=1, help="Segments of a fixed-length call.")] = 8,
    n: Annotated[
        int | None, typer.Option(min=1, help="Puzzles solved with learned halting, over all rounds.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads, the same for all.")] = None,
    torch_compile: Annotated[bool, typer.Option("--torch-compile", help="Add PyTorch compiled.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Peak memory, each in its own process.")
    ] = True,
    json_: Json = False,
) -> None:
    """Interleaved rounds of all engines in one process; medians, and ratios taken within each round."""
    from ..analysis.bench import compiled, paths_to_time
    from ..data.choose import any_puzzles
    from ..measure.artifact import open_artifact
    from ..measure.speed import Settings, bench, default_threads
    from ..progress import progress, say

    per_round = -(-n // (rounds * batch)) if n else (1 if random_weights else 4)
    settings = Settings(
        threads=threads or default_threads(),
        batch=batch,
        rounds=rounds,
        segments=segments,
        per_round=per_round,
        memory=memory,
        random_weights=random_weights is not None,
    )
    with tempfile.TemporaryDirectory(prefix="hrm-edge-bench-") as scratch:
        paths = paths_to_time(artifacts or [], random_weights, precision.split(","), Path(scratch))
        opened = [open_artifact(path, settings.threads) for path in paths]
        for artifact in opened:
            if "(interpreted)" in artifact.engine.backend:
                say(f"note: {artifact.name} is interpreted here: its time says nothing of Core ML's")
        if torch_compile:
            opened.insert(1, compiled(opened, settings.threads))
        puzzles = any_puzzles(opened[0].engine.task, rounds * per_round * batch, data, opened[0].checkpoint)
        say(f"{len(opened)} engines, {rounds} rounds, {settings.threads} threads, batch {batch}")
        with progress() as show:
            report = bench(opened, puzzles, settings, show)
    if json_:
        echo_json(asdict(report))
    else:
        _print(report, puzzles)


def _print(report: SpeedReport, puzzles: PuzzleSet) -> None:
    from .tables import print_rows

    settings = report.settings
    head = ("engine", "runs as", "ms/segment", "× eager", "ms/puzzle", "exact", "peak MB", "size MB")
    rows = [
        (
            *(row.engine, f"{row.backend} {row.precision}, {row.loop} loop", f"{row.ms_per_segment:.2f}"),
            "–" if row.ratio_vs_eager is None else f"{row.ratio_vs_eager:.2f}",
            f"{row.ms_per_puzzle:.1f}",
            "–" if row.exact is None else f"{row.exact:.1%}",
            "–" if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}",
            f"{row.size_mb:.2f}",
        )
        for row in report.rows
    ]
    print_rows(head, rows, left=2)
    echo(
        f"Medians of {settings.rounds} interleaved rounds, {settings.threads} threads, batch {settings.batch}. "
        f"A segment: calls of {settings.segments} with halting off. A puzzle: learned halting, "
        f"{report.puzzles} puzzles of {puzzles.name}."
    )
    for name, value in report.ceilings.items():
        echo(f"  {name.replace('_', ' ')}: {value:.4g}")
    for note in report.notes:
        echo(f"  note: {note}")
