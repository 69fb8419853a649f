"""A spec of all that `hrm-edge check` judges of the toy, variants of its bundle, and the command itself."""

from pathlib import Path

import commands
import numpy as np
from toys import TASK, accuracy, manifest, write_bundle

from hrm_edge.bundle.quantization import QUANTIZATION, Quantization
from hrm_edge.data.leaks import distinct_puzzles
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles

SPEC = """\
baseline = "baseline.json"

[[check]]
name = "toy"
bundle = "toy"
data = "puzzles.csv"
checkpoint = "float"
min_exact = 0.9
max_drop = 5
max_drop_vs_baseline = 5
min_agreement = 0.9
max_size_mb = 1
"""


def different(seed: int) -> PuzzleSet:
    """200 puzzles, none of them another one turned or renamed."""
    return distinct_puzzles(generate_puzzles(TASK, 300, seed)).select(np.arange(200))


def write_variant(path: Path, source, threshold: float = 15.5, record: Quantization | None = None) -> None:
    """The toy with a record of quantization, or halting as soon as `threshold` of its 16 cells are filled."""
    import toy_graphs
    from onnx import numpy_helper

    def produce(scratch: Path) -> None:
        for name, model in toy_graphs.models("host", "dynamic").items():
            for constant in model.graph.initializer:
                if constant.name == "threshold":
                    constant.CopyFrom(numpy_helper.from_array(np.float32(threshold), "threshold"))
            toy_graphs.save(model, scratch / name, "onnx")
        if record is not None:
            (scratch / QUANTIZATION).write_text(record.to_json())

    precision = "fp32" if record is None else record.precision
    write_bundle(path, manifest(source=source, precision=precision), produce, accuracy())


def degrade(folder: Path) -> None:
    (folder / "toy").unlink()
    (folder / "toy").symlink_to((folder / "degraded").resolve())


def run(capsys, *arguments):
    return commands.run(capsys, "check", *arguments)


def refusal(capsys, *arguments) -> str:
    """The one line of an input error."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), (out, err)
    assert len(err.strip().splitlines()) == 1
    return err.strip()
