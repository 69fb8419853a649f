"""Sudoku puzzles with exactly one solution: fill a board at random, then take givens away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from .search import SudokuSearch


@dataclass(frozen=True)
class Difficulty:
    """Which puzzles count as this hard.

    ``clues``: lowest and highest number of givens *per 81 cells*. Each puzzle draws its own target uniformly
    and loses givens until it has that many, or until no given can be spared (then it has a few more).
    ``guesses``: lowest and highest number of places where the exact solver has to guess, that is where naked
    and hidden singles end; None: no upper bound.
    """

    clues: tuple[int, int]
    guesses: tuple[int, int | None] = (0, None)


DIFFICULTIES = {
    "easy": Difficulty((36, 46), (0, 0)),
    "ordinary": Difficulty((26, 40)),
    "hard": Difficulty((23, 27), (1, None)),
    "extreme": Difficulty((17, 17), (6, None)),  # 17 is out of reach: no given can be spared
}

# Boards tried per puzzle, and guesses per uniqueness check, after which a given is kept to be safe. An extreme
# 9×9 takes about twenty boards, and its checks far fewer guesses. On larger boards each is dearer.
_TRIES = 2000
_MAX_GUESSES = 5000


def generate_puzzle(
    search: SudokuSearch, rng: np.random.Generator, difficulty: Difficulty
) -> tuple[list[int], list[int]]:
    """(givens with −1 for blanks, solution), digits 0..n−1, one per cell.

    InputError when boards of this size do not get that hard (or that easy).
    """
    low, high = (round(c * search.size / 81) for c in difficulty.clues)
    fewest, most = difficulty.guesses
    tries = _affordable(_TRIES, search)
    for _ in range(tries):
        target = int(rng.integers(low, high + 1))
        solution = random_solution(search, rng)
        givens = dig(search, solution, rng.permutation(search.size).tolist(), target)
        if fewest == 0 and most is None:
            return givens, solution
        guesses = search.search(search.state(givens)).guesses
        if guesses >= fewest and (most is None or guesses <= most):
            return givens, solution
    side = f"{search.n}x{search.n}"
    raise InputError(f"found no {side} Sudoku of this difficulty in {tries} tries; choose another")


def _affordable(limit: int, search: SudokuSearch) -> int:
    """``limit`` for boards up to 9×9, less for larger ones."""
    return int(limit * min(1.0, (81 / search.size) ** 3)) + 1


def random_solution(search: SudokuSearch, rng: np.random.Generator) -> list[int]:
    """A full valid board: the boxes on the diagonal at random, the rest depth-first, guessing in random order."""

    def shuffle(options: list[int]) -> list[int]:
        return [options[i] for i in rng.permutation(len(options))]

    n, box_rows, box_cols = search.n, search.box_rows, search.box_cols
    while True:
        board = np.full((n, n), -1)
        for k in range(min(box_rows, box_cols)):  # these share no row and no column
            box = rng.permutation(n).reshape(box_rows, box_cols)
            board[k * box_rows : (k + 1) * box_rows, k * box_cols : (k + 1) * box_cols] = box
        found = search.search(
            search.state(board.reshape(-1).tolist()), 1, _affordable(_MAX_GUESSES, search), shuffle
        )
        if found.solutions:
            return search.digits(found.solutions[0])


def dig(search: SudokuSearch, solution: list[int], order: list[int], target: int) -> list[int]:
    """Blank cells in ``order`` wherever the solution stays the only one, until ``target`` givens are left.

    More are left when no further one can be spared. Runs of cells are tried together and halved on failure:
    fewer givens never have fewer solutions, so this gives exactly what one by one would.
    """
    size = search.size
    givens = list(solution)
    left, start, run = size, 0, size // 4
    while left > target and start < size:
        cells = order[start : start + min(run, left - target)]
        if _still_unique(search, givens, solution, cells):
            for cell in cells:
                givens[cell] = -1
            left -= len(cells)
            start += len(cells)
            run = max(1, run // 2) if left < size // 2 else run
        elif len(cells) == 1:
            start += 1
        else:
            run = len(cells) // 2
    return givens


def _still_unique(search: SudokuSearch, givens: list[int], solution: list[int], cells: list[int]) -> bool:
    """Is ``solution`` the only one after blanking ``cells`` too? (It is known to be so before.)"""
    remaining = list(givens)
    for cell in cells:
        remaining[cell] = -1
    alive, limit = search.state(remaining), _affordable(_MAX_GUESSES, search)
    if len(cells) == 1:  # a second solution would have another digit here
        alive &= ~(1 << (solution[cells[0]] * search.size + cells[0]))
        result = search.search(alive, max_guesses=limit)
        return not result.solutions and not result.gave_up
    result = search.search(alive, limit=2, max_guesses=limit)
    return len(result.solutions) == 1 and not result.gave_up
