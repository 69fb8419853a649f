"""`hrm-edge import`: a public HRM or TRM checkpoint becomes a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    weights: Annotated[Path, typer.Argument(help="The public trainer's step_N file, or the folder that holds it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint folder to write.")],
    config: Annotated[
        Path | None, typer.Option(help="all_config.yaml; left out: the one beside the weights.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Left out: told from the config's data_path.")] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Of a folder's files, this step; left out: the last.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Where a file holds several tables of weights, as model and ema: this one.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Puzzles to measure it on, and whose identifiers it was trained with.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Only so many of --data.")] = None,
    expect_exact: Annotated[
        float | None,
        typer.Option(
            help="The part of --data that its authors say it solves (exact_accuracy), as 0.87: one that solves "
            "fewer is not written, and the exit code is 1."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint that is there.")] = False,
) -> None:
    """Convert a public HRM or TRM checkpoint; no code in it is run."""
    from ..importing import import_checkpoint
    from ..progress import progress, say
    from ..text import best_effort, echo

    with progress() as report:
        made = import_checkpoint(
            weights,
            output,
            config=config,
            task=task,
            step=step,
            key=key,
            data=data,
            n=n,
            expect_exact=expect_exact,
            force=force,
            say=say,
            progress=report,
        )
    with best_effort():
        echo(str(made.path))
    say(f"next: hrm-edge eval {output} --data FILE   or   hrm-edge export {output} --data FILE")
