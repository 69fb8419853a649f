"""``hrm-edge data``: make puzzle sets, convert them between file formats, look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .progress import progress

command = typer.Typer(
    help="Generate puzzle sets, convert them between file formats, look at them.", no_args_is_help=True
)

TaskName = Annotated[str, typer.Option("--task", help="sudoku, sudoku-6x6, sudoku-6x6-3x2, maze-30x30, …")]
Output = Annotated[
    Path, typer.Option("-o", "--output", help="FILE.csv, FILE.csv.gz, or a folder for the public .npy layout.")
]


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
) -> None:
    """Make puzzles that have exactly one right answer.

    Seed, task and difficulty decide the puzzles; the number of processes does not.
    """
    from ..puzzles import check_writable, generate_puzzles, save_puzzles
    from ..tasks import get_task

    check_writable(output)
    with progress() as report:
        puzzles = generate_puzzles(
            get_task(task), n, seed, difficulty, processes or None, lambda done: report("puzzles", done, n)
        )
    save_puzzles(puzzles, output)
    print(f"wrote {n} {difficulty} {puzzles.task.name} puzzles (seed {seed}) to {output}")


@command.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="CSV, text (either gzipped), or .npy folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="FILE.csv, FILE.csv.gz, or a folder.")],
    task: TaskName = "sudoku",
) -> None:
    """Rewrite a puzzle set in another format. Missing answers are solved, wrong ones are refused."""
    from ..puzzles import check_writable, load_puzzles, save_puzzles
    from ..tasks import get_task

    check_writable(target)
    puzzles = load_puzzles(source, get_task(task))
    with progress() as report:
        save_puzzles(puzzles, target, lambda done: report("puzzles", done, len(puzzles)))
    print(f"wrote {len(puzzles)} {puzzles.task.name} puzzles to {target}")


@command.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, text (either gzipped), or .npy folder.")],
    task: TaskName = "sudoku",
    n: Annotated[int, typer.Option("--n", min=1, help="How many puzzles, from the start.")] = 3,
) -> None:
    """Draw the first puzzles of a set with their answers, and count what is in it."""
    from ..puzzles import load_puzzles
    from ..tasks import get_task

    puzzles = load_puzzles(file, get_task(task))
    assert puzzles.answers is not None  # loading solves what has none
    pairs = zip(puzzles.questions[:n], puzzles.answers[:n], strict=True)
    for row, (question, answer) in enumerate(pairs):
        print(f"{row + 1}. {puzzles.sources[row]}, rating {puzzles.task.rating(question, answer)}")
        boards = puzzles.task.render(question), puzzles.task.render(question, answer)
        for left, right in zip(*(board.splitlines() for board in boards), strict=True):
            print(f"  {left}    {right}")
        print()
    counts = {source: puzzles.sources.count(source) for source in dict.fromkeys(puzzles.sources)}
    print(f"{len(puzzles)} puzzles: " + ", ".join(f"{count} {source}" for source, count in counts.items()))
