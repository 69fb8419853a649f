"""`hrm-edge bench`: speed, memory and size of engines side by side, as ratios against PyTorch eager."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..text import echo, echo_json
from .flags import Json, Output

if TYPE_CHECKING:
    from ..analysis.bench_table import Tables


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
    batch: Annotated[str, typer.Option(help="Puzzles per call, the same for all, or several: 1,8,64.")] = "1",
    rounds: Annotated[int, typer.Option(min=1, help="Every round times every engine and ceiling once.")] = 9,
    segments: Annotated[int, typer.Option(min=1, help="Segments of a fixed-length call.")] = 8,
    n: Annotated[
        int | None, typer.Option(min=1, help="Puzzles solved with learned halting, over all rounds.")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="CPU threads, the same for all, or several: 1,2; all by default.")
    ] = None,
    torch_compile: Annotated[bool, typer.Option("--torch-compile", help="Add PyTorch compiled.")] = False,
    naive: Annotated[
        bool,
        typer.Option("--naive/--no-naive", help="Beside what is exported here, what PyTorch's own exporter makes."),
    ] = True,
    cold: Annotated[
        int, typer.Option(min=0, help="Processes in which each starts cold, for time and peak memory; 0: none.")
    ] = 1,
    streams: Annotated[
        bool, typer.Option("--streams/--no-streams", help="Puzzles a second by the scheduler's streams.")
    ] = True,
    profile: Annotated[
        bool, typer.Option("--profile", help="Where each host-loop bundle's segment spends its time, by operator.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option("--compare", help="FILE.json of an earlier run: tells what noise does not explain."),
    ] = None,
    fail_on_slower: Annotated[
        bool, typer.Option("--fail-on-slower", help="With --compare: exit code 1 where an engine is slower.")
    ] = False,
    output: Output = None,
    json_: Json = False,
) -> None:
    """Time engines side by side in interleaved rounds.

    All run in one process; told are medians, and ratios taken within each round. Beside them in the same rounds
    the machine's ceilings: matrix products of each library here, and memory that is copied. A ratio is told of
    rounds in which at most a fifth of the time went by waiting for a CPU, or not at all.
    """
    from ..analysis.bench import what_to_time
    from ..analysis.bench_record import compare, read_record, slower
    from ..analysis.bench_run import BenchOptions, known_lists, run_bench
    from ..analysis.bench_table import bench_picture, bench_tables
    from ..analysis.output import check_outputs, write_outputs
    from ..errors import GateFailed, InputError
    from ..measure.speed import default_threads
    from ..progress import progress, say

    check_outputs(output or [])
    if fail_on_slower and against is None:
        raise InputError("--fail-on-slower: slower than what? give --compare FILE.json too")
    then = None if against is None else read_record(against)
    options = BenchOptions(
        threads=known_lists("--threads", threads) if threads else (default_threads(),),
        batches=known_lists("--batch", batch),
        rounds=rounds,
        segments=segments,
        n=n,
        cold=cold,
        streams=streams,
        profile=profile,
        random_weights=random_weights is not None,
        data=data,
    )
    with tempfile.TemporaryDirectory(prefix="hrm-edge-bench-") as scratch:
        timings = what_to_time(
            artifacts or [],
            random_weights,
            precision.split(","),
            Path(scratch),
            say,
            naive=naive,
            compiled=torch_compile,
        )
        with progress() as show:
            record = run_bench(timings, options, say, show)
    changes, notes = ([], []) if then is None else compare(then, record)
    tables = bench_tables(record, changes)
    content = {**record.to_dict(), "changes": [asdict(change) for change in changes], "changes_notes": notes}
    write_outputs(output or [], record.to_dict(), tables, partial(bench_picture, record))
    if json_:
        echo_json(content)
    else:
        _print(tables, notes)
    if fail_on_slower and (worse := slower(changes)):
        raise GateFailed(f"{len(worse)} of {len(changes)} engines are slower than in {against}: {worse[0].line}")


def _print(tables: Tables, notes: list[str]) -> None:
    from .tables import print_rows

    for title, table in tables.parts:
        echo(title)
        print_rows(table.head, table.rows, left=table.left)
        for note in table.notes:
            echo(f"  {note}")
    for note in notes:
        echo(f"  then and now: {note}")
