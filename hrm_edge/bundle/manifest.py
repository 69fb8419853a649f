"""The manifest of a bundle: everything a runtime needs to know of it, as one strict record.

A new field is filled in where the bundle is written (`exporters/build.py`). As files of older bundles lack it, and
older readers refuse it, raise `FORMAT_VERSION` with it.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from .. import limits
from ..precision import PRECISIONS
from ..records import STRICT, FromZero, Text, must_be, refusing

FORMAT_VERSION = 1

# Loop kind → the graphs such a bundle must have; "stateful" is both of the host loop's, its state kept inside.
GRAPHS_OF_LOOP = {"host": ({"start", "segment"}, {"stateful"}), "graph": ({"model"},)}
# What a runtime needs to know of the model; the rest of the model's config stands beside these.
_NEEDED_ARCHITECTURE: dict[str, type] = {
    "seq_len": int,
    "prefix_len": int,
    "vocab_size": int,
    "hidden_size": int,
    "num_puzzle_identifiers": int,
    "halt_max_steps": int,
    "no_ACT_continue": bool,
    "parameters": int,
}
FLOPS = "segment_flops"  # stands there too, but in the first bundles
# What is said of the checkpoint in every bundle.
_NEEDED_SOURCE = ("name", "content_hash")


def _one_of(names: dict[str, Any]) -> Any:
    return must_be(" or ".join(names), lambda name: name in names)


def _dimension(size: int | str) -> bool:
    return 1 <= size <= limits.SIZE if isinstance(size, int) else bool(size)


def _batch(rows: int | str) -> bool:
    return 1 <= rows <= limits.ROWS if isinstance(rows, int) else rows == "dynamic"


Dimension = Annotated[int | str, must_be(f"a number from 1 to {limits.SIZE}, or a name", _dimension)]
Batch = Annotated[int | str, must_be(f"'dynamic' or a number from 1 to {limits.ROWS}", _batch)]


@dataclass(frozen=True, config=STRICT)
class TensorSpec:
    """One input or output of a graph; a dimension is a number or the name of a free one ("batch")."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, config=STRICT)
class FileEntry:
    """What a file must be to be trusted: hex SHA-256 and size in bytes."""

    sha256: Annotated[str, must_be("64 hexadecimal digits", lambda digits: len(digits) == 64)]
    size: FromZero


@dataclass(frozen=True, config=STRICT)
class Gate:
    """Whether accuracy was compared with the float reference at export, and how that went."""

    ran: bool
    passed: bool | None  # None when it did not run
    reason: str | None = None  # why it did not run or pass


@refusing
@dataclass(frozen=True, config=STRICT)
class Manifest:
    """Everything a runtime needs to know of a bundle. ``files`` is filled in when the bundle is sealed."""

    name: Text
    task: Text
    vocabulary: tuple[str, ...]
    architecture: dict[str, Any]  # the model's config and the derived fields above
    target: Text  # onnx, openvino, …
    precision: Annotated[str, _one_of(PRECISIONS)]
    precision_parts: dict[str, str]  # part of the network → dtype it is computed in
    loop: Annotated[str, _one_of(GRAPHS_OF_LOOP)]
    batch: Batch  # rows of every call, or "dynamic"
    graphs: dict[str, str]  # {"start": file, "segment": file} or {"model": file}
    inputs: dict[str, tuple[TensorSpec, ...]]  # per graph
    outputs: dict[str, tuple[TensorSpec, ...]]
    source: dict[str, str]  # checkpoint it came from: name, content_hash
    tools: dict[str, str]  # package → version that made it
    gate: Gate
    files: dict[str, FileEntry] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @model_validator(mode="after")
    def _check_whole(self) -> Manifest:
        """What no single field can tell."""
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format version {self.format_version} is unknown")
        if self.gate.ran != (self.gate.passed is not None):
            raise ValueError("gate.passed must be given exactly when the gate ran")
        possible = GRAPHS_OF_LOOP[self.loop]
        needed = set(self.graphs) if set(self.graphs) in possible else possible[0]
        for part in ("graphs", "inputs", "outputs"):
            if set(getattr(self, part)) != needed:
                raise ValueError(f"a {self.loop} loop needs {part} of exactly {', '.join(sorted(needed))}")
        for name, kind in _NEEDED_ARCHITECTURE.items():
            value = self.architecture.get(name)
            lowest = 0 if name == "prefix_len" else 1
            if type(value) is not kind or (isinstance(value, int) and kind is int and value < lowest):
                raise ValueError(f"architecture.{name} is {value!r}, which no model can have")
        for name, most in limits.OF_FIELD.items():
            size = self.architecture.get(name, 0)
            if isinstance(size, int | float) and size > most:
                raise ValueError(f"architecture.{name} is {size!r}, and at most {most} can be run")
        flops = self.segment_flops
        if flops is not None and (type(flops) is not int or flops < 0):
            raise ValueError(f"architecture.{FLOPS} is {flops!r}, which no model can have")
        values = self.architecture["seq_len"] + self.architecture["prefix_len"]
        values *= self.architecture["hidden_size"]
        if isinstance(self.batch, int) and self.batch * values > limits.STATE:
            raise ValueError(f"batch is {self.batch}, and at most {limits.STATE // values} such rows can be run")
        for name in _NEEDED_SOURCE:
            if name not in self.source:
                raise ValueError(f"source lacks {name!r}")
        return self

    @property
    def segment_flops(self) -> int | None:
        """Floating-point operations of the products of one segment, one puzzle, in the float network."""
        return self.architecture.get(FLOPS)
