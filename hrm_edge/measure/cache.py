"""A cache of answers, keyed by the content of everything they depend on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import cache_folder, write_atomically
from ..progress import announce
from ..runtimes import Answers

_FIELDS = ("tokens", "steps", "halted", "q")
_DIGEST_BYTES = 32


def cached_answers(kind: str, key: dict[str, Any], compute: Callable[[], Answers]) -> Answers:
    """`compute()`, or what it gave for the same JSON `key` before; traces are not kept.

    Damaged or truncated files are computed again; a cache folder that cannot be written is done without.
    """
    file = cache_file(kind, key)
    kept = read_answers(file)
    if kept is not None:
        return kept
    answers = compute()
    try:
        write_atomically(file, _to_bytes(answers))
    except OSError as error:
        announce(f"{kind} answers not cached in {file.parent} ({error.strerror})")
    return answers


def cache_file(kind: str, key: dict[str, Any]) -> Path:
    """The file that holds the answers of this key, whether it is there or not."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / kind / f"{digest}.answers"


def read_answers(file: Path) -> Answers | None:
    """Cached answers, or None when there are none to trust."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, archive = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(archive).digest() != digest:
        return None
    with np.load(io.BytesIO(archive), allow_pickle=False) as stored:
        return Answers(**{name: stored[name] for name in _FIELDS})


def _to_bytes(answers: Answers) -> bytes:
    """An npz behind its own SHA-256, so that any damage at all shows before numpy parses a byte."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(answers, name) for name in _FIELDS})
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()
