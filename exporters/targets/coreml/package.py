"""A Core ML model as a package on disk: described as Xcode shows it, and the same bytes for the same model."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

from .... import __version__
from ....files import readable_name
from ....halting import halting_head, numbered
from ....models import Checkpoint
from ....models.family import NETWORKS
from ....runtimes.loops import NEXT
from ...options import ExportOptions

UNKNOWN = "unknown"
_OURS = "hrm_edge."  # what our keys in the user-defined metadata begin with
_DATA = Path("Data") / "com.apple.CoreML"
_DESCRIBED = dict.fromkeys(NETWORKS, "Hierarchical Reasoning Model")
_SHAPE = "<shape>"
_STATES = {"z_H": "Slow state", "z_L": "Fast state"}
_ITEMS = {"model.mlmodel": "CoreML Model Specification", "weights": "CoreML Model Weights"}


def _describe(described: Any, checkpoint: Checkpoint, options: ExportOptions, graph: str) -> None:
    """Fill in what a package says of itself. ``graph`` of a bundle: "model", "start", "segment" or "stateful"."""
    config, task, metadata = checkpoint.config, checkpoint.task, described.metadata
    parts = {
        "model": "thinks until every puzzle has halted",
        "start": "begins a puzzle",
        "segment": "thinks one segment",
        "stateful": "begins or goes on with a puzzle and thinks one segment; its state stays on the device",
    }
    metadata.author, metadata.license = (
        readable_name(str(checkpoint.metadata.get("author") or UNKNOWN)),
        licence(checkpoint),
    )
    metadata.versionString = __version__
    metadata.shortDescription = (
        f"{_DESCRIBED.get(config.kind, config.title)} for {task.name}: {parts[graph]}. {config.structure}, "
        f"at most {config.halt_max_steps} segments; precision {options.precision}, loop {options.loop}."
    )
    facts = {
        "task": task.name,
        "vocabulary": json.dumps(list(task.vocabulary), ensure_ascii=False),
        "seq_len": str(task.seq_len),
        "halt_modes": json.dumps({rule.name: rule.number for rule in numbered()}),
        "halt_max_steps": str(config.halt_max_steps),
        "graph": graph,
        "precision": options.precision,
        "loop": options.loop,
        "source": checkpoint.name,
        "source_hash": checkpoint.content_hash,
        "version": __version__,
    }
    metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    metadata.userDefined.update({_OURS + key: value for key, value in facts.items()})
    texts = _bindings(checkpoint, options, graph)
    for binding in (*described.input, *described.output, *described.state):
        binding.shortDescription = texts[binding.name].replace(_SHAPE, str(_shape_of(binding)))


def _shape_of(binding: Any) -> list[int]:
    kind = binding.type
    return list((kind.stateType.arrayType if kind.HasField("stateType") else kind.multiArrayType).shape)


def licence(checkpoint: Checkpoint) -> str:
    """What the checkpoint says of its licence, in its metadata or in a line of its card."""
    said = next((checkpoint.metadata[key] for key in ("license", "licence") if checkpoint.metadata.get(key)), None)
    line = re.search(r"^\W*licen[cs]e\W*:\s*(\S.*?)\s*$", checkpoint.card, re.MULTILINE | re.IGNORECASE)
    return readable_name(str(said)) if said else line[1] if line else UNKNOWN


def _bindings(checkpoint: Checkpoint, options: ExportOptions, graph: str) -> dict[str, str]:
    """Name of an input, output or state → what it is."""
    config, task, rows = checkpoint.config, checkpoint.task, options.batch
    symbols = " ".join(f"{t}={s}" for t, s in enumerate(task.vocabulary))
    board = f"int32 [{rows}, {task.seq_len}], {task.rows} x {task.cols} cells row by row; tokens: {symbols}"
    scores = f"[{rows}, {task.seq_len}, {task.vocab_size}]"
    rule = halting_head(config.no_ACT_continue).text("q[0]", "q[1]")
    rules = [rule for rule in numbered() if task.groups is not None or not rule.judged]
    modes = ", ".join(f"{rule.number}: {rule.when}" for rule in rules)
    texts = {
        "tokens": f"The puzzles: {board} (blank: {task.blank})",
        "answer": f"The answers: {board}",
        "steps": f"Segments that each puzzle took: int32 [{rows}]",
        "q": f"Halting head: float32 [{rows}, 2], halt and continue; a puzzle is done when {rule}",
        "logits": f"Scores of every token, the largest being the guess: float32 {scores}",
        "max_think_steps": f"Segments at most: int32 [1]; trained with up to {config.halt_max_steps}",
        "halt": f"When a puzzle stops early: int32 [1]; {modes}",
        "puzzle_identifiers": f"Kind of each puzzle: int32 [{rows}], 0 to {config.num_puzzle_identifiers - 1}",
        "fresh": f"1 where a row begins a new puzzle, 0 where it thinks on: float32 [{rows}]",
        "e": f"Input embedding, the same in every segment: float32 {_SHAPE}",
    }
    kind = "float16" if graph == "stateful" else "float32"
    for name in checkpoint.model.state:
        texts[name] = f"{_STATES.get(name, f'State {name}')}: {kind} {_SHAPE}"
        texts[name + NEXT] = f"{texts[name]}, after the segment"
    return texts


def write_package(model: Any, path: Path, checkpoint: Checkpoint, options: ExportOptions, graph: str) -> None:
    """Save a converted coremltools model as ``path`` (a folder ending in .mlpackage), described as that graph.

    Identifiers and maps are written in one order, and no dates: equal models give equal files.
    """
    model.save(str(path))
    spec = model.get_spec()
    _describe(spec.description, checkpoint, options, graph)
    (path / _DATA / "model.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))
    items = {
        str(uuid.uuid5(uuid.NAMESPACE_URL, f"com.apple.CoreML/{name}")): {
            "author": "com.apple.CoreML",
            "description": _ITEMS[name],
            "name": name,
            "path": f"com.apple.CoreML/{name}",
        }
        for name in sorted(_ITEMS)
        if (path / _DATA / name).exists()
    }
    root = next(key for key, item in items.items() if item["name"] == "model.mlmodel")
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": root}
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")
