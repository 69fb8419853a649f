"""Whether an ONNX file holds all its weights itself, told from its bytes: a device has no `onnx` package.

A tensor of an ONNX file may lie in another file, or at an address in memory. A bundle vouches for the files it
lists and for nothing else, so such a graph is refused before any backend opens it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError

# Message → number of a field → the message in it: every way from a model to its tensors, bodies of loops included.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(8)
_FIELDS: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _TENSOR: {},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
}
# Of a tensor: where it lies, and whether it is elsewhere at all.
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_DEPTH = 100  # of messages, as protobuf itself has it
_MOST_FIELDS = 3_000_000  # a segment of a thousand blocks has some hundred thousand


def check_self_contained(path: Path) -> None:
    """InputError where an ONNX file keeps a tensor elsewhere, or is no ONNX file at all."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            elsewhere = _keeps_data_elsewhere(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); export the bundle again") from None
    except ValueError as error:
        raise InputError(
            f"{path}: can not load it (no ONNX file, or damaged: {error}); export the bundle again"
        ) from None
    if elsewhere:
        raise InputError(
            f"{path}: keeps weights outside itself, where nothing vouches for them; export the bundle again"
        )


def _keeps_data_elsewhere(content: mmap.mmap) -> bool:
    """ValueError where the bytes are none that protobuf would read."""
    pending = [(_MODEL, 0, len(content), 0)]
    seen = 0
    while pending:
        message, start, end, depth = pending.pop()
        if depth > _MOST_DEPTH:
            raise ValueError("nested too deeply")
        for field, wire, value, length in _fields(content, start, end):
            seen += 1
            if seen > _MOST_FIELDS:
                raise ValueError("more parts than any network has")
            if message == _TENSOR and field == _EXTERNAL_DATA:
                return True
            # Some write the default, 0: here. A number that is too large loses its upper bits.
            if message == _TENSOR and field == _DATA_LOCATION and wire == _VARINT and value & 0xFFFFFFFF:
                return True
            inner = _FIELDS[message].get(field)
            if inner is not None and wire == _BYTES:
                pending.append((inner, value, value + length, depth + 1))
    return False


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of a message: number, wire type, value (of bytes: where they begin) and length of each field."""
    while at < end:
        tag, at = _varint(content, at, end)
        field, wire = tag >> 3, tag & 7
        value, length = at, 0
        if wire == _VARINT:
            value, at = _varint(content, at, end)
        elif wire == _BYTES:
            length, value = _varint(content, at, end)
            at = value + length
        elif wire in (_FIXED32, _FIXED64):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if not 0 < field < 2**29 or at > end:
            raise ValueError("a field beyond its message")
        yield field, wire, value, length


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")
