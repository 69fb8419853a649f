"""Puzzle identifiers: whose they are, which a table of embeddings still has, and in which row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .limits import IDENTIFIERS

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True)
class Numbering:
    """Whose puzzle each identifier is: how many there are, 0 (no puzzle) included, and a hash of their names."""

    count: int
    names: str | None = None  # hex SHA-256; None: unknown


def require_same(data: Numbering | None, model: Numbering | None, what: str) -> None:
    """InputError where an identifier of ``data``, called ``what``, may be another puzzle to the model.

    Equal names are the same puzzles, whatever the size of the table that was made for them.
    """
    if data is None or model is None:
        return
    known = data.names is not None and model.names is not None
    if data.names == model.names if known else data.count == model.count:
        return
    use = "an identifier may be another puzzle in each; use the data that the model was trained on"
    if data.count != model.count:
        raise InputError(
            f"{what}: has {data.count} puzzle identifiers, and the model was trained with {model.count}: {use}"
        )
    raise InputError(
        f"{what}: its identifiers.json names the {data.count} puzzles otherwise, or in another order, than that of "
        f"the model's training: {use}"
    )


def hash_of_names(names: Sequence[str]) -> str:
    """Hex SHA-256 of the names of identifiers, in their order."""
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()


def parse_ranges(text: str, where: str) -> np.ndarray:
    """int32[K], rising, from ``0-99,200``; commas or white space between. InputError names ``where``."""
    found = []
    total = 0
    for part in re.split(r"[,\s]+", text.strip(", \t\r\n")):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise InputError(f"{where}: expected identifiers as in 0-99,200, not {part[:40]!r}")
        total += last - first + 1  # asked of all together: a text of a few bytes may repeat a range for ever
        if total > IDENTIFIERS:
            raise InputError(f"{where}: {text.strip()[:40]!r} names more than {IDENTIFIERS} identifiers")
        found.append((first, last))
    runs, after = [], 0
    for first, last in sorted(found):
        runs.append(np.arange(max(first, after), last + 1, dtype=np.int32))  # without what was there before
        after = max(after, last + 1)
    return np.concatenate(runs)


def format_ranges(identifiers: np.ndarray) -> str:
    """What :func:`parse_ranges` reads back, of int[K] that rise."""
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges(identifiers))


def ranges(identifiers: np.ndarray) -> list[tuple[int, int]]:
    """First and last of each run of int[K] that rise."""
    if not len(identifiers):
        return []
    runs = np.split(identifiers, np.flatnonzero(np.diff(identifiers) != 1) + 1)
    return [(int(run[0]), int(run[-1])) for run in runs]


def kept_in(source: Mapping[str, str], where: str) -> np.ndarray | None:
    """int32[K], rising: those whose rows an export's table has left, by its manifest's ``source``; None: all."""
    kept = source.get("puzzle_identifiers")
    return None if kept is None else parse_ranges(kept, f"{where}: source.puzzle_identifiers")


def ranges_in_table(count: int, kept: np.ndarray | None) -> list[tuple[int, int]]:
    """First and last of the identifiers whose rows a table of ``count`` has, in their order; ``kept`` None: all."""
    return [(0, count - 1)] if kept is None else ranges(kept)


def rows_of(identifiers: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """int32: row of each identifier in a table that only has those in ``kept`` (int[K], rising); None: has all.

    InputError when one is not among them.
    """
    if kept is None:
        return np.asarray(identifiers, np.int32)
    rows = np.searchsorted(kept, identifiers).clip(max=len(kept) - 1)
    missing = np.flatnonzero(kept[rows] != identifiers)
    if missing.size:
        raise InputError(
            f"puzzle identifier {identifiers[missing[0]]} is not among the {len(kept)} that were kept at export; "
            "export again with more --puzzle-identifiers"
        )
    return rows.astype(np.int32)
