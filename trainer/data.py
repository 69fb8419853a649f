"""Where training puzzles come from: weighted sources, drawn and augmented on the fly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..puzzles import PuzzleSet, generate_puzzles, load_puzzles
from ..tasks import Task

HELD_OUT_SEED = 20_260_101  # the generated puzzles that no training run may see
CALIBRATION_SEED = 20_260_102  # those that fix the halting margin
GENERATED_SEED = 1


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of training puzzles and how often it is drawn, relative to the others."""

    name: str
    questions: np.ndarray  # int32 [n, S]
    answers: np.ndarray  # int32 [n, S]
    weight: float


def read_source(argument: str, task: Task, held_out: PuzzleSet) -> Source:
    """``FILE[:SOURCE][@WEIGHT]`` or ``generated:N[:DIFFICULTY][@WEIGHT]``, less the held-out puzzles."""
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
        puzzles = generate_puzzles(task, int(count), GENERATED_SEED, difficulty or "ordinary")
        name = f"generated:{count}" + (f":{difficulty}" if difficulty else "")
    else:
        path, wanted = spec, ""
        if not Path(path).exists() and ":" in spec:
            path, _, wanted = spec.rpartition(":")
        puzzles = load_puzzles(path, task)
        if wanted:
            chosen = np.flatnonzero([source == wanted for source in puzzles.sources])
            if not len(chosen):
                known = ", ".join(sorted(set(puzzles.sources)))
                raise InputError(f"--data {argument}: no puzzle has source {wanted!r}; there are {known}")
            puzzles = puzzles.select(chosen)
        name = Path(path).name + (f":{wanted}" if wanted else "")
    if puzzles.answers is None:
        raise InputError(f"--data {argument}: the puzzles have no answers to learn from")
    seen = {row.tobytes() for row in held_out.questions.astype(np.int32)}
    kept = np.flatnonzero([row.tobytes() not in seen for row in puzzles.questions.astype(np.int32)])
    return Source(name, puzzles.questions[kept], puzzles.answers[kept], weight)


class Sampler:
    """Draws batches of augmented puzzles; all randomness comes from the generator it is given."""

    def __init__(self, task: Task, sources: list[Source], augment: bool):
        if not sources or not all(len(source.questions) for source in sources):
            raise InputError("there is nothing to train on: give --data with at least one puzzle")
        self.task, self.sources, self.augment = task, sources, augment
        weights = np.array([source.weight for source in sources])
        self.cumulative = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """``count`` puzzles: questions and answers, int32 ``[count, S]``."""
        which = np.searchsorted(self.cumulative, rng.random(count), side="right").clip(max=len(self.sources) - 1)
        questions = np.empty((count, self.task.seq_len), np.int32)
        answers = np.empty_like(questions)
        for index, source in enumerate(self.sources):
            rows = np.flatnonzero(which == index)
            chosen = rng.integers(len(source.questions), size=len(rows))
            questions[rows], answers[rows] = source.questions[chosen], source.answers[chosen]
        if self.augment:
            questions, answers = self.task.augment(rng, questions, answers)
        return questions, answers
