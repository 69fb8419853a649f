"""A Core ML model as a package on disk: described as Xcode shows it, and the same bytes for the same model."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from .... import __version__
from ....models import Checkpoint
from ...describe import author, bindings, facts, licence, summary
from ...options import ExportOptions

_DATA = Path("Data") / "com.apple.CoreML"
_SHAPE = "<shape>"
_ITEMS = {"model.mlmodel": "CoreML Model Specification", "weights": "CoreML Model Weights"}


def _describe(described: Any, checkpoint: Checkpoint, options: ExportOptions, graph: str) -> None:
    """Fill in what a package says of itself. ``graph`` of a bundle: "model", "start", "segment" or "stateful"."""
    metadata = described.metadata
    metadata.author, metadata.license = author(checkpoint), licence(checkpoint)
    metadata.versionString = __version__
    metadata.shortDescription = summary(checkpoint, options, graph)
    metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    metadata.userDefined.update(facts(checkpoint, options, graph))
    texts = _bindings(checkpoint, options, graph)
    for binding in (*described.input, *described.output, *described.state):
        binding.shortDescription = texts[binding.name].replace(_SHAPE, str(_shape_of(binding)))


def _shape_of(binding: Any) -> list[int]:
    kind = binding.type
    return list((kind.stateType.arrayType if kind.HasField("stateType") else kind.multiArrayType).shape)


def _bindings(checkpoint: Checkpoint, options: ExportOptions, graph: str) -> dict[str, str]:
    """Name of an input, output or state → what it is, its type, and its shape."""
    task = checkpoint.task
    symbols = " ".join(f"{t}={s}" for t, s in enumerate(task.vocabulary))
    boards = {"tokens": f"; tokens: {symbols} (blank: {task.blank})", "answer": f"; tokens: {symbols}"}
    kinds = dict.fromkeys(("tokens", "answer", "steps", "max_think_steps", "halt", "puzzle_identifiers"), "int32")
    if graph == "stateful":
        kinds |= dict.fromkeys(checkpoint.model.state, "float16")
    return {
        name: f"{meaning[0].upper()}{meaning[1:]}: {kinds.get(name, 'float32')} {_SHAPE}{boards.get(name, '')}"
        for name, meaning in bindings(checkpoint).items()
    }


def write_package(model: Any, path: Path, checkpoint: Checkpoint, options: ExportOptions, graph: str) -> None:
    """Save a converted coremltools model as ``path`` (a folder ending in .mlpackage), described as that graph.

    Identifiers and maps are written in one order, and no dates: equal models give equal files.
    """
    model.save(str(path))
    shutil.rmtree(model.package_path, ignore_errors=True)  # it would stand in the system's folder until Python ends
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
