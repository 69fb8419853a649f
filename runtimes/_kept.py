"""What was made once, kept in the user's cache folder: read again only where nobody else can have written it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

_DIGEST_BYTES = 32


def private(descriptor: int) -> bool:
    """Whether an open file is a plain one, the user's own, and nobody else may write it."""
    facts = os.fstat(descriptor)
    return stat.S_ISREG(facts.st_mode) and _of_this_user(facts)


def read_private(path: Path) -> bytes | None:
    """The content of a file that nobody else can have written; None: there is none such."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with open(descriptor, "rb") as file:
            return file.read() if private(file.fileno()) else None
    except OSError:
        return None


def write_private(path: Path, *content: bytes) -> None:
    """Keep a file for this user alone, where that can be done; a link that stands there is not followed."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        # For this user alone from the first, and not by the umask, which all threads have in common.
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix="writing-")
        stack.callback(Path(scratch).unlink, missing_ok=True)
        with open(handle, "wb") as file:
            for part in content:
                file.write(part)
        os.replace(scratch, path)


def kept(place: Path) -> bytes | None:
    """What :func:`keep` left there; None: nothing, or what is damaged, another file's, or may be another user's."""
    content = read_private(place)
    if content is None:
        return None
    made = content[_DIGEST_BYTES:]
    return made if _digest(place, made) == content[:_DIGEST_BYTES] else None


def keep(place: Path, made: bytes) -> None:
    """Keep something under a name that tells all that it was made of; where that cannot be, nothing happens."""
    write_private(place, _digest(place, made), made)


def private_folder(folder: Path) -> bool:
    """Whether a folder is the user's own, and nobody else may change what is in it."""
    try:
        facts = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and _of_this_user(facts)


def only_newest(folder: Path, count: int) -> None:
    """Remove all files of a folder but those that were used last."""
    with contextlib.suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[count:]:
            file.unlink(missing_ok=True)


def _of_this_user(facts: os.stat_result) -> bool:
    return (not hasattr(os, "getuid") or facts.st_uid == os.getuid()) and not facts.st_mode & 0o022


def _digest(place: Path, made: bytes) -> bytes:
    """Under its name: in a folder that others may write, what is ours could be given another's name."""
    digest = hashlib.sha256(place.name.encode())
    digest.update(made)
    return digest.digest()
