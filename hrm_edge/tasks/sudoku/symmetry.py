"""Whether two Sudokus are the same up to symmetry: a fingerprint for many boards, an exact search for two.

Both refine colours: a row, column or digit is coloured by what it holds, and that is coloured by the row,
column, box and digit it belongs to, over and over. A symmetry maps each colour class onto the one of equal
colour, so boards with different colours are different, and what has a colour of its own needs no guessing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..base import Symmetry, Tokens
from ..fingerprints import mix

if TYPE_CHECKING:
    from . import Sudoku

_ROUNDS = 4
_CHUNK = 2048  # boards coloured at a time: their arrays fit into a processor's cache
_ROW, _COLUMN, _DIGIT, _BOX, _LINE, _BAND, _MARK = mix(np.arange(7, dtype=np.uint64))


# uint64[3, B, n]: what is known about every row, column and digit of B boards; zeros: nothing.
Colours = np.ndarray


def fingerprints(task: Sudoku, questions: np.ndarray) -> np.ndarray:
    """uint64[N] of boards int32[N, S]: equal for equivalent boards, different for nearly all others."""
    found = np.empty(len(questions), np.uint64)
    for start in range(0, len(questions), _CHUNK):
        found[start : start + _CHUNK] = _invariants(task, questions[start : start + _CHUNK])
    full = np.flatnonzero((questions != task.blank).all(axis=1))
    if full.size:
        found[full] = _invariants_of_full(task, questions[full])
    return found


def _invariants(task: Sudoku, boards: np.ndarray) -> np.ndarray:
    sides = _sides(task, boards)
    unknown = np.zeros((3, len(boards), task.n), np.uint64)
    totals = np.stack([_total(_refined(task, side, unknown)) for side in sides])
    return totals.sum(axis=0, dtype=np.uint64)


def _invariants_of_full(task: Sudoku, boards: np.ndarray) -> np.ndarray:
    """Without a blank every row looks like any other: what tells boards apart is how they look with each one."""
    found = np.zeros(len(boards), np.uint64)
    for start in range(0, len(boards), _CHUNK):
        some = boards[start : start + _CHUNK]
        for cell in range(task.seq_len):
            opened = some.copy()
            opened[:, cell] = task.blank
            found[start : start + _CHUNK] += mix(_invariants(task, opened))
    return mix(found)


def _sides(task: Sudoku, boards: np.ndarray) -> list[np.ndarray]:
    """Boards [N, S] as they are and, where boxes are square, transposed."""
    if task.box_rows != task.box_cols:
        return [boards]
    return [boards, boards.reshape(-1, task.n, task.n).transpose(0, 2, 1).reshape(boards.shape)]


def find_symmetry(task: Sudoku, question: Tokens, other: Tokens) -> Symmetry | None:
    """A symmetry that turns ``question[S]`` into ``other[S]``, or None if there is none; exact, not a guess."""
    for order in _sides(task, np.arange(task.seq_len)[None]):
        cells = order[0]
        found = _search(task, np.stack([question[cells], other]), np.zeros((3, 2, task.n), np.uint64))
        if found is not None:
            return Symmetry(cells[found.cells], found.values)
    return None


def _total(colours: Colours) -> np.ndarray:
    """uint64[B]: the same for any order of rows, columns and digits."""
    rows, columns, digits = mix(colours).sum(axis=2, dtype=np.uint64)
    return mix(rows * _ROW + columns * _COLUMN + digits * _DIGIT)


def _refined(task: Sudoku, boards: np.ndarray, colours: Colours) -> Colours:
    """Colours that also tell apart what the ones given tell apart."""
    n, box_rows, box_cols = task.n, task.box_rows, task.box_cols
    shape = (len(boards), n, n)
    grid = boards.reshape(shape)
    rows, columns, digits = colours
    for _ in range(_ROUNDS):
        # blank cells share a colour that no digit has
        palette = np.concatenate([np.tile(_MARK, (len(boards), 2)), mix(digits ^ _DIGIT)], axis=1)
        symbols = np.take_along_axis(palette, boards, axis=1).reshape(shape)
        cells = mix(symbols + (mix(rows ^ _ROW)[:, :, None] + mix(columns ^ _COLUMN)[:, None, :]))
        boxes = cells.reshape(-1, n // box_rows, box_rows, n // box_cols, box_cols).sum(
            axis=(2, 4), dtype=np.uint64
        )
        cells = mix(cells + mix(boxes * _BOX).repeat(box_rows, axis=1).repeat(box_cols, axis=2))
        rows = _lines(rows, cells.sum(axis=2, dtype=np.uint64), box_rows)
        columns = _lines(columns, cells.sum(axis=1, dtype=np.uint64), box_cols)
        held = [np.where(grid == value, cells, np.uint64(0)).sum(axis=(1, 2), dtype=np.uint64)
                for value in task.value_tokens]  # fmt: skip
        digits = mix(digits * _DIGIT + np.stack(held, axis=1))
    return np.stack([rows, columns, digits])


def _lines(before: np.ndarray, held: np.ndarray, thickness: int) -> np.ndarray:
    """New colours uint64[B, n] of rows (or columns) from their cells and from the band that they lie in."""
    lines = mix(before * _LINE + held)
    bands = lines.reshape(len(lines), -1, thickness).sum(axis=2, dtype=np.uint64)
    return mix(lines + mix(bands * _BAND).repeat(thickness, axis=1))


def _search(task: Sudoku, pair: np.ndarray, colours: Colours) -> Symmetry | None:
    """The symmetry from ``pair[0]`` to ``pair[1]`` among those that keep ``colours``."""
    colours = _refined(task, pair, colours)
    if _agree(colours) and _ambiguous(colours):
        colours = _looked_ahead(task, pair, colours)
    if not _agree(colours):
        return None
    ambiguous = _ambiguous(colours)
    if not ambiguous:
        return _read_off(task, pair, colours)
    _, kind, colour = min(ambiguous)
    first = int(np.flatnonzero(colours[kind, 0] == colour)[0])
    for partner in np.flatnonzero(colours[kind, 1] == colour):
        marked = colours.copy()
        marked[kind, 0, first] ^= _MARK
        marked[kind, 1, partner] ^= _MARK
        found = _search(task, pair, marked)
        if found is not None:
            return found
    return None


def _agree(colours: Colours) -> bool:
    """Whether both boards have the same colours."""
    return all(np.array_equal(ours, theirs) for ours, theirs in np.sort(colours, axis=2))


def _ambiguous(colours: Colours) -> list[tuple[int, int, int]]:
    """Colours that several rows (columns, digits) share: (how many, which kind, the colour)."""
    found = []
    for kind, (ours, _) in enumerate(colours):
        values, counts = np.unique(ours, return_counts=True)
        found += [(int(counts[i]), kind, int(values[i])) for i in np.flatnonzero(counts > 1)]
    return found


def _looked_ahead(task: Sudoku, pair: np.ndarray, colours: Colours) -> Colours:
    """Colours by what would follow if one row (column, digit) were singled out, for each of them.

    Full and nearly full boards are so regular that refining alone tells nothing in them apart.
    """
    n, size = task.n, len(pair)
    marked = colours.repeat(3 * n, axis=1).reshape(3, size, 3, n, n)
    for kind in range(3):
        marked[kind, :, kind, np.arange(n), np.arange(n)] ^= _MARK
    followed = _refined(task, pair.repeat(3 * n, axis=0), marked.reshape(3, -1, n))
    return mix(colours + _total(followed).reshape(size, 3, n).swapaxes(0, 1))


def _read_off(task: Sudoku, pair: np.ndarray, colours: Colours) -> Symmetry | None:
    """The one map that all-different colours leave, if it is a symmetry and does what is asked."""
    rows, columns, digits = (_partners(ours, theirs) for ours, theirs in colours)
    for lines, thickness in ((rows, task.box_rows), (columns, task.box_cols)):
        bands = lines.reshape(-1, thickness) // thickness
        if (bands != bands[:, :1]).any():
            return None
    cells = (rows[:, None] * task.n + columns[None, :]).reshape(-1)
    values = np.arange(task.vocab_size, dtype=np.int32)
    values[digits + 2] = task.value_tokens
    found = Symmetry(cells, values)
    return found if np.array_equal(found.apply(pair[0]), pair[1]) else None


def _partners(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """int64[n]: for each of ``theirs`` which of ``ours`` has its colour."""
    partners = np.empty(len(ours), np.int64)
    partners[np.argsort(theirs)] = np.argsort(ours)
    return partners
