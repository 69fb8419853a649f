"""How a task's boards look: one record a task, from which the terminal and the report draw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

WALL, WAY = "wall", "way"  # fills in the colours of the page: a whole cell, and a smaller square in it


@dataclass(frozen=True)
class Drawing:
    """What tells the cells of a board apart: their symbols or, where there are ``fills``, their colours.

    Symbols stand in boxes of ``box`` (rows, columns; None: the whole board) with rulers between them, each with
    room for a mark. ``fills`` gives symbols a colour "#rrggbb", :data:`WALL` or :data:`WAY`; a blank cell stays
    empty, and any other symbol stands in its cell. ``names`` says what symbols are, for the legend of a report;
    ``example`` is the symbol on which a legend shows marks.
    """

    box: tuple[int, int] | None = None
    fills: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    example: str = "5"

    def colour(self, symbol: str) -> str | None:
        """The symbol's "#rrggbb", where it has a colour of its own."""
        fill = self.fills.get(symbol, "")
        return fill if fill.startswith("#") else None

    @property
    def is_coloured(self) -> bool:
        """Whether cells have colours of their own, on which marks in the colours of the page may not show."""
        return any(self.colour(symbol) for symbol in self.fills)
