"""Weights beside the source: one file that the caller maps, each array at a multiple of 64 bytes, little-endian.

It begins with 64 bytes that the source compares: who made it, its size, and the SHA-256 of what follows. They are
read as numbers, so a machine of the other byte order refuses the file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....runtimes.c.weights import ALIGNED, HEAD, MAGIC
from .ir import Buffer


@dataclass(frozen=True)
class WeightsFile:
    """What the file holds: its arrays by name, where each begins, and its first bytes as numbers."""

    arrays: dict[str, tuple[Buffer, int]]
    bytes: int
    head: tuple[int, ...]

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(struct.pack(f"<{len(self.head)}I", *self.head))
            for part in _body(self.arrays):
                file.write(part)


def weights_file(constants: Mapping[Buffer, str]) -> WeightsFile:
    """A place for every constant."""
    arrays: dict[str, tuple[Buffer, int]] = {}
    end = HEAD
    for buffer, name in constants.items():
        arrays[name] = buffer, end
        end = _up(end + buffer.bytes)
    digest = hashlib.sha256()
    for part in _body(arrays):
        digest.update(part)
    begin = struct.pack("<8sQ", MAGIC, end) + digest.digest()
    return WeightsFile(arrays, end, struct.unpack(f"<{HEAD // 4}I", begin.ljust(HEAD, b"\0")))


def _body(arrays: Mapping[str, tuple[Buffer, int]]) -> Iterator[bytes]:
    """All that follows the head."""
    for buffer, _ in arrays.values():
        assert buffer.data is not None
        content = np.ascontiguousarray(buffer.data, buffer.data.dtype.newbyteorder("<")).tobytes()
        yield content.ljust(_up(len(content)), b"\0")


def _up(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
