"""Whose source is compiled and run: what was exported here, or all when the user says so.

A bundle of C is a program. One that came from elsewhere is not run because somebody looked at it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ...errors import InputError
from ...files import cache_folder
from .._kept import read_private, write_private

TRUST = "HRM_EDGE_TRUST_SOURCE"
_exported: set[str] = set()  # in this process, where nothing can be kept


def trust(header: bytes, source: bytes) -> None:
    """Remember, for this user, that a source was written here."""
    digest = _digest(header, source)
    _exported.add(digest)
    write_private(_place(digest), _said(digest))


def require_trusted(header: bytes, source: bytes, what: object) -> None:
    """InputError unless a source was written here, or the user trusts any."""
    digest = _digest(header, source)
    if digest in _exported or os.environ.get(TRUST) == "1" or read_private(_place(digest)) == _said(digest):
        return
    raise InputError(
        f"{what}: is a program in C that was not exported here, and running it runs whatever it holds; "
        f"if you trust who made it, set {TRUST}=1"
    )


def _digest(header: bytes, source: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(header).digest() + hashlib.sha256(source).digest()).hexdigest()


def _said(digest: str) -> bytes:
    """With its own name in it: where others may write the folder they could give what we wrote another name."""
    return f"exported here: {digest}\n".encode()


def _place(digest: str) -> Path:
    return cache_folder() / "c" / f"{digest}.trusted"
