"""Random symmetries of a task that names a few: products of them and of their inverses."""

from __future__ import annotations

import numpy as np

from .definition import TaskDefinition

# So many elements, after so many replacements products of products; a sample multiplies a few of them.
_POOL, _REPLACED, _FACTORS = 16, 200, 6


class Symmetries:
    """The group that a definition's symmetries generate, to draw from: as even as it needs to be, and fast.

    Elements are pairs (cells int64[S], values int32[V]) as in :class:`hrm_edge.tasks.base.Symmetry`.
    """

    def __init__(self, definition: TaskDefinition) -> None:
        stay, keep = np.arange(definition.seq_len), np.arange(definition.vocab_size, dtype=np.int32)
        generators = [
            (np.array(each.cells or stay), np.array(each.tokens or keep, np.int32))
            for each in definition.symmetries
        ] or [(stay, keep)]
        pool = [generators[index % len(generators)] for index in range(max(_POOL, len(generators)))]
        # Product replacement (Celler et al.): elements spread over the group by multiplying each other.
        rng = np.random.default_rng(0)
        for _ in range(max(_REPLACED, 8 * len(pool))):
            one, other = rng.choice(len(pool), 2, replace=False)
            factor = pool[other] if rng.random() < 0.5 else _inverse(pool[other])
            pool[one] = _product(pool[one], factor) if rng.random() < 0.5 else _product(factor, pool[one])
        pool += [_inverse(element) for element in pool]
        self.cells = np.stack([cells for cells, _ in pool])
        self.values = np.stack([values for _, values in pool])

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """``count`` of them: cells int64[count, S], values int32[count, V]."""
        first, *others = rng.integers(len(self.cells), size=(_FACTORS, count))
        cells, values = self.cells[first], self.values[first]
        for chosen in others:
            cells = np.take_along_axis(cells, self.cells[chosen], axis=1)
            values = np.take_along_axis(self.values[chosen], values, axis=1)
        return cells, values


Element = tuple[np.ndarray, np.ndarray]


def _product(first: Element, then: Element) -> Element:
    """What applies ``first``, and ``then`` to what came of it."""
    return first[0][then[0]], then[1][first[1]]


def _inverse(element: Element) -> Element:
    return np.argsort(element[0]), np.argsort(element[1]).astype(np.int32)
