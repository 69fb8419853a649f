"""What a service allows, and who may ask it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, require_whole
from ..files import read_text

TOKEN_VARIABLE = "HRM_EDGE_TOKEN"
_SHORTEST = 16  # characters of a token


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes and puzzles, times in seconds. InputError where one is none."""

    body: int = 2**20
    puzzles: int = 256  # of one request
    segments: int = 4096  # of one attempt at a puzzle: a graph thinks them in one call, which nothing cuts short
    queue: int = 1024  # puzzles of a bundle that wait or are thought about
    seconds: float = 60.0  # of one puzzle, from the queue to its answer
    connections: int = 512
    header_seconds: float = 10.0  # until a connection's request is whole but for its body
    body_seconds: float = 20.0  # until its body is
    idle_seconds: int = 5  # between two requests of a connection

    def __post_init__(self) -> None:
        counts = ("body", "puzzles", "segments", "queue", "connections")
        require_whole(1, **{name: getattr(self, name) for name in counts})
        for name in ("seconds", "header_seconds", "body_seconds", "idle_seconds"):
            if not 0 < getattr(self, name) < 1e9:
                raise InputError(f"{name} must be a number of seconds above 0, not {getattr(self, name)!r}")
        if self.puzzles > self.queue:
            raise InputError(
                f"a request may hold {self.puzzles} puzzles and the queue only {self.queue}: it would always be "
                "full for it; lower --max-puzzles or raise --queue"
            )


class Token:
    """What callers must show, kept as a hash alone: comparing takes the same time whatever is shown."""

    def __init__(self, text: str) -> None:
        self._hash = _hashed(text)

    def __repr__(self) -> str:
        return "<token>"

    def is_in(self, header: bytes | None) -> bool:
        """Whether an Authorization header holds it."""
        scheme, _, shown = (header or b"").partition(b" ")
        same = hmac.compare_digest(_hashed(shown.strip().decode("latin-1")), self._hash)
        return same and scheme.lower() == b"bearer"


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def read_token(file: Path | None) -> Token | None:
    """The token of a file, or of the environment; None where neither has one. InputError where it is none."""
    if file is not None:
        where, text = str(file), read_text(file).strip()
    elif TOKEN_VARIABLE in os.environ:
        where, text = TOKEN_VARIABLE, os.environ[TOKEN_VARIABLE].strip()
    else:
        return None
    if len(text) < _SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise InputError(
            f"{where}: a token is {_SHORTEST} or more ASCII characters without spaces; make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )
    return Token(text)


def require_token(host: str, token: Token | None) -> None:
    """InputError where others than this machine could ask, and nothing tells who may."""
    if token is None and not is_local(host):
        raise InputError(
            f"--host {host}: whoever reaches this machine could ask; give --token-file FILE (or {TOKEN_VARIABLE}), "
            "or leave --host out"
        )


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
