"""Mazes with one shortest path of at least a given length, and the path search they need."""

from __future__ import annotations

import random

import numpy as np

from ...errors import InputError

_TRIES = 400  # mazes; a 30×30 with a path over 110 moves takes about two


def generate_maze(rng: np.random.Generator, rows: int, cols: int, min_moves: int) -> tuple[list[bool], list[int]]:
    """(which cells are open, the path as cells from start to goal).

    The path is longer than ``min_moves`` and is the only shortest one. The maze is a random tree of corridors
    (from winding to bushy), with up to one wall in forty cells knocked out, which makes loops and dead ends
    that a wall-follower gets wrong. InputError when paths that long do not turn up.
    """
    # The standard library's generator draws single numbers ten times faster than numpy's.
    draw = random.Random(int(rng.integers(2**63)))
    for _ in range(_TRIES):
        free = _corridors(draw, rows, cols)
        for _ in range(draw.randrange(rows * cols // 40 + 1)):  # walls to knock out
            free[draw.randrange(1, rows - 1) * cols + draw.randrange(1, cols - 1)] = True
        places = [cell for cell, is_free in enumerate(free) if is_free]
        start = draw.choice(places)
        far = distances(free, cols, start)
        ways = count_ways(far, cols, start)
        goals = [cell for cell in places if far[cell] > max(min_moves, 1) and ways[cell] == 1]
        if goals:
            path = shortest_path(far, cols, draw.choice(goals))
            assert path is not None
            return free, path[::-1]
    raise InputError(
        f"found no {rows}x{cols} maze with a shortest path over {min_moves} moves in {_TRIES} tries; "
        "ask for a shorter path or a larger maze"
    )


def _corridors(draw: random.Random, rows: int, cols: int) -> list[bool]:
    """A spanning tree over every second cell; an even side leaves one border line free of walls."""
    free = [False] * (rows * cols)
    # With an offset of 1 the outermost line is wall, with 0 it is corridor.
    row, col = draw.randrange(2), draw.randrange(2)
    winding = draw.uniform(0.5, 1.0)  # how often the newest branch grows: 1 gives long corridors
    active = [(row, col)]
    free[row * cols + col] = True
    while active:
        index = len(active) - 1 if draw.random() < winding else draw.randrange(len(active))
        row, col = active[index]
        steps = [
            (row + dr, col + dc)
            for dr, dc in ((2, 0), (-2, 0), (0, 2), (0, -2))
            if 0 <= row + dr < rows and 0 <= col + dc < cols and not free[(row + dr) * cols + col + dc]
        ]
        if not steps:
            active.pop(index)
            continue
        r, c = draw.choice(steps)
        free[r * cols + c] = free[(row + r) // 2 * cols + (col + c) // 2] = True
        active.append((r, c))
    return free


def _neighbours(cell: int, size: int, cols: int) -> list[int]:
    found = []
    if cell >= cols:
        found.append(cell - cols)
    if cell % cols:
        found.append(cell - 1)
    if (cell + 1) % cols:
        found.append(cell + 1)
    if cell + cols < size:
        found.append(cell + cols)
    return found


def distances(free: list[bool], cols: int, start: int) -> list[int]:
    """Moves from ``start`` to each cell over free cells; −1 where there is no way."""
    far = [-1] * len(free)
    far[start] = 0
    queue = [start]
    for cell in queue:
        for other in _neighbours(cell, len(free), cols):
            if free[other] and far[other] < 0:
                far[other] = far[cell] + 1
                queue.append(other)
    return far


def shortest_path(far: list[int], cols: int, cell: int) -> list[int] | None:
    """One way from ``cell`` down to the cell at distance 0, both included; None if there is none."""
    if far[cell] < 0:
        return None
    path = [cell]
    while far[cell]:
        cell = next(other for other in _neighbours(cell, len(far), cols) if far[other] == far[cell] - 1)
        path.append(cell)
    return path


def count_ways(far: list[int], cols: int, start: int) -> list[int]:
    """How many shortest ways lead from ``start`` to each cell, counting "two or more" as 2."""
    ways = [0] * len(far)
    ways[start] = 1
    for cell in sorted((c for c, d in enumerate(far) if d > 0), key=lambda c: far[c]):
        before = [o for o in _neighbours(cell, len(far), cols) if far[o] == far[cell] - 1]
        ways[cell] = min(2, sum(ways[o] for o in before))
    return ways
