"""What a form of file writes as a table: its columns, and sets of puzzles as such."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from ...files import write_atomically
from ...progress import Progress

if TYPE_CHECKING:
    from ..puzzles import PuzzleSet
    from .base import Write

_BLOCK = 4096  # rows handed on together, which bounds the memory of large sets


@dataclass(frozen=True)
class Column:
    """One column; a value may be None in any of them."""

    name: str
    kind: Literal["text", "number", "flag"]


# A value a row for each column.
Block = Sequence[Sequence[Any]]
# Writes a table to a file that is open for it.
Tabulate = Callable[[Sequence[Column], Iterable[Block], BinaryIO], None]

_OF_SET = (
    Column("source", "text"),
    Column("question", "text"),
    Column("answer", "text"),
    Column("rating", "number"),
)


def packed(tabulate: Tabulate) -> Tabulate:
    """The same, compressed; equal tables give equal bytes."""

    def write(columns: Sequence[Column], blocks: Iterable[Block], out: BinaryIO) -> None:
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as inner:
            tabulate(columns, blocks, inner)  # type: ignore[arg-type]

    return write


def as_set(tabulate: Tabulate) -> Write:
    """What writes a set of puzzles at a path, with where each came from and how hard it is."""

    def write(puzzles: PuzzleSet, path: Path, progress: Progress | None) -> None:
        out = io.BytesIO()
        written = packed(tabulate) if path.suffix == ".gz" else tabulate
        written(_OF_SET, _blocks(puzzles, progress), out)
        write_atomically(path, out.getvalue(), result=True)

    return write


def _blocks(puzzles: PuzzleSet, progress: Progress | None) -> Iterator[Block]:
    task = puzzles.task
    for first in range(0, len(puzzles), _BLOCK):
        questions, answers = (side[first : first + _BLOCK] for side in (puzzles.questions, puzzles.solved))
        ratings = []
        for question, answer in zip(questions, answers, strict=True):
            ratings.append(task.rating(question, answer))
            if progress:
                progress("puzzles", first + len(ratings), len(puzzles))
        sources = puzzles.sources[first : first + _BLOCK]
        yield sources, task.format_many(questions), task.format_many(answers), ratings
