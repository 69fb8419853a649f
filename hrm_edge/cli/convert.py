"""`hrm-edge convert`: a checkpoint becomes one of the public HRM or TRM code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder, or the name of a shipped model.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to write all_config.yaml and step_N into.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier conversion wrote there.")] = False,
) -> None:
    """Write a checkpoint in the layout of the public code. `hrm-edge import` reads the very same back."""
    from ..importing import convert_checkpoint
    from ..progress import say
    from ..text import best_effort, echo

    file = convert_checkpoint(checkpoint, output, force=force, say=say)
    with best_effort():
        echo(str(file))
