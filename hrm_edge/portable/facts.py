"""`facts.json`: all that a program in another language needs of a bundle and its task, as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Manifest, TensorSpec
from ..bundle.examples import ASKED, Examples, examples_in
from ..files import write_atomically
from ..halting import Q, halting_head, numbered
from ..identifiers import kept_in, ranges, rows_of
from ..runtimes.loops import NEXT, state_tensors
from ..tasks import Task
from ..tasks.base import PAD, PADDING

FACTS = "facts.json"
FORMAT_VERSION = 1

_VARIANTS = 16
_VARIANT_CELLS = 2**17  # of all variants together: what a page loads before it can ask anything


def portable_facts(manifest: Manifest, task: Task, examples: Examples | None = None) -> dict[str, Any]:
    """What stands in `facts.json`, every value plain JSON; cells and tokens are counted from 0.

    ``task``, ``title``: names of the task and of the bundle. ``seq_len``: cells of a board, S. ``grid``: its rows
    and columns, and those of a box where boards are drawn in boxes; null where it is no grid.

    ``vocabulary``: the symbol of each token. ``symbols``: the token of each symbol that text may hold, aliases
    included. ``separator`` stands between symbols in a text, ``padding`` for token 0; ``separator`` is null where
    the task writes its texts otherwise. ``fills``: symbols that are drawn as a colour "#rrggbb", "wall" or "way".

    ``by_example``: a board is one grid on a canvas, and what is asked for only a puzzle's identifier tells.
    ``blank``: the token of a cell that is to be filled, null where there is none. ``question_tokens``,
    ``answer_tokens``: those that a question may hold, and an answer in a cell that was blank. ``rules``: when an
    answer is right, null where only a label or only code tells. ``{"kind": "groups"}``: cells that were not
    blank are as they were, and each of ``groups`` holds each of ``values`` once. ``{"kind": "maze"}``: cells that
    differ from the question were ``open`` and are ``path``; they are a shortest way (4 neighbours) from ``start``
    to ``goal`` that passes no ``wall``.

    ``variants``: other boards of the same puzzle, in the order in which `--retries` asks them (seed 0). Variant v
    of a question is ``tokens[question[cells[i]]]`` in cell i; an answer a to it is brought back by
    ``answer[cells[i]] = t`` where ``tokens[t] == a[i]``.

    ``halting``: ``max_think_steps`` as trained; ``rule`` on the two values of ``q`` (q_halt, q_continue), after a
    segment; ``modes``: the rules that a loop in the graph, or ``hrm_solve`` in C, can be asked for, by number.
    ``loop``, ``batch``, ``graphs``: as in the manifest. ``next``: of a host loop, the output of a segment that is
    the next one's input.
    ``puzzle_identifiers``: null where the model takes none, or the ``count`` of its table's rows and, where it has
    only some of those it was trained with, which: ranges ``[first, last]``, whose numbers are those of its rows.

    ``examples``: what the bundle answered where it was gated (empty where it was not), in text and in tokens, with
    ``puzzle_row``, the row of that table (0 where there is none), which graphs and C code take;
    ``asked``: how, with how far ``q`` may be from the one here.
    """
    architecture = manifest.architecture
    kept = kept_in(manifest.source, manifest.name)
    judges = (task.groups if manifest.loop == "graph" else task.portable_rules) is not None  # graphs know no mazes
    return {
        "format_version": FORMAT_VERSION,
        "title": manifest.name,
        **task_facts(task),
        "variants": _variants(task) if task.portable_rules else [],
        "halting": {
            "max_think_steps": architecture["halt_max_steps"],
            "rule": halting_head(architecture["no_ACT_continue"]).text(*(f"q_{name}" for name in Q)),
            "no_ACT_continue": architecture["no_ACT_continue"],
            "modes": {rule.name: rule.number for rule in numbered() if judges or not rule.judged},
        },
        "loop": manifest.loop,
        "batch": manifest.batch,
        "graphs": {
            graph: {
                "file": file,
                "inputs": _tensors(manifest.inputs[graph]),
                "outputs": _tensors(manifest.outputs[graph]),
            }
            for graph, file in manifest.graphs.items()
        },
        "next": {
            name: name + NEXT for name in state_tensors(spec.name for spec in manifest.outputs.get("segment", ()))
        },
        "puzzle_identifiers": _identifiers(architecture["num_puzzle_identifiers"], kept),
        "asked": None if examples is None else {name: getattr(examples, name) for name in ASKED},
        "examples": []
        if examples is None
        else [
            {**asdict(each), "puzzle_row": int(rows_of(np.array([each.puzzle_identifier]), kept)[0])}
            for each in examples.examples
        ],
    }


def task_facts(task: Task) -> dict[str, Any]:
    """Those of them that are of the task alone, by which boards are read, drawn and judged."""
    blank = int(task.blank)
    return {
        "task": task.name,
        "seq_len": task.seq_len,
        "grid": _grid(task),
        "vocabulary": list(task.vocabulary),
        "symbols": {symbol: int(token) for symbol, token in task.symbol_tokens.items()},
        "separator": _separator(task),
        "padding": PADDING,
        "by_example": task.by_example,
        "fills": dict(task.drawing.fills),
        "blank": None if blank == PAD else blank,
        "question_tokens": np.asarray(task.question_tokens).tolist(),
        "answer_tokens": np.asarray(task.answer_tokens).tolist(),
        "rules": task.portable_rules,
    }


def write_facts(folder: Path, manifest: Manifest, task: Task) -> dict[str, Any]:
    """Write `facts.json` into a bundle that is being made, with its examples where they stand there already.

    Returns what it holds.

    The same manifest, task and examples give the same bytes: one line a fact.
    """
    facts = portable_facts(manifest, task, examples_in(folder))
    lines = (f"{json.dumps(name)}: {json.dumps(facts[name], sort_keys=True)}" for name in facts)
    write_atomically(folder / FACTS, "{\n" + ",\n".join(lines) + "\n}\n")
    return facts


def _grid(task: Task) -> dict[str, int | None] | None:
    if task.rows == 1:
        return None
    box_rows, box_columns = task.drawing.box or (None, None)
    return {"rows": task.rows, "columns": task.cols, "box_rows": box_rows, "box_columns": box_columns}


def _separator(task: Task) -> str | None:
    """What stands between the symbols of a text, None where the task's own code writes texts in another way."""
    tokens = np.resize(np.arange(task.vocab_size), task.seq_len)
    symbols = [task.vocabulary[token] if token else PADDING for token in tokens]
    written = task.format(tokens)
    return next((separator for separator in ("", " ") if separator.join(symbols) == written), None)


def _variants(task: Task) -> list[dict[str, list[int]]]:
    if not task.has_symmetries:
        return []
    count = max(1, min(_VARIANTS, _VARIANT_CELLS // task.seq_len))
    return [{"cells": each.cells.tolist(), "tokens": each.values.tolist()} for each in task.variants(0, count)]


def _tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]


def _identifiers(count: int, kept: np.ndarray | None) -> dict[str, Any] | None:
    if count == 1:
        return None
    return {"count": count, "kept": None if kept is None else [list(each) for each in ranges(kept)]}
