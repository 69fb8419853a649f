"""Flags that several commands have, each with its one help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..halting import RULES

# What a file of puzzles may be; hrm_edge/data/README.md has each form.
FORMS = "text, table, JSON, XML or NumPy, compressed or not, or a folder in the public layout; - is standard input"

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
HALT = "When to stop thinking: " + "; ".join(f"{rule.name}: {rule.when}" for rule in RULES.values()) + "."
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")]
Streams = Annotated[
    int | None,
    typer.Option(min=1, help="Puzzles thought over side by side, which share the threads."),
]
MaxThinkSteps = Annotated[
    int | None, typer.Option(min=1, help="Most segments per puzzle; the model's own by default.")
]
Data = Annotated[
    Path | None, typer.Option(help=f"Puzzles: {FORMS}. Left out: a checkpoint's own held-out puzzles.")
]
N = Annotated[
    int | None,
    typer.Option(
        "--n",
        min=1,
        help="Only this many puzzles: drawn from --data with --seed, or the first of a checkpoint's own.",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of what --n draws from --data, and of --retries; nothing else.")
]
Output = Annotated[
    list[Path] | None,
    typer.Option(
        "-o", "--output", help="FILE.png or .svg: the plot; .json: the numbers; .md: a table. Repeatable."
    ),
]
