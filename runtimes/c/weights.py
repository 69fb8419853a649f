"""A bundle's weights where they are a file of their own: mapped, and what the bundle's source was made with."""

from __future__ import annotations

import hashlib
import mmap
import struct
from pathlib import Path

import numpy as np

from ...errors import InputError

WEIGHTS = "weights.bin"
# The file begins with HEAD bytes: MAGIC, its size as uint64, and the SHA-256 of all that follows them. Every array
# begins at a multiple of ALIGNED. All numbers are little-endian.
MAGIC = b"HRMEDGE1"
HEAD, ALIGNED = 64, 64
_BEGIN = struct.Struct("<8sQ32s")


def mapped(path: Path) -> np.ndarray:
    """The file's bytes, read as they are needed. InputError: it is not whole.

    The source accepts it by its first bytes alone, of which the digest is compared with the rest here.
    """
    try:
        with path.open("rb") as file:
            content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as error:  # ValueError: it is empty
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: is not readable ({reason}); export the bundle again") from None
    if len(content) < HEAD:
        raise InputError(f"{path}: is too short to be weights; export the bundle again")
    magic, size, digest = _BEGIN.unpack(content[: _BEGIN.size].tobytes())
    if magic != MAGIC or size != len(content) or digest != hashlib.sha256(content[HEAD:].data).digest():
        raise InputError(f"{path}: is damaged, or no weights of a bundle in C; export the bundle again")
    return content
