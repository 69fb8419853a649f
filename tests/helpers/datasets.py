"""Folders in the public layout, as people who train forks have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

LATIN = """
rows = 4
symbols = ".1234"
blank = "."
groups = ["rows", "columns"]
symmetries = ["values", "rows", "turn"]
"""


def write_set(
    folder: Path, questions: np.ndarray, answers: np.ndarray, vocab_size: int, identifiers: int = 1
) -> Path:
    """Every row a puzzle and a group of its own; with several ``identifiers`` they take turns from 1 on."""
    folder.mkdir(parents=True)
    n = len(questions)
    own = np.zeros(n, np.int32) if identifiers == 1 else (1 + np.arange(n) % (identifiers - 1)).astype(np.int32)
    parts = {"inputs": questions, "labels": answers, "puzzle_identifiers": own}
    parts |= {f"{part}_indices": np.arange(n + 1, dtype=np.int32) for part in ("puzzle", "group")}
    for part, array in parts.items():
        np.save(folder / f"all__{part}.npy", array.astype(np.uint8) if part in ("inputs", "labels") else array)
    described = {"seq_len": questions.shape[1], "vocab_size": vocab_size, "num_puzzle_identifiers": identifiers}
    (folder / "dataset.json").write_text(json.dumps({**described, "pad_id": 0, "sets": ["all"]}))
    return folder


def write_lookup(root: Path, n: int = 300, length: int = 6, vocab_size: int = 70) -> Path:
    """A sequence that is no grid: each symbol is looked up in a table. ``root/train`` and ``root/test``."""
    rng = np.random.default_rng(0)
    table = np.concatenate([[0], 1 + rng.permutation(vocab_size - 1)])
    for split, count in (("train", n), ("test", n)):
        questions = rng.integers(1, vocab_size, (count, length))
        write_set(root / split, questions, table[questions], vocab_size)
    return root


def write_latin(root: Path, n: int = 40) -> Path:
    """Latin squares of 4x4 with a `task.toml` above the splits."""
    rng = np.random.default_rng(0)
    side = np.arange(4)
    for split in ("train", "test"):
        orders = rng.permuted(np.tile(side, (3, n, 1)), axis=2)
        square = (side[:, None] + side) % 4
        answers = np.stack([order[2][square[order[0]][:, order[1]]] for order in orders.swapaxes(0, 1)]) + 2
        answers = answers.reshape(n, 16)
        write_set(root / split, np.where(rng.random(answers.shape) < 0.4, 1, answers), answers, 6)
    (root / "task.toml").write_text(LATIN)
    return root
