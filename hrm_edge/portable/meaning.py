"""What the inputs and outputs of a bundle's graphs mean, in a line each, for READMEs and the graphs' metadata."""

from __future__ import annotations

from collections.abc import Sequence

from ..halting import halting_head, numbered
from ..runtimes.loops import NEXT
from ..tasks import Task

_STATES = {"z_H": "slow state", "z_L": "fast state"}

# Graph → what a call of it does.
GRAPHS = {
    "model": "thinks until every puzzle has halted",
    "start": "begins a puzzle",
    "segment": "thinks one segment",
    "stateful": "begins or goes on with a puzzle and thinks one segment; its state stays on the device",
}


def meanings(
    task: Task, *, halt_max_steps: int, no_ACT_continue: bool, num_puzzle_identifiers: int, state: Sequence[str]
) -> dict[str, str]:
    """Name of an input or output → what it is; ``state``: the names of the network's state tensors."""
    board = f"{task.rows} × {task.cols} cells row by row"
    rules = [rule for rule in numbered() if task.groups is not None or not rule.judged]
    modes = ", ".join(f"{rule.number}: {rule.when}" for rule in rules)
    found = {
        "tokens": f"the puzzles, {board}, as numbers into the vocabulary",
        "puzzle_identifiers": f"the kind of each puzzle, 0 to {num_puzzle_identifiers - 1}",
        "max_think_steps": f"segments at most; trained with up to {halt_max_steps}",
        "halt": f"when a puzzle stops; {modes}",
        "fresh": "1 where a row begins a new puzzle, 0 where it thinks on",
        "e": "input embedding, the same in every segment",
        "logits": "scores of every token, the largest being the guess",
        "q": "halting head, halt and continue; a puzzle is done when "
        + halting_head(no_ACT_continue).text("q[0]", "q[1]"),
        "answer": f"the answers, {board}, as numbers into the vocabulary",
        "steps": "segments that each puzzle took",
    }
    for name in state:
        found[name] = _STATES.get(name, f"state {name}")
        found[name + NEXT] = f"{found[name]} after the segment, for the next one's {name}"
    return found
