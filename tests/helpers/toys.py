"""A tiny 'network' that really solves easy 4×4 Sudokus, as numpy callables and as ONNX/OpenVINO bundles.

One segment fills every cell that has a single candidate left, so puzzles need different numbers of segments,
some are never finished, and all values are small whole numbers: every backend must give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hrm_edge.bundle import Gate, Manifest, TensorSpec, require_replaceable, seal_bundle
from hrm_edge.files import replacing_folder
from hrm_edge.runtimes import GraphLoop, HostLoop
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
S, N, V = TASK.seq_len, 4, TASK.vocab_size
HALT_MAX_STEPS = 8


def _peers() -> np.ndarray:
    peers = np.zeros((S, S), np.float32)
    assert TASK.groups is not None
    for group in TASK.groups:
        peers[np.ix_(group, group)] = 1
    np.fill_diagonal(peers, 0)
    return peers


PEERS = _peers()


def start(tokens: np.ndarray, identifiers: np.ndarray | None = None) -> list[np.ndarray]:
    e = np.eye(V, dtype=np.float32)[tokens][..., 2:]
    return [e, e, np.zeros_like(e)]


def segment(z_H: np.ndarray, z_L: np.ndarray, e: np.ndarray) -> list[np.ndarray]:
    known = z_H + _single(z_H)
    logits = np.concatenate([z_L[..., :2] * 0 - 1, known * 10 + _candidates(known)], axis=-1)
    filled = known.sum(axis=(1, 2))
    q = np.stack([filled, filled * 0 + (S - 0.5)], axis=1)
    return [known, z_L + 1, logits, q.astype(np.float32)]


def _candidates(known: np.ndarray) -> np.ndarray:
    return (1 - np.minimum(PEERS @ known, 1)) * (1 - known.sum(axis=-1, keepdims=True))


def _single(known: np.ndarray) -> np.ndarray:
    candidates = _candidates(known)
    return candidates * (candidates.sum(axis=-1, keepdims=True) == 1)


def host_engine(**options: Any) -> HostLoop:
    return HostLoop(TASK, HALT_MAX_STEPS, start, segment, backend="toy", **options)


def graph_engine(**options: Any) -> GraphLoop:
    return GraphLoop(TASK, HALT_MAX_STEPS, looped, backend="toy", **options)


def looped(tokens: np.ndarray, limit: np.ndarray, halt: np.ndarray, *identifiers: np.ndarray) -> list[np.ndarray]:
    """The numpy twin of a graph-loop artifact: the whole batch until all have halted, halted rows frozen."""
    e, z_H, z_L = start(tokens)
    answer, steps = np.zeros_like(tokens), np.zeros(len(tokens), np.int32)
    halted, q = np.zeros(len(tokens), bool), np.zeros((len(tokens), 2), np.float32)
    for _ in range(int(limit)):
        z_H, z_L, logits, new_q = segment(z_H, z_L, e)
        answer = np.where(halted[:, None], answer, logits.argmax(-1)).astype(np.int32)
        q = np.where(halted[:, None], q, new_q)
        steps = np.where(halted, steps, steps + 1).astype(np.int32)
        rule = [q[:, 0] > q[:, 1], np.zeros(len(tokens), bool), TASK.verify(tokens, answer)][int(halt)]
        halted = halted | rule
        if halted.all():
            break
    return [answer, steps, q]


def unique_puzzles() -> np.ndarray:
    """int32[4, S]: four that have one solution."""
    return np.stack([row for row in puzzles(20) if TASK.count_solutions(row) == 1])[:4]


def puzzles(count: int, seed: int = 0) -> np.ndarray:
    """Solved boards with 4 to 12 cells emptied: some easy, some with several solutions."""
    rng = np.random.default_rng(seed)
    _, answers = TASK.generate(count, rng)
    questions = answers.copy()
    for row in questions:
        row[rng.choice(S, rng.integers(4, 13), replace=False)] = TASK.blank
    return questions


# -- bundles ---------------------------------------------------------------------------------------------


def manifest(target: str = "onnx", loop: str = "host", batch: int | str = "dynamic", **changes: Any) -> Manifest:
    board, state = ("batch", S), ("batch", S, N)
    suffix = {"onnx": "onnx", "openvino": "xml"}.get(target, target)
    q = TensorSpec("q", "float32", ("batch", 2))
    tokens = TensorSpec("tokens", "int32", board)
    z_H, z_L, e = (TensorSpec(name, "float32", state) for name in ("z_H", "z_L", "e"))
    if loop == "host":
        inputs: dict[str, tuple[TensorSpec, ...]] = {"start": (tokens,), "segment": (z_H, z_L, e)}
        nexts = tuple(TensorSpec(name, "float32", state) for name in ("z_H_next", "z_L_next"))
        logits = TensorSpec("logits", "float32", (*board, V))
        outputs: dict[str, tuple[TensorSpec, ...]] = {"start": (e, z_H, z_L), "segment": (*nexts, logits, q)}
    else:
        inputs = {"model": (tokens, TensorSpec("max_think_steps", "int32", ()), TensorSpec("halt", "int32", ()))}
        steps = TensorSpec("steps", "int32", ("batch",))
        outputs = {"model": (TensorSpec("answer", "int32", board), steps, q)}
    architecture = {
        "seq_len": S,
        "prefix_len": 0,
        "vocab_size": V,
        "hidden_size": N,
        "num_puzzle_identifiers": 1,
        "halt_max_steps": HALT_MAX_STEPS,
        "no_ACT_continue": False,
        "parameters": 1,
    }
    fields: dict[str, Any] = {
        "name": "toy",
        "task": TASK.name,
        "vocabulary": TASK.vocabulary,
        "architecture": architecture,
        "target": target,
        "precision": "fp32",
        "precision_parts": {"weights": "float32"},
        "loop": loop,
        "batch": batch,
        "graphs": {name: f"{name}.{suffix}" for name in inputs},
        "inputs": inputs,
        "outputs": outputs,
        "source": {"name": "toy", "content_hash": "0" * 64},
        "tools": {"numpy": np.__version__},
        "gate": Gate(ran=True, passed=True),
    }
    return Manifest(**{**fields, **changes})


def accuracy(**changes: Any) -> dict[str, Any]:
    """What a gate may have measured of a toy."""
    side = {"engine": "toy", "exact": 1.0, "token": 1.0, "steps_mean": 2.0, "halted": 1.0}
    counted = {"n": 8, "max_think_steps": HALT_MAX_STEPS, "lost": 0, "won": 0, "answers_differ": 0}
    budget = {"confidence": 0.95, "max_drop": 0.5, "max_halt_shift": 0.05, "drop_interval": [-1.0, 1.0]}
    moved = {"drop_points": 0.0, "lost_at_most": 1.0, "halt_shift": 0.0, "steps_agree": 1.0}
    words = {"reason": "passed", "notes": [], "puzzles": "toys", "puzzles_hash": "0" * 64, "halt": "learned"}
    return {"passed": True, "reference": side, "bundle": side, **counted, **budget, **moved, **words, **changes}


def write_bundle(
    path: Path, manifest: Manifest, produce: Callable[[Path], None], accuracy: dict[str, Any] | None = None
) -> Manifest:
    """Whole or not at all, as an export; ``produce(folder)`` writes the graph files."""
    with replacing_folder(path, lambda place: require_replaceable(place, gated=True)) as folder:
        produce(folder)
        return seal_bundle(folder, manifest, accuracy)


def write_toy_bundle(
    path: Path, target: str = "onnx", loop: str = "host", batch: int | str = "dynamic", **changes: Any
) -> Path:
    """A bundle that every runtime can open; ``changes`` replace fields of its manifest."""

    def produce(folder: Path) -> None:
        import toy_graphs

        for name, model in toy_graphs.models(loop, batch).items():
            toy_graphs.save(model, folder / name, target)

    measured = accuracy() if changes.get("gate", Gate(True, True)).ran else None
    write_bundle(path, manifest(target, loop, batch, **changes), produce, measured)
    return path


def write_hollow_bundle(path: Path, **changes: Any) -> Path:
    """A bundle whose graph files are a few bytes: enough for what only opens and checks it."""

    def produce(folder: Path) -> None:
        for name in wanted.graphs.values():
            (folder / name).write_bytes(name.encode() * 20)

    wanted = manifest(**changes)
    write_bundle(path, wanted, produce, accuracy() if wanted.gate.ran else None)
    return path
