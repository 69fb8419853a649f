"""Manifests of Core ML bundles, without their models, and how the Swift that is written for them is read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import toys

from hrm_edge.bundle import Manifest, TensorSpec
from hrm_edge.tasks import get_task

SHAPES = ("graph", "host", "stateful")
TASKS = ("sudoku-4x4", "sudoku-9x9", "sudoku-16x16", "maze-5x7")
FILES = (
    *("Package.swift", "README.md"),
    *("Sources/HRM/Facts.swift", "Sources/HRM/HRM.swift", "Sources/solve/main.swift"),
)


def manifest(
    shape: str, task: str = "sudoku-4x4", batch: int = 3, identifiers: int = 1, no_ACT_continue: bool = False
) -> Manifest:
    """What a Core ML export of that shape writes down."""
    puzzle = get_task(task)
    S, V = puzzle.seq_len, puzzle.vocab_size

    def tensor(name: str, kind: str, *shape: int) -> TensorSpec:
        return TensorSpec(name, kind, shape)

    board, q = tensor("tokens", "int32", batch, S), tensor("q", "float32", batch, 2)
    logits = tensor("logits", "float32", batch, S, V)
    e, z_H, z_L, z_H_next, z_L_next = (
        tensor(name, "float32", batch, S + 2, 8) for name in ("e", "z_H", "z_L", "z_H_next", "z_L_next")
    )
    which = (tensor("puzzle_identifiers", "int32", batch),) if identifiers > 1 else ()
    switches = (tensor("max_think_steps", "int32", 1), tensor("halt", "int32", 1))
    answer = (tensor("answer", "int32", batch, S), tensor("steps", "int32", batch), q)
    sides: dict[str, dict[str, Any]] = {
        "graph": {"model": ((board, *switches, *which), answer)},
        "host": {
            "start": ((board, *which), (e, z_H, z_L)),
            "segment": ((z_H, z_L, e), (z_H_next, z_L_next, logits, q)),
        },
        "stateful": {"stateful": ((board, tensor("fresh", "float32", batch), *which), (logits, q))},
    }
    graphs = sides[shape]
    plain = toys.manifest("coreml", "graph" if shape == "graph" else "host", batch)
    changed = {
        "seq_len": S,
        "vocab_size": V,
        "num_puzzle_identifiers": identifiers,
        "no_ACT_continue": no_ACT_continue,
        "halt_max_steps": 11,
    }
    return replace(
        plain,
        name=f"{task}-coreml",
        task=puzzle.name,
        vocabulary=tuple(puzzle.vocabulary),
        architecture={**plain.architecture, **changed},
        graphs={graph: f"{graph}.mlpackage" for graph in graphs},
        inputs={graph: inputs for graph, (inputs, _) in graphs.items()},
        outputs={graph: outputs for graph, (_, outputs) in graphs.items()},
    )


def renamed(content: Manifest, names: dict[str, str]) -> Manifest:
    """The manifest with some tensors called otherwise."""

    def side(tensors: dict[str, tuple[TensorSpec, ...]]) -> dict[str, tuple[TensorSpec, ...]]:
        return {
            graph: tuple(replace(spec, name=names.get(spec.name, spec.name)) for spec in specs)
            for graph, specs in tensors.items()
        }

    return replace(content, inputs=side(content.inputs), outputs=side(content.outputs))


def library(files: dict[str, str]) -> str:
    return files["Sources/HRM/HRM.swift"]


def unquoted(literal: str) -> str:
    """The text of a Swift string literal, read without what wrote it."""
    text = re.sub(r"\\u\{([0-9a-f]+)\}", lambda match: chr(int(match[1], 16)), literal[1:-1])
    return re.sub(r"\\(.)", r"\1", text)


STRING = r'"(?:[^"\\\n]|\\.)*"'


def swift_parser() -> Any:
    tree_sitter = pytest.importorskip("tree_sitter", reason="no Swift parser (tree-sitter, tree-sitter-swift)")
    grammar = pytest.importorskip("tree_sitter_swift", reason="no Swift parser (tree-sitter, tree-sitter-swift)")
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))
