"""`hrm-edge selftest`: whether a bundle answers here as it did where it was gated; exit 1 when it does not."""

from __future__ import annotations

from typing import Annotated

import typer

from .flags import Json, Threads


def command(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A bundle folder that was exported with its gate.")
    ],
    allow: Annotated[
        int | None, typer.Option(min=0, help="How many of its answers may differ here; 1 by default.")
    ] = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Ask a bundle its own examples, and compare the answers.

    Its gate's answers prove one CPU's arithmetic: another kind may round otherwise, an INT8 bundle's products
    above all. Exit 1 when more answers differ than --allow, or more than half take another number of segments.
    Needs neither PyTorch nor any puzzles.
    """
    from ..measure.selftest import self_test
    from ..text import best_effort, echo, echo_json

    found = self_test(bundle, threads, allow)
    with best_effort():
        if json_:
            echo_json(found.to_dict())
        else:
            echo(f"{bundle}: {found.summary}")
            echo(f"  proven with {found.proven or 'unknown arithmetic'}")
            echo(f"  ran with    {found.arithmetic}")
    found.raise_if_failed()
