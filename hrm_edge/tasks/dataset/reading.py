"""From a folder of puzzles in the public layout, and the `task.toml` beside it, to the task that they are of."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ... import limits
from ...errors import InputError
from ...files import read_text, readable_name
from ...records import problem
from ...workspace import standing
from .definition import SymmetryDefinition, TaskDefinition, default_symbols

DESCRIPTION = "dataset.json"  # of a set in the public layout: its sizes
TASK_TOML = "task.toml"
SPLITS = ("train", "test")

_FIELDS = ("name", "rows", "cols", "symbols", "blank", "values", "groups", "symmetries")


class _Wrong(Exception):
    """What is wrong in a task.toml, beginning with the field."""


def set_folder(path: Path) -> Path | None:
    """The set that a folder is or, being the root of several, the first of these; None: it is no dataset."""
    try:
        folder = standing(path)
    except (OSError, ValueError):  # what no file can be called
        return None
    if (folder / DESCRIPTION).is_file():
        return folder
    inner = sorted(each.parent for each in folder.glob(f"*/{DESCRIPTION}"))
    usual = (folder / split for split in SPLITS if folder / split in inner)
    return next(usual, inner[0] if inner else None)


def read_definition(path: Path) -> TaskDefinition:
    """The task of a dataset's folder, or of one of its splits. InputError says what is wrong, and where."""
    folder = set_folder(path)
    if folder is None:
        raise InputError(f"{path} is no puzzle set: it has no {DESCRIPTION} beside all__inputs.npy")
    seq_len, vocab_size = read_sizes(folder)
    name = re.sub(r"[^\w.+-]+", "-", readable_name(_root(folder).resolve().name)).strip(".+-")[: limits.NAME]
    file = toml_of(folder)
    content = {} if file is None else _read_toml(file)
    try:
        return _TaskFile(content, name or "puzzles", seq_len, vocab_size).definition()
    except (_Wrong, ValidationError) as error:
        why = problem(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{file or folder / DESCRIPTION}: {why}") from None


def toml_of(folder: Path) -> Path | None:
    """The `task.toml` in a set, or in the folder above its splits."""
    return next((place / TASK_TOML for place in (folder, _root(folder)) if (place / TASK_TOML).is_file()), None)


def read_sizes(folder: Path) -> tuple[int, int]:
    """(S, V) of a set."""
    file = folder / DESCRIPTION
    try:
        described = json.loads(read_text(file))
        sizes = described["seq_len"], described["vocab_size"]
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {type(error).__name__} {error}") from None
    for field, size, most in zip(
        ("seq_len", "vocab_size"), sizes, (limits.SEQUENCE, limits.VOCABULARY), strict=True
    ):
        low = 1 if field == "seq_len" else 2  # padding and one more
        if type(size) is not int or not low <= size <= most:
            raise InputError(f"{file}: {field} is {repr(size)[:60]}, not a number from {low} to {most}")
    return sizes


def _root(folder: Path) -> Path:
    """What a set is a split of, where it is one; else itself."""
    above = folder.resolve().parent
    is_split = (
        folder.resolve().name in SPLITS or (above / TASK_TOML).is_file() or (above / "identifiers.json").is_file()
    )
    return above if is_split else folder


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        if (size := file.stat().st_size) > limits.TASK_BYTES:
            raise InputError(f"{file}: has {size} bytes, and a task at most {limits.TASK_BYTES}")
        return tomllib.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as TOML ({error})") from None


class _TaskFile:
    """A `task.toml` of a set with S cells and V tokens: what people write, read into what a task is."""

    def __init__(self, content: dict[str, Any], name: str, seq_len: int, vocab_size: int) -> None:
        if unknown := sorted(set(content) - set(_FIELDS)):
            raise _Wrong(f"unknown field {unknown[0][:60]!r}; there are {', '.join(_FIELDS)}")
        self.content, self.name, self.seq_len, self.vocab_size = content, name, seq_len, vocab_size
        self.rows, self.cols = self._sides()
        self.symbols = self._symbols()
        self.tokens = {symbol: token for token, symbol in enumerate(self.symbols, 1)}

    def definition(self) -> TaskDefinition:
        blank = self._token(self.content["blank"], "blank") if "blank" in self.content else None
        groups = tuple(self._each("groups", self._groups))
        others = tuple(token for token in range(1, self.vocab_size) if token != blank)
        values = self._tokens("values") if "values" in self.content else others
        if groups and blank is None:
            raise _Wrong("field 'blank' is missing: with groups, name the symbol of a cell that is to be filled")
        self.values = values
        return TaskDefinition(
            name=self._text("name", self.name),
            rows=self.rows,
            cols=self.cols,
            symbols=self.symbols,
            blank=blank,
            values=values if groups else (),
            groups=groups,
            symmetries=tuple(self._each("symmetries", self._symmetries)),
        )

    # -- sizes and symbols -----------------------------------------------------------------------------

    def _sides(self) -> tuple[int, int]:
        """(rows, columns): one row of everything where nothing is said."""
        given = {side: self._count(side) for side in ("rows", "cols") if side in self.content}
        rows = given.get("rows") or (self.seq_len // given["cols"] if "cols" in given else 1)
        cols = given.get("cols") or self.seq_len // rows
        if rows * cols != self.seq_len:
            told = " and ".join(f"{side} {count}" for side, count in given.items())
            raise _Wrong(f"{told}: the set has {self.seq_len} cells (seq_len in {DESCRIPTION})")
        return rows, cols

    def _count(self, field: str) -> int:
        value = self.content[field]
        if type(value) is not int or not 1 <= value <= self.seq_len:
            raise _Wrong(f"{field} must be a whole number from 1 to {self.seq_len}, not {_short(value)}")
        return value

    def _symbols(self) -> tuple[str, ...]:
        if "symbols" not in self.content:
            return default_symbols(self.vocab_size)
        symbols = _listed(self.content["symbols"], "symbols")
        if len(symbols) != self.vocab_size - 1:
            tokens = f"the tokens from 1 to {self.vocab_size - 1} need one each"
            why = f"vocab_size is {self.vocab_size} in {DESCRIPTION}; token 0 is padding"
            raise _Wrong(f"symbols has {len(symbols)}, and {tokens} ({why})")
        return tuple(symbols)

    def _text(self, field: str, default: str) -> str:
        value = self.content.get(field, default)
        if not isinstance(value, str):
            raise _Wrong(f"{field} must be text, not {_short(value)}")
        return value

    def _tokens(self, field: str) -> tuple[int, ...]:
        return tuple(self._token(symbol, field) for symbol in _listed(self.content[field], field))

    def _token(self, symbol: Any, field: str) -> int:
        if not isinstance(symbol, str) or symbol not in self.tokens:
            raise _Wrong(f"{field} names {_short(symbol)}, which is none of the {len(self.symbols)} symbols")
        return self.tokens[symbol]

    # -- groups and symmetries -------------------------------------------------------------------------

    def _each(self, field: str, read: Callable[[Any, str], list[Any]]) -> list[Any]:
        """What the entries of a list stand for, one after the other."""
        entries = self.content.get(field, [])
        if not isinstance(entries, list):
            raise _Wrong(f"{field} must be a list, not {_short(entries)}")
        return [one for number, entry in enumerate(entries) for one in read(entry, f"{field}[{number}]")]

    def _groups(self, entry: Any, place: str) -> list[tuple[int, ...]]:
        """One group given cell by cell, or all of a kind."""
        if not isinstance(entry, str):
            return [self._cells(entry, place)]
        grid = np.arange(self.seq_len).reshape(self.rows, self.cols)
        if entry == "rows":
            return [tuple(row) for row in grid.tolist()]
        if entry == "columns":
            return [tuple(column) for column in grid.T.tolist()]
        box = re.fullmatch(r"boxes (\d{1,4})x(\d{1,4})", entry)
        if box is None:
            raise _Wrong(f"{place} is {_short(entry)}; a group is a list of cells, and all of a kind are "
                         "'rows', 'columns' or 'boxes 2x3'")  # fmt: skip
        high, wide = int(box[1]), int(box[2])
        if not (high and wide) or self.rows % high or self.cols % wide:
            raise _Wrong(f"{place} is {entry!r}, which do not fill {self.rows} rows of {self.cols}")
        boxes = grid.reshape(self.rows // high, high, self.cols // wide, wide).swapaxes(1, 2)
        return [tuple(box) for box in boxes.reshape(-1, high * wide).tolist()]

    def _symmetries(self, entry: Any, place: str) -> list[SymmetryDefinition]:
        """One that is given, or those that generate all of a kind."""
        if isinstance(entry, str):
            return self._named_symmetries(entry, place)
        if not isinstance(entry, dict) or not entry or set(entry) - {"cells", "symbols"}:
            raise _Wrong(f"{place} must be a name, or a table with cells, symbols or both, not {_short(entry)}")
        cells = self._cells(entry["cells"], f"{place}.cells") if "cells" in entry else ()
        return [SymmetryDefinition(cells, self._renamed(entry.get("symbols", {}), f"{place}.symbols"))]

    def _cells(self, cells: Any, place: str) -> tuple[int, ...]:
        if not isinstance(cells, list) or not all(type(cell) is int for cell in cells):
            raise _Wrong(f"{place} must be a list of cells, counted from 0, not {_short(cells)}")
        return tuple(cells)

    def _renamed(self, renamed: Any, place: str) -> tuple[int, ...]:
        """New token of each: those that are not named stay."""
        if not isinstance(renamed, dict):
            raise _Wrong(f"{place} must be a table, as in {{ '<' = '>', '>' = '<' }}, not {_short(renamed)}")
        tokens = list(range(self.vocab_size))
        for old, new in renamed.items():
            tokens[self._token(old, place)] = self._token(new, place)
        return tuple(tokens) if renamed else ()

    def _named_symmetries(self, name: str, place: str) -> list[SymmetryDefinition]:
        grid = np.arange(self.seq_len).reshape(self.rows, self.cols)
        if name == "values":
            return [SymmetryDefinition((), tokens) for tokens in _all_orders(self.values, self.vocab_size)]
        if name == "rows":
            grids = [grid[list(order)] for order in _all_orders(range(self.rows), self.rows)]
        elif name == "columns":
            grids = [grid[:, list(order)] for order in _all_orders(range(self.cols), self.cols)]
        elif name == "mirror":
            grids = [grid[:, ::-1]]
        elif name == "turn":
            grids = [np.rot90(grid)] if self.rows == self.cols else [grid[::-1, ::-1]]
        else:
            raise _Wrong(f"{place} is {_short(name)}; there are 'rows' and 'columns' (in any order), 'mirror', "
                         "'turn', 'values' (renamed in any way), and tables with cells and symbols")  # fmt: skip
        return [SymmetryDefinition(tuple(each.reshape(-1).tolist()), ()) for each in grids]


def _all_orders(places: Any, total: int) -> list[tuple[int, ...]]:
    """Two orders of ``total`` things that generate every order of those at ``places``: a swap and a turn."""
    places = list(places)
    found = []
    for new in ([places[1], places[0], *places[2:]], [*places[1:], places[0]]) if len(places) > 1 else []:
        order = list(range(total))
        for place, other in zip(places, new, strict=True):
            order[place] = other
        found.append(tuple(order))
    return found


def _listed(value: Any, field: str) -> list[str]:
    """Symbols as a list, as text with spaces between them, or as text of one character each."""
    if isinstance(value, str):
        return value.split() if re.search(r"\s", value) else list(value)
    if not isinstance(value, list) or not all(isinstance(symbol, str) for symbol in value):
        raise _Wrong(f"{field} must be text or a list of texts, not {_short(value)}")
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"
