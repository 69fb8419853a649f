"""Tables of results on stdout, never squeezed: what is piped into a file has all its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.markdown import Markdown
from rich.table import Table

from ..console import Console

_WIDTH_OF_A_FILE, _WIDEST = 140, 10_000  # characters


def plain_table(*columns: str) -> Table:
    """A table with nothing but a line under its head."""
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)


def print_rows(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, no_wrap: bool = True) -> None:
    """A table whose first `left` columns hold names, and the others figures, which are not broken by default."""
    table = plain_table(*head[:left])
    for column in head[left:]:
        table.add_column(column, justify="right", no_wrap=no_wrap)
    for cells in rows:
        table.add_row(*cells)
    print_table(table, whole=no_wrap)


def print_table(table: Table | Markdown, whole: bool = False) -> None:
    """As wide as the terminal; where there is none as wide as a page, or if ``whole`` as its longest row needs."""
    console = Console()
    if not console.is_terminal:
        needed = console.measure(table, options=console.options.update(width=_WIDEST)).maximum if whole else 0
        console = Console(width=max(_WIDTH_OF_A_FILE, needed))
    console.print(table)
