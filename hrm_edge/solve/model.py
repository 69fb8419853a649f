"""A model as people use it: puzzles in as text, lists, arrays or files, boards out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ..errors import InputError, require_whole
from ..runtimes import Engine
from ..tasks import Task
from ..text import printable
from .answer import require_questions, require_solvable, solve_each
from .questions import questions_of
from .solutions import Solutions
from .trace import Trace, trace_puzzle
from .watch import Watch


class Model:
    """What :func:`hrm_edge.load` opens; it may be asked from several threads at once.

    ``engine`` answers arrays of tokens, ``path`` is where the model came from, ``label`` what it is.
    """

    def __init__(self, engine: Engine, path: Path, label: str) -> None:
        self.engine, self.path, self.label = engine, path, label
        self._warm = False  # backends finish compiling on their first call

    @property
    def task(self) -> Task:
        """What it solves."""
        return self.engine.task

    def __repr__(self) -> str:
        return printable(f"<model {self.label}, solves {self.task.name}>")

    def __fspath__(self) -> str:
        return str(self.path)

    def solve(
        self,
        puzzles: Any = None,
        *,
        data: Path | str | None = None,
        halt: str = "learned",
        max_think_steps: int | None = None,
        retries: int = 0,
        seed: int = 0,
        trace: bool = False,
        tokens: bool | None = None,
        puzzle_identifiers: Any = None,
        watch: Watch | None = None,
        check_solvable: bool = False,
    ) -> Solutions:
        """Solve puzzles, as ``hrm-edge solve`` does, and say which answers keep the rules.

        >>> import hrm_edge as he
        >>> model = he.load("sudoku-9x9")
        >>> puzzle = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
        >>> model.solve(puzzle).text
        ['534678912672195348198342567859761423426853791713924856961537284287419635345286179']
        >>> cells = [0 if cell == "." else int(cell) for cell in puzzle]
        >>> model.solve([cells, cells]).digits[1][0]
        array([5, 3, 4, 6, 7, 8, 9, 1, 2], dtype=int32)

        Args:
            puzzles: a text or a file's name, or a list of them; one board or several, as lists or arrays of cells
                or of rows of cells; a :class:`~hrm_edge.data.puzzles.PuzzleSet`. Whole numbers are digits as
                people write them, with 0 for a blank (:func:`~hrm_edge.solve.questions.questions_of`).
            data: a file or folder of puzzles, answered after these.
            halt: when to stop thinking: "learned" (the model's own head), "verified" (when the rules are met) or
                "fixed" (only after `max_think_steps`).
            max_think_steps: segments at most; by default as many as in training.
            retries: think again on up to this many symmetric variants of a board that does not verify; ``seed``
                says which.
            trace: keep the guess after every segment; :meth:`trace` shows more.
            tokens: whether whole numbers are the task's tokens (True) or digits (False); with None they are digits,
                and a board that could be either is refused.
            puzzle_identifiers: int[N], one a board, for models trained with several.
            watch: is told a :class:`~hrm_edge.solve.watch.Moment` after every segment, as it comes.
            check_solvable: have an exact solver look at each first, which takes time; else it looks only at one
                that is asked by itself and not answered right.

        Raises:
            InputError: a puzzle can not be read, can be read in two ways, or was found to have no solution; an
                option is wrong.
        """
        require_whole(0, seed=seed)
        questions = questions_of(
            puzzles, self.task, tokens=tokens, data=data, puzzle_identifiers=puzzle_identifiers
        )
        options: dict[str, Any] = {"halt": halt, "max_think_steps": max_think_steps}
        options |= {
            "retries": retries,
            "seed": seed,
            "trace": trace,
            "watch": watch,
            "check_solvable": check_solvable,
        }
        solved = Solutions(self.task, solve_each(self.engine, questions, warm_up=not self._warm, **options))
        self._warm = True
        return solved

    async def solve_async(self, puzzles: Any = None, **options: Any) -> Solutions:
        """:meth:`solve` in a thread of its own, while the event loop goes on."""
        return await asyncio.to_thread(self.solve, puzzles, **options)

    def trace(
        self,
        puzzle: Any,
        *,
        halt: str = "learned",
        max_think_steps: int | None = None,
        tokens: bool | None = None,
        puzzle_identifiers: Any = None,
    ) -> Trace:
        """Think over one puzzle, and show every segment: guess, q, and where they can be seen logits and states.

        >>> import hrm_edge as he
        >>> puzzle = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
        >>> trace = he.load("sudoku-9x9").trace(puzzle)
        >>> trace.guesses.shape, trace.logits.shape, sorted(trace.states)
        ((2, 81), (2, 81, 11), ['z_H', 'z_L'])

        Arguments and errors are those of :meth:`solve`, and InputError unless it is one puzzle.
        """
        asked = list(questions_of(puzzle, self.task, tokens=tokens, puzzle_identifiers=puzzle_identifiers))
        count = sum(len(rows.questions) for rows in asked)
        if count != 1:
            raise InputError(f"a trace is of one puzzle, not of {count}; ask for each by itself")
        (rows,) = asked
        require_questions(rows, self.engine)
        require_solvable(rows, self.task)
        return trace_puzzle(
            self.engine,
            rows.questions,
            label=self.label,
            halt=halt,
            max_think_steps=max_think_steps,
            puzzle_identifiers=rows.identifiers,
        )
