"""`hrm-edge train`: a checkpoint from puzzles, on a CPU or CUDA, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder; a run found there is resumed.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="sudoku, sudoku-6x6, maze-15x15, arc, arc-10x10, …, or a folder of puzzles in the public layout. "
            "Left out: told by --data, else sudoku."
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Instead of an HRM, a network of others: package.module:factory, where factory(), or "
            "factory(task), gives a torch.nn.Module with start and segment (exporters/README.md). The preset is "
            "its training's alone."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="--network: weights to start from, in any wrapper; left out: as factory() made."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="--weights: which of several tables in the file.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="sudoku, maze; deduce (candidates, for tasks with groups); tiny, small (attention, for a CPU); "
            "paper, arc (27 M parameters, GPU)."
        ),
    ] = "small",
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="FILE[:SOURCE][@WEIGHT] or generated:N[:DIFFICULTY][@WEIGHT]; arc and datasets: FOLDER; repeat to "
            "mix. Left out: 20 000 generated puzzles, or the folder that --task names."
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Puzzles for the finished model's card, measured by source.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Stop after this much time, a tenth of it for measuring.")] = 0.0,
    steps: Annotated[int, typer.Option(help="Stop after this many steps.")] = 0,
    config: Annotated[Path | None, typer.Option(help="TOML file with [arch] and [train] tables.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One field, as in --set train.lr=3e-4; repeat for more.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Start from this checkpoint's weights and architecture; --set arch.H_layers=2 deepens it.",
        ),
    ] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="Fine-tune --from's checkpoint through int8 rounding, for export as INT8.")
    ] = False,
    qat_scales: Annotated[
        str | None, typer.Option(help="With --qat: learned (default) or frozen, as calibrated at the start.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of initialisation, data order and augmentation; 0 by default.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
) -> None:
    """Train an HRM, or another network. The folder gets checkpoint/, metrics.jsonl and the state to resume from."""
    import os

    from ..api import train
    from ..progress import say
    from ..tasks import task_for
    from ..text import best_effort, echo

    checkpoint = train(
        output=output,
        task=task,
        network=network,
        weights=weights,
        key=key,
        preset=preset,
        data=data,
        test=test,
        minutes=minutes,
        steps=steps,
        config=config,
        set_=set_,
        start_from=start_from,
        qat=qat,
        qat_scales=qat_scales,
        device=device,
        seed=seed,
        threads=threads,
    )
    if os.environ.get("RANK", "0") == "0":
        with best_effort():
            echo(str(checkpoint))
        how = f" --precision int8 --reference {start_from}" if qat else ""
        learned = task_for(task, (argument.partition("@")[0] for argument in data or []))
        puzzles = "" if learned.generates else _sets(data or [str(task)], test, qat)
        say(f"next: hrm-edge export {output}{how}{puzzles}")


def _sets(data: list[str], test: Path | None, quantizes: bool) -> str:
    """The flags by which an export measures, and calibrates, on a set whose puzzles nobody can generate."""
    from ..trainer.data import split_folder
    from ..trainer.prepare import tested_on

    calibrated = f" --calibration-data {split_folder(data[0], 'train')}" if quantizes else ""
    return f" --data {tested_on(data, test)}{calibrated}"
