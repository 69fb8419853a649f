"""What pages are tried with: bundles that are exported once into `bundles/web`, and puzzles."""

from pathlib import Path

import numpy as np

import hrm_edge as he
from hrm_edge.bundle import open_bundle
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.tasks import get_task

BUNDLES = Path(__file__).parents[2] / "bundles" / "web"
SUDOKU = get_task("sudoku-9x9")
PUZZLE = ".2..7..4.8..36...1..65..2........92.48.....63.61........8..57..6...39..5.1..2..9."


def bundle_of(model, target, precision):
    folder = BUNDLES / f"{model}-{target}-{precision}"
    if not folder.is_dir():
        he.export(model, target=target, precision=precision, loop="host", output=folder)
    return open_bundle(folder)


def failed():
    """The engine, and a puzzle that it does not solve in one attempt."""
    engine = he.load_engine(bundle_of("sudoku-9x9", "onnx", "fp32"))
    puzzles = generate_puzzles(SUDOKU, 60, seed=5)
    right = SUDOKU.verify(puzzles.questions, engine.solve(puzzles.questions).tokens)
    return engine, puzzles.questions[np.flatnonzero(~right)[0]]
