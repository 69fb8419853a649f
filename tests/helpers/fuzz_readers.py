"""What a reader of strangers' files is for `fuzz.py`, and what several of them do with a changed file.

The readers are in the `fuzz_*.py` beside this, by what they read: a new one is a function in one of those.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Read = Callable[[bytes, int], object]
# In an empty folder: right files, and what reads a changed one, told which of them it was.
Prepare = Callable[[Path], tuple[list[bytes], Read]]
Mutate = Callable[[random.Random, bytes, list[bytes]], bytes]


@dataclass(frozen=True)
class Reader:
    prepare: Prepare
    mutate: Mutate
    share: float = 1.0  # of the inputs: readers that compile networks take a hundred times as long
    crashes: bool = False  # whether what reads it is known to end the process, which is counted and no finding


def registering(readers: dict[str, Reader]) -> Callable[..., Callable[[Prepare], Prepare]]:
    """What puts functions into such a table, each under a name."""

    def reader(
        name: str, mutate: Mutate, share: float = 1.0, crashes: bool = False
    ) -> Callable[[Prepare], Prepare]:
        def register(prepare: Prepare) -> Prepare:
            readers[name] = Reader(prepare, mutate, share, crashes)
            return prepare

        return register

    return reader


def to(file: Path, read: Callable[[Path], object]) -> Read:
    """Read what was put into one file."""

    def put(content: bytes, _: int) -> object:
        file.write_bytes(content)
        return read(file)

    return put


def canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def resealed(content: bytes, digest: Callable[[dict[str, Any]], str]) -> bytes:
    """With the digest that the content would have, if it is one at all: what a forger would do."""
    try:
        tree = json.loads(content)
        tree.pop("digest", None)
        return canonical({**tree, "digest": digest(tree)}).encode()
    except (ValueError, AttributeError, RecursionError, TypeError):
        return content
