"""Reads a saved Core ML package (.mlpackage): its ML program, decoded weights included, as plain dataclasses.

Only the protobuf classes of coremltools are used, and they are loaded without running coremltools itself, which
takes seconds, prints warnings and imports torch where there is one.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import struct
import sys
import types
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import InputError
from ...files import read_text
from ...packages import install
from ..base import first_line
from .program import MAX_SIZE, PACKED, Block, Constant, Function, Operation, Package, Value, storage_dtype

# Number of a type in a program → its name here. Types no number stands for are refused by number.
_DTYPES = {
    1: "bool", 2: "string", 10: "float16", 11: "float32", 12: "float64",
    21: "int8", 22: "int16", 23: "int32", 24: "int64", 25: "int4",
    31: "uint8", 32: "uint16", 33: "uint32", 34: "uint64",
    35: "uint4", 36: "uint2", 37: "uint1", 38: "uint6", 39: "uint3",
}  # fmt: skip
# Number of a type in a weight file → its name here.
_BLOB_DTYPES = {
    1: "float16", 2: "float32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 8: "int4",
    9: "uint1", 10: "uint2", 11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32",
}  # fmt: skip
_BLOB_SENTINEL = 0xDEADBEEF
_BLOB_HEADER = struct.Struct("<IIQQ")  # sentinel, type, bytes, offset; the header's other bytes are not needed
_MAX_DEPTH = 32  # of blocks within blocks


def read_package(path: Path) -> Package:
    """Read a package whole, weights decoded. InputError: it is damaged, or no ML program."""
    path = Path(path)
    model, folder = _model(path)
    reader = _Reader(path, folder)
    functions = {name: reader.function(name, item) for name, item in sorted(model.mlProgram.functions.items())}
    default = model.description.defaultFunctionName or "main"
    if default not in functions:
        raise InputError(f"{path}: has no function {default!r}")
    return Package(path, functions, default)


def input_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes that the package's description asks its inputs to be fed with; weights are not read.

    They differ from those of the program in scalars, which are described as (1,). Errors as for
    :func:`read_package`.
    """
    path = Path(path)
    model, _ = _model(path)
    description = model.description
    name = description.defaultFunctionName or "main"
    one = next((item for item in description.functions if item.name == name), description)
    shapes = {item.name: tuple(item.type.multiArrayType.shape) for item in one.input}
    for input_name, shape in shapes.items():
        if math.prod(size for size in shape if size) > MAX_SIZE:
            raise InputError(f"{path}: input {input_name!r} has shape {list(shape)}, which is too large")
    return shapes


def check_reader() -> None:
    """Raises :class:`InputError`, one line, when packages can not be read with what is installed."""
    _messages()


def _model(path: Path) -> tuple[Any, Path]:
    """The package's ``Model`` message, which holds an ML program, and the folder its weights are named from."""
    model_file = _model_file(path)
    model = _messages().Model()
    try:
        model.ParseFromString(model_file.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: its model file can not be read ({error.strerror})") from error
    except Exception as error:  # protobuf's DecodeError, whose module is not importable everywhere
        raise InputError(
            f"{path}: its model file is damaged ({first_line(error)}); export the bundle again"
        ) from error
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        raise InputError(f"{path}: not an ML program but {kind or 'empty'}; export it again for coreml")
    for name in _weight_files(model):
        _inside(path, model_file.parent, name)
    return model, model_file.parent


def _weight_files(message: Any) -> Iterator[str]:
    """Every file that a message names as holding weights, wherever in it."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        inner = (value,) if hasattr(value, "DESCRIPTOR") else value  # one message, or several
        if field.message_type.GetOptions().map_entry:
            inner = value.values() if field.message_type.fields_by_name["value"].message_type else ()
        for each in inner:
            if each.DESCRIPTOR.name == "BlobFileValue":
                yield each.fileName
            else:
                yield from _weight_files(each)


def _inside(path: Path, folder: Path, name: str) -> Path:
    """Where the weight file ``name`` of a package lies: a file that a bundle's hashes vouch for.

    What a Mac or Windows leaves in folders (`.DS_Store`, `._x`, `Thumbs.db`) is not hashed.
    """
    relative = PurePosixPath(name.removeprefix("@model_path/"))
    if not name.startswith("@model_path/") or not _is_plain(relative, ".bin"):
        raise InputError(
            f"{path}: its weights must lie inside the package, in a .bin file, not at {name!r}; the package is "
            "damaged, or made by another tool"
        )
    return folder / relative


def _is_plain(relative: PurePosixPath, ending: str) -> bool:
    hidden = any(part.startswith(".") or "\0" in part for part in relative.parts)
    return relative.suffix == ending and not hidden and not relative.is_absolute()


def _model_file(path: Path) -> Path:
    manifest = path / "Manifest.json"
    try:
        content = json.loads(read_text(manifest))
        inner = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
        relative = PurePosixPath(inner)
    except OSError as error:
        raise InputError(f"{path}: not a Core ML package (no readable Manifest.json)") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{manifest}: does not say which file is the model; export the bundle again") from error
    if not _is_plain(relative, ".mlmodel"):
        raise InputError(
            f"{manifest}: the model must lie inside the package, in an .mlmodel file, not at {inner!r}"
        )
    return path / "Data" / relative


def _messages() -> Any:
    """coremltools' module of the ``Model`` message, without running ``coremltools/__init__.py``."""
    name = "_hrm_edge_coreml_messages"
    if name not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"coremltools is not installed; run: {install('coreml')}")
        package = types.ModuleType(name)
        package.__path__ = [f"{folder}/proto" for folder in spec.submodule_search_locations]
        sys.modules[name] = package
    try:
        return importlib.import_module(f"{name}.Model_pb2")
    except Exception as error:  # protobuf missing or of another generation
        raise InputError(
            f"coremltools does not load here ({first_line(error)}); run: {install('coreml')}"
        ) from error


class _Reader:
    """Turns messages into dataclasses; each stored array is decoded once, however often it is named."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._files: dict[str, _BlobFile] = {}
        self._blobs: dict[tuple[Any, ...], Constant] = {}

    def function(self, name: str, message: Any) -> Function:
        blocks = message.block_specializations
        if message.opset not in blocks:
            raise self._wrong(f"function {name!r} has no block for its opset {message.opset!r}")
        inputs = tuple(self._value(item) for item in message.inputs)
        return Function(name, inputs, self._block(blocks[message.opset], 0))

    def _block(self, message: Any, depth: int) -> Block:
        if depth > _MAX_DEPTH:
            raise self._wrong("its blocks are nested too deep")
        operations = tuple(self._operation(item, depth) for item in message.operations)
        return Block(tuple(self._value(item) for item in message.inputs), operations, tuple(message.outputs))

    def _operation(self, message: Any, depth: int) -> Operation:
        # A constant's value and an older opset's compressed weights stand among the attributes.
        inputs: dict[str, tuple[str | Constant, ...]] = {
            name: (self._constant(value),) for name, value in sorted(message.attributes.items()) if name != "name"
        }
        for name, argument in sorted(message.inputs.items()):
            inputs[name] = tuple(self._binding(item) for item in argument.arguments)
        names = message.attributes["name"].immediateValue.tensor.strings.values if message.attributes else ()
        return Operation(
            kind=message.type,
            inputs=inputs,
            outputs=tuple(self._value(item) for item in message.outputs),
            blocks=tuple(self._block(item, depth + 1) for item in message.blocks),
            name=names[0] if names else "",
        )

    def _binding(self, message: Any) -> str | Constant:
        return message.name if message.WhichOneof("binding") == "name" else self._constant(message.value)

    def _value(self, message: Any) -> Value:
        kind, state = message.type, False
        if kind.WhichOneof("type") == "stateType":
            kind, state = kind.stateType.wrappedType, True
        dtype, shape = self._type(kind, f"value {message.name!r}")
        return Value(message.name, dtype, shape, state)

    def _type(self, message: Any, what: str) -> tuple[str, tuple[int | None, ...] | None]:
        which = message.WhichOneof("type")
        if which != "tensorType":
            raise self._wrong(
                f"{what} is a {which or 'value without a type'}; only tensors and states are supported"
            )
        tensor = message.tensorType
        if tensor.dataType not in _DTYPES:
            raise self._wrong(f"{what} has type number {tensor.dataType}, which is not supported")
        if any(item.unknown.variadic for item in tensor.dimensions):
            return _DTYPES[tensor.dataType], None
        sizes = [item.constant.size if item.HasField("constant") else None for item in tensor.dimensions]
        # A size of 0 does not make the others sound.
        if math.prod(size for size in sizes if size) > MAX_SIZE:
            raise self._wrong(f"{what} has shape {sizes}, which is too large")
        return _DTYPES[tensor.dataType], tuple(sizes)

    def _constant(self, message: Any) -> Constant:
        dtype, shape = self._type(message.type, "a constant")
        if shape is None or None in shape:
            raise self._wrong("a constant has no fixed shape")
        which = message.WhichOneof("value")
        if which == "blobFileValue":
            blob = message.blobFileValue
            return self._blob(blob.fileName, blob.offset, dtype, shape)
        if which != "immediateValue" or message.immediateValue.WhichOneof("value") != "tensor":
            raise self._wrong("a constant is neither a tensor nor in the weight file")
        return self._immediate(message.immediateValue.tensor, dtype, shape)

    def _immediate(self, tensor: Any, dtype: str, shape: tuple[Any, ...]) -> Constant:
        which = tensor.WhichOneof("value")
        values: Any = getattr(tensor, which).values if which else ()
        if dtype == "string":
            if which != "strings" or len(values) != 1:
                raise self._wrong("a constant text is not exactly one text")
            return Constant(dtype, values[0])
        if which == "strings":
            raise self._wrong(f"a constant text where {dtype} is declared")
        if which == "bytes":
            return Constant(dtype, self._decoded(values, dtype, shape, f"a constant {dtype}"))
        count = math.prod(shape)
        if len(values) != count:
            held = "1 value" if len(values) == 1 else f"{len(values)} values"
            raise self._wrong(f"a constant {dtype} holds {held} instead of {count}")
        try:
            array = np.array(values, _declared_dtype(dtype)).astype(storage_dtype(dtype))
        except (OverflowError, ValueError, TypeError) as error:
            raise self._wrong(f"a constant does not fit its type {dtype}") from error
        return Constant(dtype, array.reshape(shape))

    def _blob(self, file_name: str, offset: int, dtype: str, shape: tuple[Any, ...]) -> Constant:
        key = (file_name, offset, dtype, shape)
        if key not in self._blobs:
            if file_name not in self._files:
                self._files[file_name] = _BlobFile(self._path, _inside(self._path, self._folder, file_name))
            what, data = self._files[file_name].read(offset, dtype)
            self._blobs[key] = Constant(dtype, self._decoded(data, dtype, shape, what))
        return self._blobs[key]

    def _decoded(self, data: bytes, dtype: str, shape: tuple[Any, ...], what: str) -> np.ndarray:
        count = math.prod(shape)
        bits = PACKED.get(dtype) or 8 * _declared_dtype(dtype).itemsize
        if len(data) != -(-count * bits // 8):
            raise self._wrong(
                f"{what} has {len(data)} bytes instead of {-(-count * bits // 8)} for shape {list(shape)}"
            )
        if dtype in PACKED:
            return unpacked(np.frombuffer(data, np.uint8), dtype, count).reshape(shape)
        array = np.frombuffer(data, _declared_dtype(dtype)).reshape(shape)
        return array.astype(storage_dtype(dtype), copy=False)

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self._path}: {what}; the package is damaged, or made by another tool")


def unpacked(data: np.ndarray, dtype: str, count: int) -> np.ndarray:
    """``count`` values of a packed type from ``data`` uint8[…], the lowest bits of each byte first."""
    bits = PACKED[dtype]
    flags = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    values = flags @ (1 << np.arange(bits, dtype=np.uint8))
    if dtype == "int4":
        return (values.astype(np.int8) ^ 8) - np.int8(8)  # the fourth bit is the sign
    return values.astype(np.uint8)


def _declared_dtype(dtype: str) -> np.dtype:
    """The numpy type a value has where it is stored."""
    return np.dtype(np.float16) if dtype == "float16" else storage_dtype(dtype)


class _BlobFile:
    """A weight file: arrays, each behind a header of its own."""

    def __init__(self, package: Path, path: Path) -> None:
        self._package = package
        self._path = path

    @cached_property
    def _data(self) -> memoryview:
        try:
            return memoryview(self._path.read_bytes())
        except OSError as error:
            raise InputError(
                f"{self._package}: its weight file {self._path.name} can not be read ({error.strerror})"
            ) from error

    def read(self, offset: int, dtype: str) -> tuple[str, Any]:
        """What messages call the array whose header is at ``offset``, and its bytes."""
        what = f"the weight at {offset} of {self._path.name}"
        if offset + _BLOB_HEADER.size > len(self._data):
            raise self._wrong(f"{what} begins after its end ({len(self._data)} bytes)")
        sentinel, kind, size, start = _BLOB_HEADER.unpack_from(self._data, offset)
        if sentinel != _BLOB_SENTINEL:
            raise self._wrong(f"{what} has no header")
        if _BLOB_DTYPES.get(kind) != dtype:
            raise self._wrong(f"{what} is {_BLOB_DTYPES.get(kind, f'of type number {kind}')} instead of {dtype}")
        if start + size > len(self._data):
            raise self._wrong(f"{what} ends after its end ({len(self._data)} bytes)")
        return what, self._data[start : start + size]

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self._package}: {what}; the package is damaged: export the bundle again")
