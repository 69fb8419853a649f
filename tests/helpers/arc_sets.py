"""A few made-up ARC tasks: mirror the grid, or exchange two colours."""

import numpy as np

from hrm_edge.arc.collection import ArcTask, Collection


def toy_collection(tasks=3, side=4, seed=0):
    """`tasks` training tasks and as many evaluation tasks with 3 demonstrations and 2 tests each."""
    rng = np.random.default_rng(seed)

    def pair(k):
        grid = rng.integers(0, 5, rng.integers(1, side + 1, 2)).astype(np.int32)
        return grid, np.fliplr(grid) if k % 2 else np.where(grid == 1, 2, grid).astype(np.int32)

    def made(part):
        return tuple(
            ArcTask(f"{part}{k}", tuple(pair(k) for _ in range(3)), tuple(pair(k) for _ in range(2)))
            for k in range(tasks)
        )

    return Collection("toys", made("aa"), made("bb"))
