"""A report whose every count is known by hand: 20 puzzles, 14 right in float; 3 lost, 1 won, 1 wrong otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import toys
from scripted import puzzle_set, spoiled

from hrm_edge.bundle.quantization import Calibration, Layer, Products, Quantization, Site, Trial
from hrm_edge.measure.drift import Difference, SegmentDrift, StateDrift
from hrm_edge.measure.gate import compare
from hrm_edge.report import build_report
from hrm_edge.report.format import Report
from hrm_edge.runtimes import Answers

PUZZLES = puzzle_set(20)


def answers(wrong: list[int], steps: list[int]) -> Answers:
    assert PUZZLES.answers is not None
    tokens = PUZZLES.answers.copy()
    for row in wrong:
        tokens[row] = spoiled(tokens[row])
    return Answers(tokens, np.array(steps, np.int32), np.ones(20, bool), np.zeros((20, 2), np.float32))


def parts(**changes: Any) -> dict[str, Any]:
    """What `build_report` takes."""
    reference = answers([14, 15, 16, 17, 18, 19], [1] * 10 + [4] * 10)
    candidate = answers([0, 1, 2, 15, 16, 17, 18, 19], [1] * 8 + [2] * 2 + [4] * 9 + [2])
    candidate.tokens[15, 5] = 0  # the padding token, which no answer may hold
    gate = compare(reference, candidate, PUZZLES, max_drop=12, max_think_steps=8, engine="onnx host loop")
    whole = {
        "manifest": toys.manifest(name="toy-int8", precision="int8"),
        "gate": gate.to_dict(),
        "quantization": record(),
        "puzzles": PUZZLES,
        "reference": reference,
        "candidate": candidate,
        "drift": [segment(k) for k in (1, 2, 3)],
        "speed": [
            row("toy", "torch", "fp32", 9.0, 1.0),
            row("x", "onnx", "int8", 3.0, 3.0),
            row("y", "onnx", "fp32", 6.0, 1.5),
        ],
        "differences": [Difference(0, 2, 3, 0.125, 1, 1), Difference(1, None, 0, None, 1, 2)],
        "bundle_bytes": 123_456,
    }
    return {**whole, **changes}


def report(**changes: Any) -> Report:
    return build_report(**parts(**changes))


def segment(k: int) -> SegmentDrift:
    states = (StateDrift("z_H", 0.99, 0.95, 0.1 * k), StateDrift("z_L", 0.98, 0.9, 0.2 * k))
    return SegmentDrift(k, 20, states, 0.3, 0.01 * k, 0.1 * k, 0.95, 0.2 * k, 0.15 * k)


def trial(what: str, lost: int, won: int) -> Trial:
    return Trial(what, 200, 0.5, 0.8, lost, won, 3.5, 0.9, 0.55, 3.25)


def record(**changes: Any) -> Quantization:
    layers = [
        f"{level}_level.layers.0.{name}" for level in "HL" for name in ("self_attn.qkv_proj", "mlp.down_proj")
    ]
    whole: dict[str, Any] = {
        "precision": "int8",
        "checkpoint": "ab" * 32,
        "weights_bytes": 1_000_000,
        "float_weights_bytes": 3_500_000,
        "layers": tuple(
            Layer(name, "int8" if i else "float32", 2, 0.75 + i, 0.0123, None if i else "it costs <2> points")
            for i, name in enumerate(layers)
        ),
        "sites": tuple(Site(f"{name}/{call}", 2.5, 0.0175, 0.001 * call) for name in layers[1:] for call in (0, 1)),
        "calibration": Calibration("made up", 64, "stratified", "mse", 0.0, 512, ("ab", "cd")),
        "comparison": (trial("mse", 4, 2), trial("min-max", 9, 1)),
        "sensitivity": tuple(trial(name, 5 - i, i) for i, name in enumerate(layers)),
        "budget": (trial("all", 9, 1),),
        "products": Products(6, 6, {"int8 × int8": 6, "float32 × float32": 2}, ()),
        "notes": ("the halting head stays in float",),
    }
    return Quantization(**{**whole, **changes})


def row(engine: str, backend: str, precision: str, ms: float, ratio: float) -> dict[str, Any]:
    return {
        "engine": engine, "backend": backend, "precision": precision, "loop": "host", "batch": 1,
        "ms_per_segment": ms, "ms_per_segment_quartiles": (ms - 1, ms + 1), "ms_per_puzzle": 5 * ms,
        "ratio_vs_eager": ratio, "exact": 0.5, "peak_rss_mb": None, "size_mb": 0.25,
    }  # fmt: skip
