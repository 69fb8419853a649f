"""The manifest of a bundle as dataclasses: every field checked by type and name on the way in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ..errors import InputError
from ..precision import PRECISIONS

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

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; a dimension is a number or the name of a free one ("batch")."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class FileEntry:
    """What a file must be to be trusted: hex SHA-256 and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Gate:
    """Whether accuracy was compared with the float reference at export, and how that went."""

    ran: bool
    passed: bool | None  # None when it did not run
    reason: str | None = None  # why it did not run or pass


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know of a bundle. ``files`` is filled in when the bundle is sealed."""

    name: str
    task: str
    vocabulary: tuple[str, ...]
    architecture: dict[str, Any]  # the model's config and the derived fields above
    target: str  # onnx, openvino, …
    precision: str  # one of hrm_edge.precision.PRECISIONS
    precision_parts: dict[str, str]  # part of the network → dtype it is computed in
    loop: str  # host or graph
    batch: int | str  # rows of every call, or "dynamic"
    graphs: dict[str, str]  # {"start": file, "segment": file} or {"model": file}
    inputs: dict[str, tuple[TensorSpec, ...]]  # per graph
    outputs: dict[str, tuple[TensorSpec, ...]]
    source: dict[str, str]  # checkpoint it came from: name, content_hash
    tools: dict[str, str]  # package → version that made it
    gate: Gate
    files: dict[str, FileEntry] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` reads them back."""
        content = {name.name: getattr(self, name.name) for name in fields(self)}
        return _plain(content)

    @classmethod
    def from_dict(cls, content: dict[str, Any], where: str) -> Manifest:
        """Check every field. ``where`` names the file in error messages."""
        read = _Reader(content, where)
        manifest = cls(
            name=read.text("name"),
            task=read.text("task"),
            vocabulary=tuple(read.items("vocabulary", str)),
            architecture=read.mapping("architecture"),
            target=read.text("target"),
            precision=read.choice("precision", tuple(PRECISIONS)),
            precision_parts=read.texts("precision_parts"),
            loop=read.choice("loop", tuple(GRAPHS_OF_LOOP)),
            batch=_batch(content.get("batch"), where),
            graphs=read.texts("graphs"),
            inputs=read.specs("inputs"),
            outputs=read.specs("outputs"),
            source=read.texts("source"),
            tools=read.texts("tools"),
            gate=read.record("gate", Gate),
            files={name: read.nested("files", name, FileEntry) for name in read.mapping("files")},
            format_version=read.value("format_version", int),
        )
        if unknown := sorted(set(content) - {name.name for name in fields(cls)}):
            raise InputError(f"{where}: unknown field {unknown[0]!r}; export the bundle again")
        _check_whole(manifest, where)
        return manifest


def _check_whole(manifest: Manifest, where: str) -> None:
    """What no single field can tell."""
    if manifest.format_version != FORMAT_VERSION:
        raise InputError(f"{where}: format version {manifest.format_version} is unknown; export the bundle again")
    if manifest.gate.ran != (manifest.gate.passed is not None):
        raise InputError(f"{where}: gate.passed must be given exactly when the gate ran; export the bundle again")
    possible = GRAPHS_OF_LOOP[manifest.loop]
    needed = set(manifest.graphs) if set(manifest.graphs) in possible else possible[0]
    for part in ("graphs", "inputs", "outputs"):
        if set(getattr(manifest, part)) != needed:
            raise InputError(f"{where}: a {manifest.loop} loop needs {part} of exactly {', '.join(sorted(needed))}")
    for name, kind in _NEEDED_ARCHITECTURE.items():
        value = manifest.architecture.get(name)
        lowest = 0 if name == "prefix_len" else 1
        if type(value) is not kind or (isinstance(value, int) and kind is int and value < lowest):
            raise InputError(f"{where}: architecture.{name} is {value!r}, which no model can have; export again")


def _batch(value: Any, where: str) -> int | str:
    if value == "dynamic" or (type(value) is int and value >= 1):
        return value
    raise InputError(f"{where}: batch must be 'dynamic' or a number of at least 1, not {value!r}")


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as JSON has them."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class _Reader:
    """Typed access to a JSON object, with errors that name the file, the field and the value."""

    def __init__(self, content: dict[str, Any], where: str) -> None:
        self._content = content
        self._where = where

    def value(self, name: str, kind: type[T]) -> T:
        if name not in self._content:
            raise InputError(f"{self._where}: field {name!r} is missing; export the bundle again")
        value = self._content[name]
        if type(value) is not kind:  # not isinstance: a bool is no number
            raise self._wrong(name, value, kind.__name__)
        return value

    def text(self, name: str) -> str:
        value = self.value(name, str)
        if not value:
            raise self._wrong(name, value, "some text")
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        value = self.value(name, str)
        if value not in allowed:
            raise self._wrong(name, value, " or ".join(allowed))
        return value

    def items(self, name: str, kind: type[T]) -> list[T]:
        values = self.value(name, list)
        for value in values:
            if type(value) is not kind:
                raise self._wrong(name, value, f"a list of {kind.__name__}")
        return values

    def mapping(self, name: str) -> dict[str, Any]:
        return self.value(name, dict)

    def texts(self, name: str) -> dict[str, str]:
        values = self.mapping(name)
        for value in values.values():
            if type(value) is not str:
                raise self._wrong(name, value, "an object of texts")
        return values

    def record(self, name: str, kind: Callable[..., T]) -> T:
        return self._build(name, self.mapping(name), kind)

    def nested(self, name: str, key: str, kind: Callable[..., T]) -> T:
        return self._build(f"{name}.{key}", self.mapping(name)[key], kind)

    def specs(self, name: str) -> dict[str, tuple[TensorSpec, ...]]:
        result = {}
        for graph, tensors in self.mapping(name).items():
            if type(tensors) is not list:
                raise self._wrong(f"{name}.{graph}", tensors, "a list of tensors")
            result[graph] = tuple(self._build(f"{name}.{graph}", tensor, TensorSpec) for tensor in tensors)
        return result

    def _build(self, name: str, content: Any, kind: Callable[..., T]) -> T:
        """A small dataclass from its JSON object: exactly its fields, each of the right type."""
        checks = _FIELDS[kind]
        if type(content) is not dict or set(content) != set(checks):
            raise self._wrong(name, content, f"an object with {', '.join(checks)}")
        for key, right in checks.items():
            if not right(content[key]):
                raise self._wrong(f"{name}.{key}", content[key], "of another kind")
        if "shape" in content:
            content = {**content, "shape": tuple(content["shape"])}
        return kind(**content)

    def _wrong(self, name: str, value: Any, wanted: str) -> InputError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:60] + "…"
        return InputError(f"{self._where}: {name} must be {wanted}, not {shown}; export the bundle again")


def _is_shape(value: Any) -> bool:
    return type(value) is list and all(
        (type(item) is int and item >= 1) or (type(item) is str and item != "") for item in value
    )


_FIELDS: dict[Callable[..., Any], dict[str, Callable[[Any], bool]]] = {
    TensorSpec: {
        "name": lambda value: type(value) is str,
        "dtype": lambda value: type(value) is str,
        "shape": _is_shape,
    },
    FileEntry: {
        "sha256": lambda value: type(value) is str and len(value) == 64,
        "size": lambda value: type(value) is int and value >= 0,
    },
    Gate: {
        "ran": lambda value: type(value) is bool,
        "passed": lambda value: value is None or type(value) is bool,
        "reason": lambda value: value is None or type(value) is str,
    },
}
