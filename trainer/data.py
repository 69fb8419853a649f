"""Where training puzzles come from: weighted sources, drawn and augmented on the fly."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.choose import TRAINING_SEED
from ..data.public_layout import Grouping, names_of, read_description, read_folder, split_within
from ..data.puzzles import PuzzleSet, generate_puzzles, load_puzzles
from ..errors import InputError
from ..files import entries, readable_name, sha256
from ..identifiers import hash_of_names
from ..progress import lines
from ..tasks import Task

_CHUNK = 8192  # puzzles fingerprinted at a time


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of training puzzles and how often it is drawn, relative to the others."""

    name: str
    questions: np.ndarray  # int [n, S]
    answers: np.ndarray  # int [n, S]
    weight: float
    identifiers: np.ndarray | None = None  # int32 [n]; None: all 0
    groups: Groups | None = None  # None: every row is drawn equally often


@dataclasses.dataclass(frozen=True)
class Groups:
    """Where puzzles begin among the rows, int64 ``[P + 1]``, and groups among the puzzles, int64 ``[G + 1]``."""

    puzzles: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, grouping: Grouping) -> Groups:
        """From the puzzle and group of each row."""
        new_group = np.diff(grouping.groups, prepend=-1) != 0
        starts = np.flatnonzero(new_group | (np.diff(grouping.puzzles, prepend=-1) != 0))
        return cls(np.append(starts, len(new_group)), np.append(np.flatnonzero(new_group[starts]), len(starts)))

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """``count`` rows: a group each, then one of its puzzles, then one of its examples.

        So a task with many augmentations or demonstrations is not seen more often than one with few. (The
        public trainer takes several examples of the puzzle it drew into a batch; in the mean it is the same
        but for puzzles with many.)
        """
        group = rng.integers(len(self.groups) - 1, size=count)
        puzzle = rng.integers(self.groups[group], self.groups[group + 1])
        return rng.integers(self.puzzles[puzzle], self.puzzles[puzzle + 1])


def split_folder(argument: str, split: str) -> Path:
    """The folder of a split where ``argument`` (without its @WEIGHT) names the folder above; else itself."""
    return split_within(argument.partition("@")[0], split)


def identifiers_needed(data: list[str], task: Task) -> int:
    """Rows of the table of puzzle embeddings that the data ask for."""
    if task.generates:
        return 1
    if any(argument.startswith("generated:") for argument in data):
        task.check_difficulty("ordinary")  # which says where its puzzles come from
    folders = [split_folder(argument, "train") for argument in data]
    needed = {folder: read_description(folder, task)["num_puzzle_identifiers"] for folder in folders}
    require_one_numbering([folder for folder, number in needed.items() if number > 1])
    return max(needed.values(), default=1)


def require_one_numbering(folders: list[Path]) -> None:
    """InputError unless an identifier is the same puzzle in all of ``folders``, as their names of them tell."""
    for first, other in itertools.pairwise(folders):
        names = names_of(first)
        if first.resolve() != other.resolve() and (names is None or names != names_of(other)):
            raise InputError(
                f"{first} and {other}: an identifier may be another puzzle in each, as the identifiers.json beside "
                "them do not say the same; use folders of one set, built by `hrm-edge data arc` from all the tasks"
            )


def numbering(data: list[str], task: Task) -> str | None:
    """Hex SHA-256 of the names of the identifiers that the data use; None where they have none, or do not say."""
    if task.generates:
        return None
    names = names_of(split_folder(data[0], "train"))
    return None if names is None else hash_of_names(names)


def _folder_source(path: Path, weight: float, task: Task) -> Source:
    """Puzzles of a task without a generator: a folder in the public layout, left on disk."""
    content = read_folder(path, task, on_disk=True)
    name = f"{path.parent.name}/{path.name}" if path.name == "train" else path.name
    groups = Groups.of(content.grouping)
    return Source(readable_name(name), content.questions, content.answers, weight, content.identifiers, groups)


def _file_and_wanted(spec: str) -> tuple[Path, str]:
    """``FILE[:SOURCE]`` taken apart; a file may have a colon in its name."""
    if not Path(spec).exists() and ":" in spec:
        path, _, wanted = spec.rpartition(":")
        return Path(path), wanted
    return Path(spec), ""


def content_hash(argument: str) -> str | None:
    """Hex SHA-256 of what a --data argument names: "" of generated puzzles, None of a file that is not there."""
    spec = argument.partition("@")[0]
    if spec.startswith("generated:"):
        return ""
    path, _ = _file_and_wanted(spec)
    if path.is_file():
        return sha256(path)
    if not path.exists():
        return None
    files = sorted(path / name for name in entries(path) if (path / name).is_file())
    listed = "".join(f"{file.name} {sha256(file)}\n" for file in files)
    return hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprints(task: Task, questions: np.ndarray) -> np.ndarray:
    """:meth:`Task.fingerprints` of any number of boards int[N, S], in parts that bound the memory: uint64[N]."""
    parts = [questions[start : start + _CHUNK].astype(np.int32) for start in range(0, len(questions), _CHUNK)]
    return np.concatenate([np.empty(0, np.uint64), *(task.fingerprints(part) for part in parts)])


def _left(
    task: Task, questions: np.ndarray, generated: Sequence[PuzzleSet], tests: Sequence[PuzzleSet]
) -> np.ndarray:
    """Rows of int[N, S] that are not among what is measured on, as :func:`read_source` says."""
    seen = {row.tobytes() for puzzles in generated for row in puzzles.questions.astype(np.int32)}
    new = np.array([row.tobytes() not in seen for row in questions.astype(np.int32)], bool)
    if tests:
        named = np.concatenate([fingerprints(task, puzzles.questions) for puzzles in tests])
        new &= ~np.isin(fingerprints(task, questions), named)
    return np.flatnonzero(new)


def read_source(
    argument: str, task: Task, generated: Sequence[PuzzleSet] = (), tests: Sequence[PuzzleSet] = ()
) -> Source:
    """``FILE[:SOURCE][@WEIGHT]`` or ``generated:N[:DIFFICULTY][@WEIGHT]``, less what is measured on.

    Of ``tests``, which somebody named, symmetric twins are left out too, as augmentation would turn them into
    these. Of ``generated`` ones only the same boards: twins of large boards hardly occur, and of 4x4 Sudoku, where
    they do, next to nothing would be left. For a task without a generator ``FOLDER[@WEIGHT]``; who built it kept
    the held-out puzzles apart.
    """
    spec, _, weight_text = argument.partition("@")
    try:
        weight = float(weight_text or 1)
    except ValueError:
        raise InputError(f"--data {argument}: the weight after @ must be a number") from None
    if not weight > 0:
        raise InputError(f"--data {argument}: the weight after @ must be above 0")
    if spec.startswith("generated:"):
        count, _, difficulty = spec.removeprefix("generated:").partition(":")
        if not count.isdigit() or int(count) < 1:
            raise InputError(f"--data {argument}: expected generated:N with N puzzles")
        puzzles = generate_puzzles(task, int(count), TRAINING_SEED, difficulty or "ordinary")
        name = f"generated:{count}" + (f":{difficulty}" if difficulty else "")
    elif not task.generates:
        return _folder_source(split_folder(spec, "train"), weight, task)
    else:
        path, wanted = _file_and_wanted(spec)
        puzzles = load_puzzles(path, task, lines())
        if wanted:
            chosen = np.flatnonzero([source == wanted for source in puzzles.sources])
            if not len(chosen):
                known = ", ".join(sorted(set(puzzles.sources)))
                raise InputError(f"--data {argument}: no puzzle has source {wanted!r}; there are {known}")
            puzzles = puzzles.select(chosen)
        name = readable_name(path.name) + (f":{wanted}" if wanted else "")
    if puzzles.answers is None:
        raise InputError(f"--data {argument}: the puzzles have no answers to learn from")
    kept = _left(task, puzzles.questions, generated, tests)
    if not len(kept):
        raise InputError(
            f"--data {argument}: none of its {len(puzzles)} puzzles is left to train on without those to "
            "measure on and their symmetric twins; give more, or others"
        )
    return Source(name, puzzles.questions[kept], puzzles.answers[kept], weight)


class Sampler:
    """Draws batches of augmented puzzles; all randomness comes from the generator it is given."""

    def __init__(self, task: Task, sources: list[Source], augment: bool):
        if not sources or not all(len(source.questions) for source in sources):
            raise InputError("there is nothing to train on: give --data with at least one puzzle")
        self.task, self.sources, self.augment = task, sources, augment
        weights = np.array([source.weight for source in sources])
        self.cumulative = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``count`` puzzles: questions and answers int32 ``[count, S]``, puzzle identifiers int32 ``[count]``."""
        which = np.searchsorted(self.cumulative, rng.random(count), side="right").clip(max=len(self.sources) - 1)
        questions = np.empty((count, self.task.seq_len), np.int32)
        answers = np.empty_like(questions)
        identifiers = np.zeros(count, np.int32)
        for index, source in enumerate(self.sources):
            rows = np.flatnonzero(which == index)
            if source.groups is None:
                chosen = rng.integers(len(source.questions), size=len(rows))
            else:
                chosen = source.groups.draw(rng, len(rows))
            questions[rows], answers[rows] = source.questions[chosen], source.answers[chosen]
            if source.identifiers is not None:
                identifiers[rows] = source.identifiers[chosen]
        if self.augment:
            questions, answers = self.task.augment(rng, questions, answers)
        return questions, answers, identifiers
