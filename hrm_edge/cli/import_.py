"""`hrm-edge import`: a public HRM or TRM checkpoint becomes a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    weights: Annotated[Path, typer.Argument(help="The public trainer's step_N file, or the folder that holds it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint folder to write.")],
    config: Annotated[
        Path | None, typer.Option(help="all_config.yaml; left out: the one beside the weights.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Left out: told from the config's data_path.")] = None,
) -> None:
    """Convert a public HRM or TRM checkpoint, without running any code it may contain."""
    from ..files import check_place, check_replaceable
    from ..models import save_checkpoint
    from ..models.checkpoint import require_replaceable
    from ..models.public import find_weights, import_public
    from ..progress import say
    from ..text import best_effort, code, echo

    check_replaceable(output, require_replaceable)
    check_place(output)
    weights = find_weights(weights)
    model, found = import_public(weights, config, task)
    say(f"read {weights}")
    title, parameters = model.config.title, sum(p.numel() for p in model.parameters())
    card = (
        f"# {title} for {found.name}\n\n{parameters:,} parameters, imported from the public checkpoint "
        f"{code(weights.name)}. Its accuracy was not measured here: see `hrm-edge eval`.\n"
    )
    saved = save_checkpoint(output, model, found, card, {"imported_from": weights.name})
    with best_effort():
        echo(str(saved))
    say(f"next: hrm-edge eval {output} --data FILE   or   hrm-edge export {output} --data FILE")
