"""``hrm-edge solve``: puzzles in, boards (or JSON lines) out, with what each answer is worth."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..progress import announce, progress
from ..text import best_effort, echo, echo_json
from .flags import HALT, Streams, Threads

if TYPE_CHECKING:
    from ..report.film import Film
    from ..solve.answer import Solved
    from ..solve.live import LiveBoard
    from ..tasks import Task
    from ..web.recording import Recording


class Command(typer.core.TyperCommand):
    """The command, to which a puzzle whose first blanks are dashes is no flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"\n{arg}" if _is_puzzle(arg) else arg for arg in args])


def _is_puzzle(argument: str) -> bool:
    """Flags are shorter, or words; of a text the empty line before it is no part."""
    return len(argument) >= 16 and argument[0] == "-" and not re.match("--?[A-Za-z]{2}", argument)


def command(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A bundle folder, as `hrm-edge export` writes it.")
    ],
    puzzles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PUZZLES",
            help="Puzzles as text ('.' or 0 for a blank), or files of them (text, CSV, .npy folder); "
            "'-' or nothing: standard input.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A file or folder of puzzles, answered after PUZZLES.")] = None,
    halt: Annotated[
        str,
        typer.Option(help=HALT),
    ] = "learned",
    max_think_steps: Annotated[
        int | None, typer.Option(help="Segments at most; by default as many as in training.")
    ] = None,
    retries: Annotated[
        int, typer.Option(help="Think again on up to this many symmetric variants of a board that does not verify.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Which variants --retries tries.")] = 0,
    trace: Annotated[bool, typer.Option("--trace", help="Show the guess after every segment.")] = False,
    gif: Annotated[
        Path | None, typer.Option(help="Write how one puzzle is thought over, as an animated GIF.")
    ] = None,
    trace_html: Annotated[
        Path | None, typer.Option(help="Write how the puzzles are thought over, as a page to step through.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the board while the model thinks, segment by segment.")
    ] = False,
    check_solvable: Annotated[
        bool,
        typer.Option("--check-solvable", help="Have an exact solver look first, and refuse what has no solution."),
    ] = False,
    threads: Threads = None,
    streams: Streams = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write a row a puzzle to this file (.csv, .jsonl or .parquet) instead of printing boards. Cut off "
            "and started again, the same command goes on where it was.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="-o: engines at work, with one thread each; one a core by default.")
    ] = None,
    distributed: Annotated[
        str | None, typer.Option(help="-o: where the workers are, instead of here; ray: on a Ray cluster.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="--distributed: the cluster's, RAY_ADDRESS by default, else one is started here."),
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="-o: a row that cannot be read or answered fails everything (fail), or has its reason in a column "
            "'error' (record)."
        ),
    ] = "fail",
    force: Annotated[
        bool, typer.Option("--force", help="-o: replace what stands there, and discard another run's work.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per puzzle, one per line; with -o one of the counts.")
    ] = False,
) -> None:
    """Solve puzzles with a bundle, and check the answers.

    Exit code 0 when every puzzle was thought over, whether or not its answer verified (the last line on
    standard error counts those); 2 when a puzzle or the bundle is wrong.
    """
    from ..bundle import open_bundle
    from ..files import require_apart
    from ..runtimes import load_engine
    from ..runtimes.loader import task_of, warning
    from ..solve.answer import read_puzzles, solve_each
    from ..solve.choice import open_for_many
    from ..solve.watch import Watch, told_all

    asking: dict[str, Any] = {"halt": halt, "max_think_steps": max_think_steps, "retries": retries, "seed": seed}
    shown = {"--trace": trace, "--gif": gif, "--trace-html": trace_html, "--watch": watch, "--threads": threads}
    shown |= {"--streams": streams}
    job = {"--workers": workers, "--distributed": distributed, "--address": address, "--force": force}
    if output is not None:
        if drop := next((flag for flag, value in shown.items() if value), None):
            raise InputError(f"-o and {drop}: with -o rows are written, by engines of one thread; drop one of them")
        files: list[str | Path] = [*(puzzles or []), *([data] if data else [])]
        where: dict[str, Any] = {"distributed": distributed, "workers": workers, "address": address}
        where |= {"on_error": on_error, "force": force, "check_solvable": check_solvable}
        _into_file(bundle, files, output, as_json, **asking, **where)
        return
    if alone := next((flag for flag, value in job.items() if value), None):
        raise InputError(f"{alone}: goes with -o, which names the file to write")
    opened = open_bundle(bundle)
    if doubt := warning(opened):
        announce(f"warning: {doubt}")
    if watch and as_json:
        raise InputError("--watch and --json: one draws boards, the other prints objects; drop one")
    require_apart((gif, trace_html), [*(puzzles or ()), data])
    task = task_of(opened)
    film, recording = _films(gif, trace_html, opened.manifest.name, task)
    watched = watch or film is not None or recording is not None
    questions = read_puzzles(puzzles or ["-"] * (data is None), task, data, to_watch=watched)
    if streams is not None or watched or trace or questions.at_hand:
        engine = load_engine(opened, threads, streams=streams or 1)
    else:
        engine = open_for_many(opened, threads, None if questions.live else questions.first(), announce)
    wrong = 0
    # Answers that are seen, as they come, need nothing beside them.
    with _live(watch) as live, nullcontext() if watch or sys.stdout.isatty() else progress() as report:
        watches: list[Watch] = [each for each in (live, film, recording) if each is not None]
        for solved in solve_each(
            engine, questions, watch=told_all(watches), trace=trace, check_solvable=check_solvable, **asking
        ):
            if live is not None:
                live.clear()
            wrong += solved.right is False
            if as_json:
                echo_json(solved.to_dict())
            else:
                _draw(engine.task, solved, questions.count > 1, questions.at_hand)
            if report is not None and questions.count > 1:
                report("puzzles", solved.number, questions.total)
    if film is not None and gif is not None:
        film.write(gif)
    if recording is not None and trace_html is not None:
        recording.write(trace_html)
    if wrong:
        advice = "; --retries 8 thinks again on symmetric variants" * (engine.task.has_symmetries and not retries)
        told = "verified" if engine.task.has_rules else "as labelled"
        announce(f"{wrong} of {questions.count} not {told}{advice}")


def _into_file(bundle: str, files: list[str | Path], output: Path, as_json: bool, **options: Any) -> None:
    """``-o``: what came of it in a line, or as an object."""
    from ..api import solve_file

    with progress() as report:
        done = solve_file(bundle, files, output, say=announce, progress=report, **options)
    with best_effort():
        if as_json:
            echo_json(done.to_dict())
        else:
            echo(str(done))


def _live(watch: bool) -> AbstractContextManager[LiveBoard | None]:
    """The board that is drawn while the model thinks, where somebody watches."""
    if not watch:
        return nullcontext()
    from ..solve.live import LiveBoard

    return LiveBoard()


def _films(
    gif: Path | None, trace_html: Path | None, name: str, task: Task
) -> tuple[Film | None, Recording | None]:
    """What is to be filled with how puzzles are thought over. Where nothing is, all that could is not imported."""
    film: Film | None = None
    recording: Recording | None = None
    if gif is not None:
        from ..report.film import opened_film

        film = opened_film(gif, task)
    if trace_html is not None:
        from ..web.recording import opened_recording

        recording = opened_recording(trace_html, name)
    return film, recording


def _draw(task: Task, solved: Solved, several: bool, count: bool) -> None:
    """An answer as a board with a caption; on a terminal in colour. ``count``: and whether there are others."""
    from ..console import Console
    from ..solve.pictures import drawn
    from ..tasks.boards import glyphs_for, trace_boards, trace_legend

    console = Console()
    glyphs = glyphs_for(console)
    # A board wider than the terminal is better broken by the terminal than cropped by us.
    show = partial(console.print, soft_wrap=True)
    if solved.number > 1:
        show("")
    if several:
        show(f"puzzle {solved.number}")
    if solved.trace is not None:
        console.print(trace_boards(task, solved.question, solved.trace, glyphs))
        if marks := trace_legend(task, solved.question, solved.trace, glyphs):
            show(marks, end="\n\n")
    show(drawn(solved, glyphs, count=count))
