"""How far a backend strays from PyTorch, segment by segment; run as a script it prints a table of the family.

python tests/helpers/parity.py [FOLDER...]

Each FOLDER: a public checkpoint with the public code's outputs, expected.npz, which PyTorch's row compares with.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from run_onnx import run
from small_networks import TASK

from hrm_edge.models import HRM

BACKENDS = ("onnx", "openvino")
SEGMENTS = 6
OUTPUTS = ("z_H_next", "z_L_next", "logits", "q")


def identifiers(model: HRM, rows: int) -> np.ndarray | None:
    count = model.config.num_puzzle_identifiers
    return np.arange(rows, dtype=np.int32) % count if count > 1 else None


@torch.inference_mode()
def errors(
    model: HRM,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    backend: str,
    tokens: np.ndarray,
    forced: bool = False,
) -> Iterator[float]:
    """Largest absolute difference of any output, after each of six segments from ``tokens`` int32 ``[B, S]``.

    ``forced``: every segment goes on from PyTorch's own state, so that each error stands for itself; else the
    backend goes on from what it computed, and errors add up as they do in use.
    """
    ids = identifiers(model, len(tokens))
    given = {"tokens": tokens} | ({} if ids is None else {"puzzle_identifiers": ids})
    values = run(backend, start, given)
    e = model.embed(torch.from_numpy(tokens), None if ids is None else torch.from_numpy(ids))
    z_H, z_L = model.initial_state(len(tokens))
    for _ in range(SEGMENTS):
        if forced:
            values |= {"z_H": z_H.numpy(), "z_L": z_L.numpy()}
        wanted = model.segment(z_H, z_L, e)
        made = run(backend, segment, values)
        yield max(float(np.abs(made[k] - w.numpy()).max()) for k, w in zip(OUTPUTS, wanted, strict=True))
        values |= {"z_H": made["z_H_next"], "z_L": made["z_L_next"]}
        z_H, z_L = wanted[:2]


@torch.inference_mode()
def errors_of_torch(model: HRM, expected: Mapping[str, np.ndarray]) -> Iterator[float]:
    """Largest absolute difference of PyTorch's logits and q from those of another implementation, by segment."""
    tokens, ids = (torch.from_numpy(expected[k]).long() for k in ("inputs", "puzzle_identifiers"))
    e = model.embed(tokens, ids)
    z_H, z_L = model.initial_state(len(tokens))
    for wanted in zip(expected["logits"], expected["q"], strict=True):
        z_H, z_L, *made = model.segment(z_H, z_L, e)
        yield max(float(np.abs(ours.numpy() - theirs).max()) for ours, theirs in zip(made, wanted, strict=True))


def main() -> None:
    from traced_networks import CONFIGS, traced

    from hrm_edge.exporters.graph.trace import trace_segment, trace_start
    from hrm_edge.models.public import import_public

    def row(name: str, backend: str, cells: Iterator[float]) -> None:
        print(f"| {name} | {backend} | {' | '.join(f'{cell:.1e}' for cell in cells)} |", flush=True)

    print(f"| network | backend | {' | '.join(str(k + 1) for k in range(SEGMENTS))} |")
    print("|---" * (SEGMENTS + 2) + "|")
    tokens = TASK.generate(5, np.random.default_rng(5))[0]
    for name in CONFIGS:
        for backend in BACKENDS:
            row(name, backend, errors(*traced(name), backend, tokens))
    for folder in sorted(Path(argument) for argument in sys.argv[1:]):
        model, task = import_public(folder)
        graphs = trace_start(model), trace_segment(model)
        expected = np.load(folder / "expected.npz")
        row(f"{folder.name} ({task.name})", "torch, to the public code", errors_of_torch(model, expected))
        tokens = expected["inputs"].astype(np.int32)
        for backend in BACKENDS:
            row(f"{folder.name} ({task.name})", backend, errors(model, *graphs, backend, tokens))


if __name__ == "__main__":
    main()
