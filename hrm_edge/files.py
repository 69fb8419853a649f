"""Files that are either whole or absent: write to a sibling, then rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError
from .text import decoded


def _sync(path: Path) -> None:
    """Flush one file or folder to disk, so that a rename never publishes an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty sibling folder that takes ``target``'s place when the block succeeds.

    On an exception nothing of it remains and an existing ``target`` is untouched. A kill between the two
    renames leaves the old content beside it as ``.NAME.old``; :func:`recover_folder` puts it back.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    old = target.parent / f".{target.name}.old"
    try:
        yield scratch
        for file in sorted(scratch.rglob("*")):
            _sync(file)
        scratch.chmod(0o755)  # mkdtemp makes it private; a published folder is not
        recover_folder(target)
        if target.exists():
            target.rename(old)
        scratch.rename(target)
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Undo a replacement that was killed half-way, so that ``target`` is the last whole content."""
    target = Path(target)
    old = target.parent / f".{target.name}.old"
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write one file so that a reader sees the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def check_file(path: Path) -> None:
    """InputError where :func:`write_atomically` could not write; asked before long work."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    check_place(path)


def check_place(path: Path) -> None:
    """InputError where neither a file nor a folder could be made at ``path``; asked before long work."""
    place = path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{path}: cannot be written, as {place} is no folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written, as {place} may not be changed; choose another place")


def require_utf8(path: Path) -> None:
    """InputError for a path that Python can open and the libraries beneath it cannot."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: is not a UTF-8 name, so no backend can open what is in it; rename it") from None


def read_text(path: Path) -> str:
    """A text file, in UTF-8 or as its byte-order mark says. OSError; ValueError where it is no text."""
    return decoded(path.read_bytes())


def readable_name(name: str) -> str:
    """A file's name as text for any JSON reader: bytes that are not UTF-8 become replacement characters."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where what was computed once is kept: `HRM_EDGE_CACHE`, else `hrm-edge` in the user's cache folder."""
    if own := os.environ.get("HRM_EDGE_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        # The specification says that a relative XDG path is to be ignored.
        return (Path(shared) if shared and os.path.isabs(shared) else Path.home() / ".cache") / "hrm-edge"
    except RuntimeError:
        # Nobody's home, as in a container whose user has no name: a place where nothing is or can be kept.
        return Path(os.devnull) / "hrm-edge"
