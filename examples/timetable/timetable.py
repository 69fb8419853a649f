"""Timetables for hrm-edge: classes in rows, periods in columns, and in every cell the teacher of that lesson.

Every teacher has every class once, and one class at a time, so that rows and columns hold each teacher once. Of a
timetable some lessons are fixed, as few as leave one way to fill the rest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import hrm_edge
from hrm_edge.errors import HrmEdgeError
from hrm_edge.tasks.sudoku.search import SudokuSearch

BLANK = 1  # token of a lesson without a teacher; 2 and up are the teachers
TASK = """name = "timetable-{side}x{side}"
rows = {side}
symbols = ".{teachers}"
blank = "."
groups = ["rows", "columns"]
symmetries = ["values", "rows", "columns", "turn"]
"""
TEACHERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HARD = 8  # guesses from which on a timetable counts as hard
_PATIENCE = 300  # guesses after which a lesson stays rather than that its removal is proved


class Timetables:
    """Makes and answers timetables of ``side`` classes, exactly; -1 is a lesson without a teacher."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.search = SudokuSearch(1, side)  # whose boxes of one row are the rows

    def full(self, rng: np.random.Generator) -> list[int]:
        """A timetable without a hole, of a random first row and guesses in random order. Not evenly drawn."""
        lessons = [-1] * self.side**2
        lessons[: self.side] = rng.permutation(self.side).tolist()
        found = self.search.search(
            self.search.state(lessons), order=lambda options: rng.permutation(options).tolist()
        )
        return self.search.digits(found.solutions[0])

    def puzzle(self, rng: np.random.Generator) -> tuple[list[int], list[int], int]:
        """Lessons that are fixed, all lessons, and how often an exact solver guesses until only one way is left."""
        answer = self.full(rng)
        fixed, guesses = list(answer), 0
        for lesson in rng.permutation(self.side**2).tolist():
            fixed[lesson] = -1
            found = self.search.search(self.search.state(fixed), limit=2, max_guesses=_PATIENCE)
            if found.gave_up or len(found.solutions) != 1:
                fixed[lesson] = answer[lesson]
            else:
                guesses = found.guesses
        return fixed, answer, guesses

    def solve(self, fixed: Sequence[int]) -> list[int] | None:
        """The first answer that is found, or None."""
        found = self.search.search(self.search.state(list(fixed)))
        return self.search.digits(found.solutions[0]) if found.solutions else None


def make(root: Path, side: int, total: int, tested: int, seed: int) -> None:
    """Sets in the public layout, beside a task.toml.

    ``test`` has the first timetables as they come, ``test-hard`` the first of the others that are hard; ``train``
    and ``train-hard`` have those that are left.
    """
    maker, rng = Timetables(side), np.random.default_rng(seed)
    sets: dict[str, list[tuple[list[int], list[int]]]] = {
        name: [] for name in ("test", "test-hard", "train", "train-hard")
    }
    for number in range(total):
        fixed, answer, guesses = maker.puzzle(rng)
        name = "-hard" if guesses >= HARD and number >= tested else ""
        part = "test" if len(sets["test" + name]) < tested else "train"
        sets[part + name].append((fixed, answer))
    for name, puzzles in sets.items():
        if puzzles:
            _write_set(root / name, np.array(puzzles) + BLANK + 1, side)
    (root / "task.toml").write_text(TASK.format(side=side, teachers=TEACHERS[:side]))
    print(", ".join(f"{name} {len(puzzles)}" for name, puzzles in sets.items()))


def _write_set(folder: Path, puzzles: np.ndarray, side: int) -> None:
    """``puzzles[N, 2, S]``: tokens of questions and of answers."""
    folder.mkdir(parents=True)
    count = np.arange(len(puzzles) + 1, dtype=np.int32)
    np.save(folder / "all__inputs.npy", puzzles[:, 0].astype(np.uint8))
    np.save(folder / "all__labels.npy", puzzles[:, 1].astype(np.uint8))
    np.save(folder / "all__puzzle_identifiers.npy", np.zeros(len(puzzles), np.int32))
    for part in ("puzzle", "group"):
        np.save(folder / f"all__{part}_indices.npy", count)
    sizes = {"seq_len": side**2, "vocab_size": side + 2, "num_puzzle_identifiers": 1}
    (folder / "dataset.json").write_text(json.dumps({**sizes, "pad_id": 0, "sets": ["all"]}))


def compare(folder: Path, artifacts: Sequence[Path], count: int | None) -> None:
    """A line for the exact solver and for each artifact, asked puzzle by puzzle: what it answers and for how long.

    The time is what the processor worked, which another's work beside it lengthens less than that of a clock.
    """
    questions, answers = (
        np.load(folder / f"all__{part}.npy")[:count].astype(np.int32) for part in ("inputs", "labels")
    )
    maker = Timetables(round(questions.shape[1] ** 0.5))
    print(f"| {folder.name}, {len(questions)} | right | wrong | gave up | calls | ms, mean | median |")
    print(f"|---|{'---:|' * 6}")

    def exact(question: np.ndarray) -> tuple[np.ndarray, bool, int]:
        found = maker.solve((question - BLANK - 1).tolist())
        return np.array(found) + BLANK + 1, True, 0

    for name, answer in [("exact solver", exact), *((each.name, _asking(each)) for each in artifacts)]:
        answer(questions[0])  # backends finish compiling on their first call
        milliseconds, calls, right, wrong = [], 0, 0, 0
        for question, label in zip(questions, answers, strict=True):
            started = time.process_time()
            found, halted, steps = answer(question)
            milliseconds.append(1000 * (time.process_time() - started))
            same = bool((found == label).all())
            calls, right, wrong = calls + steps, right + same, wrong + (halted and not same)
        parts = [right, wrong, len(questions) - right - wrong]
        shown = " | ".join(f"{part / len(questions):.1%}" for part in parts)
        mean, middle = np.mean(milliseconds), np.median(milliseconds)
        print(f"| {name} | {shown} | {calls / len(questions):.2f} | {mean:.2f} | {middle:.2f} |", flush=True)


def _asking(artifact: Path) -> Callable[[np.ndarray], tuple[np.ndarray, bool, int]]:
    """Question → (answer, whether it says that this is one, calls) of a checkpoint or a bundle, on one thread."""
    engine = hrm_edge.load(artifact, threads=1).engine

    def answer(question: np.ndarray) -> tuple[np.ndarray, bool, int]:
        given = engine.solve(question[None])
        return given.tokens[0], bool(given.halted[0]), int(given.steps[0])

    return answer


def variant(checkpoint: Path, output: Path, search_steps: int, silent: bool) -> None:
    """A checkpoint whose calls search for other many steps; ``silent``: without a word of its network."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(checkpoint, output)
    config = json.loads((output / "config.json").read_text())
    config["arch"] |= {"search_steps": search_steps} | ({"L_cycles": 1} if silent else {})
    (output / "config.json").write_text(json.dumps(config))
    if silent:  # keeps every candidate, prefers none, and sees no contradiction
        weights = load_file(output / "model.safetensors")
        for head, bias in (("heads", [9, 0, 0]), ("conflict_head", [-9])):
            weights[f"{head}.weight"] *= 0
            weights[f"{head}.bias"][:] = bias
        save_file(weights, output / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make", help=make.__doc__)
    made.add_argument("root", type=Path)
    made.add_argument("--side", type=int, default=10)
    made.add_argument("--total", type=int, default=16_000)
    made.add_argument("--tested", type=int, default=500)
    made.add_argument("--seed", type=int, default=0)
    compared = commands.add_parser("compare", help=compare.__doc__)
    compared.add_argument("folder", type=Path)
    compared.add_argument("artifacts", type=Path, nargs="*")
    compared.add_argument("--count", type=int, help="only the first of the set")
    changed = commands.add_parser("variant", help=variant.__doc__)
    changed.add_argument("checkpoint", type=Path)
    changed.add_argument("output", type=Path)
    changed.add_argument("--search-steps", type=int, default=32)
    changed.add_argument("--silent", action="store_true")
    arguments = vars(parser.parse_args())
    try:
        {"make": make, "compare": compare, "variant": variant}[arguments.pop("command")](**arguments)
    except (HrmEdgeError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
