"""Exact Sudoku search on one big integer: fast in plain Python, without a compiler.

A state is an int with one bit per *option* "digit d in cell (r, c)", bit ``d·S + r·n + c``, set while the
option is alive. Every rule says that of n options exactly one is true: one digit per cell, and each digit once
per row, column and box. All rules of one kind are counted together ("none / one / several alive") by a few
shifts of the whole integer, which finds every naked and hidden single of the board at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_Axes = list[tuple[int, int]]


@dataclass
class Search:
    """Solved states (one option per cell), in how many places the search guessed, and whether it gave up."""

    solutions: list[int]
    guesses: int
    gave_up: bool = False


class SudokuSearch:
    """The solver for boards with boxes of ``box_rows`` × ``box_cols`` cells."""

    def __init__(self, box_rows: int, box_cols: int) -> None:
        n = box_rows * box_cols
        size = n * n
        self.n, self.size, self.box_rows, self.box_cols = n, size, box_rows, box_cols
        self.full = (1 << (size * n)) - 1
        corners = [r * n + c for r in range(0, n, box_rows) for c in range(0, n, box_cols)]
        # Cells, rows, columns and boxes: (stride, width) of a rule's window of options along each of its axes, and
        # the first option of each rule.
        kinds: list[tuple[_Axes, list[int]]] = [
            ([(size, n)], [r * n + c for r in range(n) for c in range(n)]),
            ([(1, n)], [d * size + r * n for d in range(n) for r in range(n)]),
            ([(n, n)], [d * size + c for d in range(n) for c in range(n)]),
            ([(1, box_cols), (n, box_rows)], [d * size + corner for d in range(n) for corner in corners]),
        ]
        # How to count each kind, the first options of its rules, and what spreads a flag there to all of them.
        self.steps: list[tuple[Callable[[int], tuple[int, int]], int, int]] = []
        self.windows: list[int] = []  # the options of each rule
        for axes, firsts in kinds:
            spread = _window(axes)
            self.steps.append((_counter(axes), sum(1 << first for first in firsts), spread))
            self.windows += [spread << first for first in firsts]
        # keep[option]: what stays alive once that option is true.
        self.keep = self._keep()

    def _keep(self) -> list[int]:
        conflicts = [0] * (self.size * self.n)
        for window in self.windows:
            for option in _bits(window):
                conflicts[option] |= window
        return [self.full & ~mask | 1 << option for option, mask in enumerate(conflicts)]

    def state(self, givens: list[int]) -> int:
        """The state of a board: ``givens[cell]`` is a digit 0..n−1, or −1 when empty. 0 if they clash."""
        alive = self.full
        for cell, digit in enumerate(givens):
            if digit >= 0:
                option = digit * self.size + cell
                if not alive >> option & 1:
                    return 0
                alive &= self.keep[option]
        return alive

    def digits(self, solution: int) -> list[int]:
        """The digit 0..n−1 of each cell of a solved state."""
        found = [0] * self.size
        while solution:
            option = solution.bit_length() - 1
            digit, cell = divmod(option, self.size)
            found[cell] = digit
            solution ^= 1 << option
        return found

    def propagate(self, alive: int, placed: int = 0) -> tuple[int, int]:
        """Follow naked and hidden singles to the end: (alive, placed), alive 0 on a contradiction."""
        keep = self.keep
        while True:
            singles = 0
            for count, anchors, spread in self.steps:
                once, twice = count(alive)
                if anchors & ~once:
                    return 0, 0
                singles |= (anchors & ~twice) * spread
            singles &= alive & ~placed
            if not singles:
                return alive, placed
            placed |= singles
            while singles:
                option = singles.bit_length() - 1
                alive &= keep[option]
                singles ^= 1 << option

    def search(
        self,
        alive: int,
        limit: int = 1,
        max_guesses: int | None = None,
        order: Callable[[list[int]], list[int]] | None = None,
    ) -> Search:
        """Depth-first from a state: up to ``limit`` solutions.

        It gives up after ``max_guesses``; ``order`` may shuffle the options of a guess.
        """
        found: list[int] = []
        guesses = 0
        stack = [(alive, 0)]
        while stack:
            alive, placed = self.propagate(*stack.pop())
            if not alive:
                continue
            if alive.bit_count() == self.size:
                found.append(alive)
                if len(found) >= limit:
                    break
                continue
            options = self._branch(alive)
            if order is not None:
                options = order(options)
            if guesses == max_guesses:
                return Search(found, guesses, gave_up=True)
            guesses += 1
            # Last pushed is tried first.
            stack.extend((alive & self.keep[option], placed) for option in reversed(options))
        return Search(found, guesses)

    def _branch(self, alive: int) -> list[int]:
        """The options of the rule with fewest left: a cell if one has two, else whichever is smallest.

        Rows, columns and boxes matter for boards without a solution, which cells alone refute too slowly.
        """
        fewest, best = self.n + 1, 0
        for window in self.windows:
            options = alive & window
            count = options.bit_count()
            if 1 < count < fewest:
                fewest, best = count, options
                if count == 2:
                    break
        return _bits(best)


def _bits(mask: int) -> list[int]:
    """The positions of the set bits of ``mask``, lowest first."""
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found


def _window(axes: _Axes) -> int:
    """The options of the rule whose first one is 0."""
    offsets = [0]
    for stride, width in axes:
        offsets = [o + k * stride for o in offsets for k in range(width)]
    return sum(1 << o for o in offsets)


def _counter(axes: _Axes) -> Callable[[int], tuple[int, int]]:
    """A function from a state to ("at least one alive", "at least two alive"), valid at a rule's first option.

    A window of width w is built by doubling (and adding one where w is odd), as in binary exponentiation.
    """
    dims = []
    for stride, width in axes:
        steps, length = [], 1
        for digit in bin(width)[3:]:
            steps.append((length * stride, True))
            length *= 2
            if digit == "1":
                steps.append((length * stride, False))
                length += 1
        dims.append(tuple(steps))

    def count(once: int) -> tuple[int, int]:
        twice = 0
        for steps in dims:
            once1, twice1 = once, twice
            for shift, doubling in steps:
                other = (once if doubling else once1) >> shift
                twice |= (twice if doubling else twice1) >> shift | once & other
                once |= other
        return once, twice

    return count
