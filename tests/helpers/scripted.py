"""An engine that answers by heart: for tests that count by hand what an evaluation should come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrm_edge.bundle.quantization import Trial
from hrm_edge.data.puzzles import PuzzleSet
from hrm_edge.runtimes import Answers, Engine
from hrm_edge.runtimes.engine import Request
from hrm_edge.tasks import Task, get_task

TASK = get_task("sudoku-4x4")
N = 400  # puzzles of a trial


def puzzle_set(n: int, seed: int = 0, sources: Sequence[str] | None = None) -> PuzzleSet:
    questions, answers = TASK.generate(n, np.random.default_rng(seed))
    return PuzzleSet(TASK, questions, answers, list(sources or ["made"] * n), "made up")


class Scripted(Engine):
    """Row i guesses wrong until segment `right_from[i]` (0: never right) and halts after `halts_at[i]`."""

    def __init__(self, puzzles: PuzzleSet, right_from: Sequence[int], halts_at: Sequence[int], loop: str = "host"):
        super().__init__(puzzles.task, 8, backend="scripted")
        self.loop = loop
        self.calls: list[tuple[str, int, bool]] = []
        assert puzzles.answers is not None
        rows = zip(puzzles.questions, puzzles.answers, right_from, halts_at, strict=True)
        self._script = {question.tobytes(): row for question, *row in rows}

    def guess(self, question: np.ndarray, step: int) -> np.ndarray:
        answer, right_from, _ = self._script[question.tobytes()]
        return answer if 0 < right_from <= step else spoiled(answer)

    def _solve(self, request: Request) -> Answers:
        self.calls.append((request.halt, request.max_think_steps, request.trace))
        limit = request.max_think_steps
        script = [self._script[question.tobytes()] for question in request.tokens]
        halts_at = np.array([row[2] for row in script])
        steps = np.full(len(script), limit) if request.halt == "fixed" else np.minimum(halts_at, limit)
        tokens = [self.guess(q, int(step)) for q, step in zip(request.tokens, steps, strict=True)]
        trace = [[self.guess(q, step) for q in request.tokens] for step in range(1, limit + 1)]
        return Answers(
            np.array(tokens, np.int32),
            steps.astype(np.int32),
            (request.halt == "learned") & (halts_at <= limit),
            np.zeros((len(script), 2), np.float32),
            np.array(trace, np.int32) if request.trace else None,
        )


class ByHeart(Engine):
    """Answers int32[N, S] in the order of the questions, whatever it is asked, after one segment."""

    loop = "graph"

    def __init__(self, task: Task, questions: np.ndarray, answers: np.ndarray):
        super().__init__(task, 4, backend="by heart")
        self.known = {question.tobytes(): answer for question, answer in zip(questions, answers, strict=True)}

    def _solve(self, request: Request) -> Answers:
        n = len(request.tokens)
        tokens = np.stack([self.known[question.tobytes()] for question in request.tokens])
        return Answers(tokens, np.full(n, 1, np.int32), np.zeros(n, bool), np.zeros((n, 2), np.float32))


def spoiled(answer: np.ndarray) -> np.ndarray:
    """The answer with its first two cells, one eighth of a 4×4 board, made wrong."""
    wrong = answer.copy()
    wrong[:2] = 2 + (wrong[:2] - 1) % 4
    return wrong


def rings() -> tuple[PuzzleSet, np.ndarray]:
    """Three mazes of two shortest paths, the upper one given; answers: the lower, the upper, and one with a gap."""
    task = get_task("maze-5x5")
    boards = (
        "S.... .###. .#.#. .#.#. ....G",
        "Soooo .###o .#.#o .#.#o ....G",
        "S.... o###. o#.#. o#.#. ooooG",
        "Soooo .###o .#.#. .#.#o ....G",
    )
    maze, upper, lower, gap = (task.parse(board.replace(" ", "\n")) for board in boards)
    questions, labels, answers = np.stack([maze] * 3), np.stack([upper] * 3), np.stack([lower, upper, gap])
    for row, walls in enumerate(([], [12], [12, 17])):  # no two alike: inside the ring, where no path goes
        for tokens in (questions, labels, answers):
            tokens[row, walls] = task.vocabulary.index("#")
    return PuzzleSet(task, questions, labels, ["a", "b", "b"], "rings"), answers


def trial(what: str = "", lost: int = 0, won: int = 0, halt_agree: float = 1.0) -> Trial:
    """What a trial came to, of a model that solves half of the puzzles."""
    return Trial(what, N, (200 - lost + won) / N, 0.9, lost, won, 3.0, halt_agree, 0.5, 3.0)
