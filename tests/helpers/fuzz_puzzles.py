"""Readers of puzzles: texts, tables, folders of arrays, ARC's tasks, and ranges of identifiers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz_changes import binary, structure, zipped
from fuzz_readers import Read, Reader, registering, to

READERS: dict[str, Reader] = {}
reader = registering(READERS)


def _puzzles() -> Any:
    from hrm_edge.data.puzzles import generate_puzzles
    from hrm_edge.tasks import get_task

    return generate_puzzles(get_task("sudoku-4x4"), 6, 0, processes=1)


def _read_as(name: str) -> Callable[[Path], object]:
    from hrm_edge.data.puzzles import load_puzzles
    from hrm_edge.tasks import get_task

    task = get_task(name)
    return lambda path: load_puzzles(path, task)


@reader("puzzle text", zipped)
def _text(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.tasks import get_task

    puzzles = _puzzles()
    task = puzzles.task
    drawn = "\n\n".join(task.render(question) for question in puzzles.questions)
    seeds = ["\n".join(map(task.format, puzzles.questions)).encode(), drawn.encode()]
    maze = get_task("maze-6x6")
    import numpy as np

    mazes, _ = maze.generate(3, np.random.default_rng(0))
    seeds.append("\n\n".join(map(maze.render, mazes)).encode())
    seeds.append(b"123\n456\n789\n\n11\n22\n")
    loads = [_read_as(name) for name in ("sudoku-4x4", "sudoku-4x4", "maze-6x6", "arc-5x5")]

    def read(content: bytes, which: int) -> object:
        (folder / "p.txt").write_bytes(content)
        return loads[which](folder / "p.txt")

    return seeds, read


@reader("puzzle CSV", zipped)
def _csv(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.data.puzzles import save_puzzles

    save_puzzles(_puzzles(), folder / "seed.csv")
    return [(folder / "seed.csv").read_bytes()], to(folder / "p.csv", _read_as("sudoku-4x4"))


@reader("dataset folder", structure)
def _dataset(folder: Path) -> tuple[list[bytes], Read]:
    """Its description; its arrays are the next one's."""
    from hrm_edge.data.public_layout import IDENTIFIERS, read_names
    from hrm_edge.data.puzzles import save_puzzles

    save_puzzles(_puzzles(), folder / "set")
    load = _read_as("sudoku-4x4")
    names = b'["<blank>", "a", "b"]'

    def read(content: bytes, which: int) -> object:
        if which == 1:
            (folder / IDENTIFIERS).write_bytes(content)
            return read_names(folder)
        (folder / "set" / "dataset.json").write_bytes(content)
        return load(folder / "set")

    return [(folder / "set" / "dataset.json").read_bytes(), names], read


@reader("npy", binary)
def _npy(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.data.puzzles import save_puzzles

    save_puzzles(_puzzles(), folder / "set")
    load = _read_as("sudoku-4x4")
    files = sorted((folder / "set").glob("*.npy"))
    whole = {file: file.read_bytes() for file in files}

    def read(content: bytes, which: int) -> object:
        file = files[which]
        file.write_bytes(content)
        try:
            return load(folder / "set")
        finally:
            file.write_bytes(whole[file])

    return list(whole.values()), read


@reader("ARC tasks", structure)
def _arc(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.arc.collection import from_json

    (folder / "training").mkdir()
    pair = {"input": [[1, 2], [3, 4]], "output": [[1]]}
    one = {"train": [pair, pair], "test": [pair]}
    challenges, solutions = {"a": one, "b": one}, {"a": [[[1]]], "b": [[[2]]]}

    def read(content: bytes, which: int) -> object:
        name = ("training/e0.json", "x_evaluation_challenges.json", "x_evaluation_solutions.json")[which]
        (folder / "x_evaluation_challenges.json").write_text(json.dumps(challenges))
        (folder / "x_evaluation_solutions.json").write_text(json.dumps(solutions))
        (folder / "training" / "e0.json").write_text(json.dumps(one))
        (folder / name).write_bytes(content)
        return from_json(folder)

    return [json.dumps(seed).encode() for seed in (one, challenges, solutions)], read


@reader("identifiers", binary)
def _identifiers(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.identifiers import parse_ranges

    return [b"0-99,200 7-8", b"0-999999,1"], lambda content, _: parse_ranges(content.decode("latin-1"), "here")
