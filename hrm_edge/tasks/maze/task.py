"""Mazes: draw one shortest path from S to G. Tokens 0 padding, then ``#``, space, ``S``, ``G``, ``o``."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import InputError
from ..base import Symmetry, Task, Tokens
from ..drawing import WALL as WALLS
from ..drawing import WAY, Drawing
from ..fingerprints import row_hashes
from .generator import count_ways, distances, generate_maze, shortest_path
from .reader import MazeReader, unframed

PAD, WALL, OPEN, START, GOAL, PATH = range(6)

# Shortest paths are longer than this, per cell. (In the public 30×30 set they are longer than 110 moves.)
_MOVES_PER_CELL = {"easy": 55 / 900, "ordinary": 110 / 900, "hard": 150 / 900}


class Maze(Task):
    """A ``rows`` × ``cols`` maze with 4-neighbour moves; the answer is the maze with a shortest path in ``o``.

    ``difficulty`` is a name, or a number as text: the shortest path is longer than that many moves.
    Generated mazes have exactly one shortest path, so that their answer is the only right one.
    """

    spellings = "maze-30x30, maze-RxC"
    vocabulary = ("<pad>", "#", " ", "S", "G", "o")
    aliases: Mapping[str, int] = {".": OPEN, "_": OPEN}  # spaces are easily lost at the end of a line
    blank = OPEN
    difficulties = tuple(_MOVES_PER_CELL)
    drawing = Drawing(fills={"#": WALLS, "o": WAY}, names={"S": "start", "G": "goal", "o": "path"})

    def __init__(self, rows: int, cols: int) -> None:
        if not (5 <= rows <= 64 and 5 <= cols <= 64):
            raise InputError(f"maze-{rows}x{cols}: rows and columns must be 5 to 64")
        self.rows, self.cols = rows, cols
        self.name = f"maze-{rows}x{cols}"
        cell = np.arange(rows * cols)
        self.position_ids = np.stack([cell // cols, rows + cell % cols]).astype(np.int32)
        self.n_positions = rows + cols

    @classmethod
    def from_name(cls, name: str) -> Maze | None:
        match = re.fullmatch(r"maze-(\d{1,3})x(\d{1,3})", name)
        return cls(int(match[1]), int(match[2])) if match else None

    # -- text ------------------------------------------------------------------------------------------

    def parse(self, text: str) -> Tokens:
        lines = "\n".join(unframed(line, self.cols) for line in text.splitlines()).strip("\n").split("\n")
        if len(lines) == 1:
            return self._tokens(lines[0])
        for number, line in enumerate(lines, 1):
            if len(line) != self.cols:
                raise InputError(
                    f"row {number} of the maze has {len(line)} characters, expected {self.cols} "
                    "('.' also stands for an open cell, where spaces get lost)"
                )
        return self._tokens("".join(lines))

    def _tokens(self, cells: str) -> Tokens:
        if len(cells) != self.seq_len:
            raise InputError(
                f"maze has {len(cells)} characters, expected {self.seq_len} ({self.rows} rows of {self.cols})"
            )
        return self.parse_cells(cells, "not one of '#', ' ' (or '.'), 'S', 'G', 'o'")

    def parse_many(self, text: str) -> list[Tokens]:
        """Mazes of S characters on a line, or of ``rows`` lines; empty lines between them are skipped."""
        reader = MazeReader(self, shown=True)
        for number, line in enumerate(text.splitlines(), 1):
            reader.add(number, line)
        reader.end()
        found = reader.take()
        return [] if found is None else list(found.questions)

    def reader(self) -> MazeReader:
        return MazeReader(self)

    # -- rules -----------------------------------------------------------------------------------------

    @property
    def question_tokens(self) -> np.ndarray:
        return np.array([WALL, OPEN, START, GOAL])

    @property
    def answer_tokens(self) -> np.ndarray:
        return np.array([OPEN, PATH])

    @property
    def portable_rules(self) -> dict[str, Any]:
        """Open cells that became path are a shortest way from start to goal; all others are as they were."""
        return {"kind": "maze", "wall": WALL, "open": OPEN, "start": START, "goal": GOAL, "path": PATH}

    def check_question(self, tokens: Tokens) -> None:
        tokens = np.asarray(tokens)
        self._check_tokens(tokens)
        for token, what in ((START, "start 'S'"), (GOAL, "goal 'G'")):
            cells = np.flatnonzero(tokens == token)
            if len(cells) == 0:
                raise InputError(f"the maze has no {what}")
            if len(cells) > 1:
                places = " and ".join(self.where(cell) for cell in cells[:2])
                raise InputError(f"the maze has {len(cells)} cells marked {what}, at {places}; mark one")
        drawn = np.flatnonzero(tokens == PATH)
        if drawn.size:
            raise InputError(f"the maze already has a path: 'o' at {self.where(drawn[0])}")

    def verify(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        questions, answers = np.asarray(questions), np.asarray(answers)
        good = ((questions == START).sum(1) == 1) & ((questions == GOAL).sum(1) == 1)
        good &= ((questions >= WALL) & (questions < PATH)).all(axis=1)
        drawn = (questions == OPEN) & (answers == PATH)
        good &= (drawn | (questions == answers)).all(axis=1)
        # A path is connected and shortest when it alone leads to the goal as fast as all open cells do.
        ends = (questions == START) | (questions == GOAL)
        moves = self._moves(questions, ends | (questions == OPEN))
        return good & (moves > 0) & (self._moves(questions, ends | drawn) == moves) & (drawn.sum(1) == moves - 1)

    def _moves(self, questions: np.ndarray, free: np.ndarray) -> np.ndarray:
        """int64[B]: moves from S to G over the cells in bool ``free[B, S]``, or −1."""
        shape = (len(questions), self.rows, self.cols)
        free, goal = free.reshape(shape), (questions == GOAL).reshape(shape)
        reached = (questions == START).reshape(shape)
        moves = np.full(len(questions), -1)
        for step in range(self.seq_len):
            arrived = (reached & goal).any(axis=(1, 2))
            moves[arrived & (moves < 0)] = step
            grown = reached.copy()
            grown[:, 1:] |= reached[:, :-1]
            grown[:, :-1] |= reached[:, 1:]
            grown[:, :, 1:] |= reached[:, :, :-1]
            grown[:, :, :-1] |= reached[:, :, 1:]
            grown &= free
            if arrived.all() or (grown == reached).all():
                break
            reached = grown
        return moves

    def why_wrong(self, question: Tokens, answer: Tokens) -> str:
        strange = np.flatnonzero((np.asarray(answer) != question) & (np.asarray(answer) != PATH))
        if strange.size:
            return f"it turns an open cell into {self.vocabulary[answer[strange[0]]]!r} at {self.where(strange[0])}"
        return "its 'o' cells are not a shortest path from S to G"

    def solve(self, question: Tokens) -> Tokens | None:
        question = np.asarray(question, np.int32)
        start, goal = (int(np.flatnonzero(question == end)[0]) for end in (START, GOAL))
        free = [t != WALL for t in question.tolist()]
        path = shortest_path(distances(free, self.cols, goal), self.cols, start)
        if path is None:
            return None
        answer = question.copy()
        answer[path[1:-1]] = PATH
        return answer

    def count_solutions(self, question: Tokens, limit: int = 2) -> int:
        """How many shortest paths there are, counting no further than two."""
        question = np.asarray(question, np.int32)
        start, goal = (int(np.flatnonzero(question == end)[0]) for end in (START, GOAL))
        free = [t != WALL for t in question.tolist()]
        return min(limit, count_ways(distances(free, self.cols, start), self.cols, start)[goal])

    def rating(self, question: Tokens, answer: Tokens) -> int:
        """Moves of the shortest path."""
        return int((np.asarray(answer) == PATH).sum()) + 1

    def check_difficulty(self, difficulty: str) -> None:
        if difficulty not in self.difficulties and not difficulty.isdecimal():
            raise InputError(
                f"{self.name} has no difficulty {difficulty!r}; choose one of {', '.join(self.difficulties)}, "
                "or a number of moves that the shortest path must exceed"
            )

    def generate_one(self, rng: np.random.Generator, difficulty: str) -> tuple[Tokens, Tokens]:
        self.check_difficulty(difficulty)
        named = _MOVES_PER_CELL.get(difficulty, 0) * self.seq_len
        bound = int(difficulty) if difficulty.isdecimal() else int(named)
        free, path = generate_maze(rng, self.rows, self.cols, bound)
        question = np.where(free, OPEN, WALL).astype(np.int32)
        question[[path[0], path[-1]]] = START, GOAL
        answer = question.copy()
        answer[path[1:-1]] = PATH
        return question, answer

    # -- symmetries ------------------------------------------------------------------------------------

    @functools.cached_property
    def _turns(self) -> np.ndarray:
        """int64[8 or 4, S]: the dihedral symmetries; without the quarter turns unless the maze is square."""
        grid = np.arange(self.seq_len).reshape(self.rows, self.cols)
        turns = range(4) if self.rows == self.cols else (0, 2)
        boards = [np.rot90(side, k) for side in (grid, grid[:, ::-1]) for k in turns]
        return np.stack([board.reshape(-1) for board in boards])

    def sample_symmetries(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Reflections and turns that keep the shape; symbols keep their meaning."""
        cells = self._turns[rng.integers(len(self._turns), size=count)]
        return cells, np.tile(np.arange(self.vocab_size, dtype=np.int32), (count, 1))

    def fingerprints(self, questions: np.ndarray) -> np.ndarray:
        found = row_hashes(questions[:, self._turns[0]])
        for turn in self._turns[1:]:
            found = np.minimum(found, row_hashes(questions[:, turn]))
        return found

    def find_symmetry(self, question: Tokens, other: Tokens) -> Symmetry | None:
        values = np.arange(self.vocab_size, dtype=np.int32)
        turns = (Symmetry(turn, values) for turn in self._turns)
        return next((turn for turn in turns if np.array_equal(turn.apply(question), other)), None)
