"""`hrm-edge bench`: speed, memory and size of engines side by side, as ratios against PyTorch eager."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..data.puzzles import PuzzleSet
    from ..measure.artifact import Artifact
    from ..measure.speed import Report

_RANDOM_SEED = 0  # of the weights of a size that nobody has trained


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
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Interleaved rounds of all engines in one process; medians, and ratios taken within each round."""
    from ..data.choose import any_puzzles
    from ..measure.speed import Settings, bench
    from ..progress import progress, say

    per_round = -(-n // (rounds * batch)) if n else (1 if random_weights else 4)
    settings = Settings(
        threads=threads or _threads(),
        batch=batch,
        rounds=rounds,
        segments=segments,
        per_round=per_round,
        memory=memory,
        random_weights=random_weights is not None,
    )
    with tempfile.TemporaryDirectory(prefix="hrm-edge-bench-") as scratch:
        paths = _what(artifacts or [], random_weights, precision.split(","), Path(scratch))
        opened = [_opened(path, settings.threads) for path in paths]
        for artifact in opened:
            if "(interpreted)" in artifact.engine.backend:
                say(f"note: {artifact.name} is interpreted here: its time says nothing of Core ML's")
        if torch_compile:
            opened[1:1] = _compiled(opened, settings.threads)
        puzzles = any_puzzles(opened[0].engine.task, rounds * per_round * batch, data, opened[0].checkpoint)
        say(f"{len(opened)} engines, {rounds} rounds, {settings.threads} threads, batch {batch}")
        with progress() as show:
            report = bench(opened, puzzles, settings, show)
    if json_:
        print(json.dumps(report.to_dict()))
    else:
        _print(report, puzzles)


def _threads() -> int:
    """What PyTorch would use (the physical cores), or all CPUs this process may run on."""
    import importlib.util
    import os

    if importlib.util.find_spec("torch"):
        import torch

        return torch.get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _what(given: list[str], random_weights: str | None, precisions: list[str], scratch: Path) -> list[str | Path]:
    """Paths of everything to measure, the checkpoint first; what is missing is made in `scratch`."""
    from ..errors import InputError
    from ..measure.artifact import is_bundle

    if (random_weights is None) == (not given):
        raise InputError("give a checkpoint or bundles to bench, or --random-weights paper, but not both")
    if random_weights is not None:
        given = [str(_random_checkpoint(random_weights, scratch))]
    checkpoints = [path for path in given if not is_bundle(path)]
    bundles = [path for path in given if is_bundle(path)]
    if bundles:
        return [*(checkpoints or _source(bundles)), *bundles]
    made = [bundle for path in checkpoints for bundle in _exported(path, precisions, scratch)]
    return [*checkpoints, *made]


def _random_checkpoint(size: str, scratch: Path) -> Path:
    """A freshly initialised model of a known size, saved: how fast it is does not depend on training."""
    from ..errors import InputError

    if size != "paper":
        raise InputError(f"--random-weights {size}: unknown size; choose paper")
    import torch

    from ..models import HRMConfig, build_model, save_checkpoint
    from ..tasks import get_task

    task = get_task("sudoku-9x9")
    torch.manual_seed(_RANDOM_SEED)
    model = build_model(HRMConfig.paper(), task)
    return save_checkpoint(scratch / f"random-{size}", model, task.name, "Random weights, for timing only.\n")


def _exported(path: str, precisions: list[str], scratch: Path) -> list[Path]:
    """The checkpoint as a bundle for every backend usable here and both loops, ungated: timing only."""
    from ..errors import InputError
    from ..exporters.build import quick_plan, trace, write_bundle
    from ..exporters.options import ALL_PRECISIONS, LOOPS, PRECISIONS_OF, TARGETS, ExportOptions
    from ..models import load_checkpoint
    from ..progress import say
    from ..runtimes.loader import backend_module

    for precision in precisions:
        if precision not in ALL_PRECISIONS:
            raise InputError(f"--precision {precision}: unknown; choose {' or '.join(ALL_PRECISIONS)}")
    checkpoint = load_checkpoint(path)
    traced = trace(checkpoint, say)
    made = []
    for target in TARGETS:
        usable, _, why_not, install = backend_module(target).available()
        if usable and target == "coreml" and sys.platform != "darwin":
            usable, why_not, install = False, "it is interpreted here, which says nothing of its speed", "use a Mac"
        if not usable:
            say(f"without {target}: {why_not}" + (f"; to include it: {install}" if install else ""))
            continue
        for precision in (name for name in precisions if name in PRECISIONS_OF[target]):
            plan = quick_plan(checkpoint, traced, precision, target)
            for loop in LOOPS:
                batch = 1 if target == "coreml" else None
                options = ExportOptions(target=target, precision=precision, loop=loop, batch=batch)
                folder = scratch / f"{checkpoint.name}-{options.suffix}"
                folder.mkdir()
                say(f"exporting {folder.name}")
                write_bundle(checkpoint, traced, options, folder, folder.name, plan)
                made.append(folder)
    if not made:
        raise InputError(f"--precision {','.join(precisions)}: no backend that is usable here runs it")
    return made


def _source(bundles: list[str]) -> list[Path]:
    """The shipped model that the first bundle was made of, as the eager side of the ratios, if there is one."""
    import importlib.util

    from ..bundle import open_bundle
    from ..zoo import zoo_models

    if importlib.util.find_spec("torch") is None:
        return []
    from ..models import load_checkpoint

    source = open_bundle(bundles[0]).manifest.source
    shipped = [path for path in zoo_models() if path.name == source["name"]]
    return [path for path in shipped if load_checkpoint(path).content_hash == source["content_hash"]]


def _opened(path: str | Path, threads: int) -> Artifact:
    from ..measure.artifact import open_artifact

    return open_artifact(path, threads)


def _compiled(opened: list[Artifact], threads: int) -> list[Artifact]:
    """The checkpoint once more, through `torch.compile`."""
    from ..errors import InputError
    from ..measure.artifact import open_artifact

    checkpoint = next((artifact for artifact in opened if artifact.checkpoint is not None), None)
    if checkpoint is None:
        raise InputError("--torch-compile needs a checkpoint among the artifacts")
    return [open_artifact(checkpoint.path, threads, compiled=True)]


def _print(report: Report, puzzles: PuzzleSet) -> None:
    from .tables import plain_table, print_table

    settings = report.settings
    table = plain_table("engine", "runs as")
    for column in ("ms/segment", "× eager", "ms/puzzle", "exact", "peak MB", "size MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(
            *(row.engine, f"{row.backend} {row.precision}, {row.loop} loop", f"{row.ms_per_segment:.2f}"),
            "–" if row.ratio_vs_eager is None else f"{row.ratio_vs_eager:.2f}",
            f"{row.ms_per_puzzle:.1f}",
            "–" if row.exact is None else f"{row.exact:.1%}",
            "–" if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}",
            f"{row.size_mb:.2f}",
        )
    print_table(table)
    print(
        f"Medians of {settings.rounds} interleaved rounds, {settings.threads} threads, batch {settings.batch}. "
        f"A segment: calls of {settings.segments} with halting off. A puzzle: learned halting, "
        f"{report.puzzles} puzzles of {puzzles.name}."
    )
    for name, value in report.ceilings.items():
        print(f"  {name.replace('_', ' ')}: {value:.4g}")
    for note in report.notes:
        print(f"  note: {note}")
