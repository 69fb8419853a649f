"""What was made once, kept in the user's cache folder: read again only where nobody else can have written it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

_DIGEST_BYTES = 32
_LARGEST = 2**30  # bytes: of what is larger nothing is read
_SCRATCH = "writing-"


def private(descriptor: int) -> bool:
    """Whether an open file is a plain one, the user's own, and nobody else may write it."""
    facts = os.fstat(descriptor)
    return stat.S_ISREG(facts.st_mode) and _of_this_user(facts)


def read_private(path: Path) -> bytes | None:
    """The content of a file that nobody else can have written; None: there is none such."""
    try:
        # What is no file, as a pipe, would be waited for.
        plain = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, os.O_RDONLY | plain)
        with open(descriptor, "rb") as file:
            fits = os.fstat(file.fileno()).st_size <= _LARGEST
            return file.read() if fits and private(file.fileno()) else None
    except OSError:
        return None


def write_private(path: Path, *content: bytes) -> None:
    """Keep a file for this user alone, where that can be done; a link that stands there is not followed."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        # For this user alone from the first, and not by the umask, which all threads have in common.
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=_SCRATCH)
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


def only_newest(folder: Path, count: int, ours: str) -> None:
    """Remove what was kept in a folder but what was used last; ``ours`` matches the names of what is kept.

    Nothing else is touched, nor what a link leads to: the user may have named a folder that holds other things.
    """
    if not private_folder(folder):
        return
    names = re.compile(f"({ours})|{_SCRATCH}.*")  # what was being written when its process was ended
    with contextlib.suppress(OSError):
        files = [file for file in folder.iterdir() if names.fullmatch(file.name)]
        for file in sorted(files, key=lambda file: file.lstat().st_mtime, reverse=True)[count:]:
            file.unlink(missing_ok=True)


def _of_this_user(facts: os.stat_result) -> bool:
    return (not hasattr(os, "getuid") or facts.st_uid == os.getuid()) and not facts.st_mode & 0o022


def _digest(place: Path, made: bytes) -> bytes:
    """Under its name: in a folder that others may write, what is ours could be given another's name."""
    digest = hashlib.sha256(place.name.encode())
    digest.update(made)
    return digest.digest()
