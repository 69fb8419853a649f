"""`hrm-edge models`: what ships, and how well it answers."""

from __future__ import annotations

from typing import Annotated

import typer

from ..text import echo, echo_json
from .flags import Json


def command(
    name: Annotated[str | None, typer.Argument(help="Show this model's card.")] = None,
    json_: Json = False,
) -> None:
    """List the trained models that ship, or show one's card."""
    from rich.markdown import Markdown

    from ..zoo import list_zoo, read_card, zoo_elsewhere
    from .tables import plain_table, print_table

    if name is not None:
        card = read_card(name)
        echo_json({"name": name, "card": card}) if json_ else print_table(Markdown(card))
        return
    rows = list_zoo()
    if json_:
        echo_json({"models": [row.to_dict() for row in rows]})
        return
    table = plain_table("model", "task", "parameters", "weights", "held-out, 16 segments, no halting")
    table.columns[0].no_wrap = True  # a name is there to be typed
    for row in rows:
        exact = "not measured" if row.exact is None else f"{row.exact:.1%} of {row.n:,}"
        table.add_row(row.name, row.task, f"{row.parameters:,}", f"{row.size_mb:.2f} MB", exact)
    print_table(table)
    echo("Learned halting, the default, ends most puzzles sooner: each card tells what it solves then.")
    echo("`hrm-edge models NAME` shows a model's card; `hrm-edge export NAME` makes a bundle of it.")
    if where := zoo_elsewhere():
        echo(f"Not all models are here{where}.")
