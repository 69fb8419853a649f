"""Sudoku puzzles with exactly one solution: fill a board at random, then take givens away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sudoku_search import SudokuSearch


@dataclass(frozen=True)
class Difficulty:
    """Which puzzles count as this hard.

    ``clues``: lowest and highest number of givens *per 81 cells*; each puzzle draws its own target uniformly
    and is taken down to exactly that many. ``guesses``: lowest and highest number of cells in which the exact
    solver (naked and hidden singles, else the most constrained cell) has to guess; None: no bound.
    """

    clues: tuple[int, int]
    guesses: tuple[int, int | None] = (0, None)


DIFFICULTIES = {
    "easy": Difficulty((36, 46), (0, 0)),
    "ordinary": Difficulty((26, 40)),
    "hard": Difficulty((23, 27), (1, None)),
    "extreme": Difficulty((22, 25), (8, None)),
}


def generate_puzzle(
    search: SudokuSearch, rng: np.random.Generator, difficulty: Difficulty
) -> tuple[list[int], list[int]]:
    """(givens with −1 for blanks, solution), digits 0..n−1, one per cell."""
    low, high = (round(c * search.size / 81) for c in difficulty.clues)
    while True:
        target = int(rng.integers(low, high + 1))
        solution = random_solution(search, rng)
        givens = dig(search, solution, rng.permutation(search.size).tolist(), target)
        if givens is None:
            continue
        fewest, most = difficulty.guesses
        if fewest or most is not None:
            guesses = search.search(search.state(givens)).guesses
            if guesses < fewest or (most is not None and guesses > most):
                continue
        return givens, solution


def random_solution(search: SudokuSearch, rng: np.random.Generator) -> list[int]:
    """A full valid board: depth-first with every guess in random order."""

    def shuffle(options: list[int]) -> list[int]:
        return [options[i] for i in rng.permutation(len(options))]

    first_row = rng.permutation(search.n).tolist()
    alive = search.state(first_row + [-1] * (search.size - search.n))
    return search.digits(search.search(alive, order=shuffle).solutions[0])


def dig(search: SudokuSearch, solution: list[int], order: list[int], target: int) -> list[int] | None:
    """Blank cells in ``order`` wherever the solution stays the only one, until ``target`` givens are left.

    None when no cell can be blanked any more before that. Runs of cells are tried together and halved on
    failure: fewer givens never have fewer solutions, so this gives exactly what one by one would.
    """
    size = search.size
    givens = list(solution)
    left, start, run = size, 0, size // 4
    while left > target:
        if start >= size:
            return None
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
    alive = search.state(remaining)
    if len(cells) == 1:  # a second solution would have another digit here
        alive &= ~(1 << (solution[cells[0]] * search.size + cells[0]))
        return not search.search(alive).solutions
    return len(search.search(alive, limit=2).solutions) == 1
