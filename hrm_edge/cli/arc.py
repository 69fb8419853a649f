"""`hrm-edge arc`: ARC-AGI test inputs answered under many views, and a vote over the answers."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ..text import best_effort, echo, echo_json
from .flags import Json, MaxThinkSteps, Threads


def command(
    artifact: Annotated[str, typer.Argument(help="Checkpoint folder, run folder or bundle.")],
    data: Annotated[Path, typer.Option(help="Folder that `hrm-edge data arc` made.")],
    augmentations: Annotated[
        int | None, typer.Option(min=0, help="Views of each task beside the original; all by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Submission file (JSON) in the ARC Prize's format.")
    ] = None,
    max_think_steps: MaxThinkSteps = None,
    halt: Annotated[str, typer.Option(help="learned or fixed.")] = "learned",
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Answer ARC's test inputs by a vote over augmented views. Each is given two attempts."""
    from ..arc.vote import count_votes, read_test, score, submission
    from ..data.public_layout import IDENTIFIERS
    from ..data.puzzles import judged
    from ..files import check_file, require_apart, write_atomically
    from ..measure.accuracy import answer_all, check_match, rightness
    from ..measure.artifact import open_artifact
    from ..progress import progress, say

    if output is not None:
        check_file(output)
        require_apart([output], [data / IDENTIFIERS])
    opened = open_artifact(artifact, threads)
    if opened.warning:
        say(f"warning: {opened.warning}")
    asked = read_test(data, opened.engine.task, augmentations)
    check_match(opened.engine, asked.puzzles)
    with progress() as report:
        answers = answer_all(
            opened.engine, asked.puzzles, max_think_steps=max_think_steps, halt=halt, progress=report
        )
    ballots = count_votes(asked, answers.tokens, answers.q[:, 0])
    if output is not None:
        write_atomically(output, json.dumps(submission(ballots)) + "\n", result=True)
    known = judged(asked.puzzles)
    content = {
        "artifact": artifact,
        "data": str(data),
        "tasks": len(ballots),
        "test_inputs": sum(map(len, ballots.values())),
        "answers": len(answers.tokens),
        "pass@1": score(ballots, 1),
        "pass@2": score(ballots, 2),
        "single": float(rightness(asked.puzzles, answers.tokens)[known].mean()) if known.any() else None,
        "unlabelled": int((~known).sum()),
    }
    with best_effort() if output is not None else nullcontext():
        if json_:
            echo_json(content)
        else:
            _print(opened.label, content, output)


def _print(label: str, content: dict[str, Any], output: Path | None) -> None:
    echo(f"{label}: {content['tasks']} tasks, {content['test_inputs']} test inputs, {content['answers']} answers")
    for name, what in (("pass@1", "most popular"), ("pass@2", "two most popular"), ("single", "without a vote")):
        value = content[name]
        echo(f"  {name:<7} {what:<18}" + ("not known" if value is None else f"{value:8.2%}"))
    if content["unlabelled"]:
        echo(f"  {content['unlabelled']} of the answers have no known output: left out of these rates")
    if output is not None:
        echo(f"  submission: {output}")
