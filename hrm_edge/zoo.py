"""The trained models that ship, listed without torch: names, sizes and what their cards measured."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import struct
from pathlib import Path
from typing import Any

from .errors import InputError
from .packages import from_source
from .text import decoded


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """One shipped checkpoint; ``size_mb`` of its weights, in 10⁶ bytes.

    ``exact`` is its exact-solve fraction on ``n`` held-out puzzles after 16 segments without early halting, if
    measured.
    """

    name: str
    path: Path
    task: str
    parameters: int
    size_mb: float
    exact: float | None
    n: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "path": str(self.path)}


def zoo_models() -> list[Path]:
    """The checkpoint folders in the installed `models/zoo`."""
    spec = importlib.util.find_spec("hrm_edge.models")  # finds it without importing torch
    folders = spec.submodule_search_locations if spec else None
    return sorted(config.parent for folder in folders or [] for config in Path(folder).glob("zoo/*/config.json"))


def zoo_elsewhere() -> str:
    """The end of a sentence on where the other trained models stand; empty in a clone, which has them all."""
    return "" if from_source() else "; the others are folders in models/zoo of a clone or of the sdist"


def _parameters(weights: Path) -> int:
    """Number of values in a safetensors file, from its header; the two fixed initial states not counted."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    fixed = ("__metadata__", "H_init", "L_init")
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name not in fixed)


def list_zoo() -> list[ZooModel]:
    """Every shipped model with its figures."""
    rows = []
    for path in zoo_models():
        config = json.loads(decoded((path / "config.json").read_bytes()))
        weights = path / "model.safetensors"
        measured = config.get("metadata", {}).get("accuracy", {}).get("generated-ordinary", {})
        exact = measured.get("exact_by_segments", {}).get("16")
        size = weights.stat().st_size / 1e6
        rows.append(
            ZooModel(
                path.name, path, config["task"], _parameters(weights), round(size, 2), exact, measured.get("n")
            )
        )
    return rows


def read_card(name: str) -> str:
    """A shipped model's card, Markdown."""
    for path in zoo_models():
        if path.name == name:
            return decoded((path / "card.md").read_bytes())
    known = ", ".join(path.name for path in zoo_models()) or "none"
    raise InputError(f"{name}: no such shipped model; here are {known}{zoo_elsewhere()}")
