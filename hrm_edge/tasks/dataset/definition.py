"""All that a task without code is: sizes, symbols, groups and symmetries, as a record that travels with models."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import asdict
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ... import limits
from ...records import STRICT, FromOne, must_be
from ...text import printable
from ..base import PAD, PADDING

PAD_SYMBOL = "<pad>"  # token 0's, which no text holds
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NAME = re.compile(r"\w[\w.+-]*")


def _is_name(name: str) -> bool:
    return len(name) <= limits.NAME and _NAME.fullmatch(name) is not None


def _is_symbol(symbol: str) -> bool:
    """Whether text can hold it, and people see it: no space, nothing that hides or commands."""
    seen = 0 < len(symbol) <= limits.SYMBOL and printable(symbol) == symbol and not re.search(r"\s", symbol)
    return seen and symbol not in (PADDING, PAD_SYMBOL)


Name = Annotated[str, must_be(f"a name of at most {limits.NAME} letters, digits and . + - _", _is_name)]
Symbol = Annotated[
    str, must_be(f"1 to {limits.SYMBOL} visible characters without a space, and not {PADDING!r}", _is_symbol)
]
Numbers = Annotated[tuple[int, ...], Field(max_length=limits.SEQUENCE)]


@dataclass(frozen=True, config=STRICT)
class SymmetryDefinition:
    """What leaves a puzzle the same puzzle: new cell → old cell, old token → new token; () changes none."""

    cells: Numbers
    tokens: Numbers


@dataclass(frozen=True, config=STRICT)
class TaskDefinition:
    """A task as plain data, in tokens and in cells counted from 0.

    A sequence that is no grid has one row. ``symbols`` are those of the tokens from 1 up. ``groups``: sets of
    cells, each of which holds all of ``values`` once; with them come ``values`` and ``blank``, the token of a cell
    that is to be filled. ``symmetries`` generate all that there are.
    """

    name: Name
    rows: FromOne
    cols: FromOne
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=limits.VOCABULARY - 1)]
    blank: int | None
    values: Numbers
    groups: Annotated[tuple[Numbers, ...], Field(max_length=limits.GROUPS)]
    symmetries: Annotated[tuple[SymmetryDefinition, ...], Field(max_length=limits.SYMMETRIES)]

    @property
    def seq_len(self) -> int:
        return self.rows * self.cols

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.symbols)

    @functools.cached_property
    def sha256(self) -> str:
        """Of all that it says."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _check_whole(self) -> TaskDefinition:
        """What no single field can tell."""
        if self.seq_len > limits.SEQUENCE:
            raise ValueError(f"{self.rows} rows of {self.cols} are more than {limits.SEQUENCE} cells")
        if twice := _twice(self.symbols):
            raise ValueError(f"symbols has {twice!r} twice")
        if self.blank is not None and not 1 <= self.blank < self.vocab_size:
            raise ValueError(f"blank is {self.blank}, and the tokens go from 1 to {self.vocab_size - 1}")
        if self.groups or self.values:
            self._check_groups()
        numbers = self.seq_len + self.vocab_size + len(self.groups) * len(self.values)
        if len(self.symmetries) * numbers > limits.SYMMETRY_NUMBERS:
            most = limits.SYMMETRY_NUMBERS // numbers
            raise ValueError(f"symmetries has {len(self.symmetries)}, and at most {most} are read of such a board")
        for number, symmetry in enumerate(self.symmetries):
            if why := self._why_none(symmetry):
                raise ValueError(f"symmetries[{number}] {why}")
        return self

    def _check_groups(self) -> None:
        size = len(self.values)
        if not (self.groups and size and self.blank is not None):
            raise ValueError("groups, values and blank go together: which cells hold what once, and what an empty "
                             "cell has")  # fmt: skip
        if len(self.groups) * size * size > limits.GROUP_CELLS:
            raise ValueError(f"groups are too large: {len(self.groups)} of {size} cells")
        if not all(1 <= value < self.vocab_size and value != self.blank for value in self.values):
            raise ValueError("values must be tokens of the vocabulary, and not the blank's")
        if (twice := _twice(self.values)) is not None:
            raise ValueError(f"values has {twice} twice")
        for number, cells in enumerate(self.groups):
            if len(cells) != size:
                raise ValueError(f"groups[{number}] has {len(cells)} cells for {size} values")
            if not all(0 <= cell < self.seq_len for cell in cells):
                raise ValueError(f"groups[{number}] names a cell outside 0 to {self.seq_len - 1}")
            if (twice := _twice(cells)) is not None:
                raise ValueError(f"groups[{number}] has cell {twice} twice")

    @functools.cached_property
    def _group_sets(self) -> frozenset[frozenset[int]]:
        return frozenset(map(frozenset, self.groups))

    def _why_none(self, symmetry: SymmetryDefinition) -> str | None:
        """Why a symmetry is none, as far as the groups tell."""
        cells, tokens = symmetry.cells, symmetry.tokens
        if cells and (len(cells) != self.seq_len or set(cells) != set(range(self.seq_len))):
            return f"must name every cell from 0 to {self.seq_len - 1} once"
        if tokens and (len(tokens) != self.vocab_size or set(tokens) != set(range(self.vocab_size))):
            return f"must name every token from 0 to {self.vocab_size - 1} once"
        if tokens and (tokens[PAD] != PAD or (self.blank is not None and tokens[self.blank] != self.blank)):
            return "renames the padding or the blank"
        if tokens and {tokens[value] for value in self.values} != set(self.values):
            return "makes something else of a value"
        if cells and any(frozenset(cells[cell] for cell in group) not in self._group_sets for group in self.groups):
            return "takes a group to cells that are none"
        return None


def default_symbols(vocab_size: int) -> tuple[str, ...]:
    """Those of the tokens from 1 up: characters as far as they go (token 1 is 0), or else the token's number."""
    tokens = range(1, vocab_size)
    return tuple(CHARACTERS[: len(tokens)]) if len(tokens) <= len(CHARACTERS) else tuple(map(str, tokens))


def _twice(entries: tuple) -> str | int | None:
    """The first that stands there before."""
    if len(set(entries)) == len(entries):
        return None
    seen: set = set()
    return next(entry for entry in entries if entry in seen or seen.add(entry))  # type: ignore[func-returns-value]
