"""Files and folders, replaced whole or not at all, by one writer at a time, and only where they are ours."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .errors import InputError
from .signals import undisturbed
from .text import decoded
from .workspace import (
    NEW,
    behind,
    being_made,
    entries,
    is_system_file,
    swap,
    sync,
    sync_quietly,
    workspace,
    workspace_of,
    written,
)

# InputError, naming the file, unless all that stands in a folder is provably ours.
Check = Callable[[Path], object]


def files_in(folder: Path) -> set[str]:
    """Relative names of all plain files, but for the system's; a link, a pipe and the like is an InputError."""
    found = set()
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as inside:
            for entry in inside:
                name = prefix + entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(f"{name}/")
                elif stat.S_ISLNK(mode):
                    raise InputError(
                        f"{folder}: {name!r} is a link, and only plain files are read there; copy the folder with "
                        f"what its links point to, as with `cp -rL {folder} COPY`, and use the copy"
                    )
                elif not stat.S_ISREG(mode):
                    raise InputError(
                        f"{folder}: {name!r} is not a plain file; remove it, or write the folder again"
                    )
                elif not is_system_file(entry.name):
                    found.add(name)
    return found


# -- writing -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing_folder(target: Path, check: Check, result: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes ``target``'s place when the block succeeds.

    ``check`` is asked about what stands there, before the block and again before it is replaced. On an exception
    nothing remains and ``target`` is untouched. A link stays: the folder behind it is replaced. The umask tells who
    may read what is in it. ``result``: it is what the program was asked for (:func:`workspace.written`).
    InputError where another process writes there, or nothing can be written at all.
    """
    named, target = Path(target), behind(target)
    with contextlib.ExitStack() as stack:
        with _as_mistakes(named):
            check_replaceable(named, check)
            work = stack.enter_context(workspace(target))
            (work / NEW).mkdir()
            made = os.stat(work / NEW)
        yield work / NEW
        with _as_mistakes(named):
            if not os.path.samestat(made, os.stat(work / NEW)):
                # Moved away meanwhile, and made anew by whoever wrote into it with all its parents: half of it.
                raise FileNotFoundError(errno.ENOENT, "what was written there has gone", str(target))
            mask = os.umask(0o077)
            os.umask(mask)
            for path in (work / NEW, *sorted((work / NEW).rglob("*"))):
                # safetensors and coremltools leave files that only their maker may read.
                usual = (0o777 if path.is_dir() else 0o666) & ~mask
                path.chmod(path.stat().st_mode & 0o7000 | usual)
                sync(path)
            with undisturbed():
                check_replaceable(named, check)
                swap(work, target)
                if result:
                    written().append(named)


def scratch_of(target: Path) -> Path:
    """The folder that :func:`replacing_folder` yields for ``target``, for the other processes of one run."""
    return workspace_of(behind(target)) / NEW


@contextlib.contextmanager
def replacing_file(path: Path, result: bool = False) -> Iterator[Path]:
    """Yield a name for a file that takes ``path``'s place when the block succeeds.

    A link stays: the file behind it is replaced. ``result`` as for a folder. OSError where that cannot be.
    """
    named, path = Path(path), behind(path)
    with workspace(path, wait=True) as work:
        yield work / NEW
        sync(work / NEW)
        with undisturbed():
            try:
                os.replace(work / NEW, path)
            except OSError as error:
                error.filename = str(named)  # and not what of ours was to take its place
                raise
            sync_quietly(path.parent)
            if result:
                written().append(named)


def write_atomically(path: Path, content: bytes | str, result: bool = False) -> None:
    """Write one file so that a reader sees the old content or the new, never a part. ``result`` as for a folder."""
    data = content.encode() if isinstance(content, str) else content
    # A device or a pipe, such as /dev/null, is written to and not replaced; a part of what is being made is read by
    # nobody, and a workspace beside it that a disk refuses to remove would become a part as well.
    if (path.exists() and not path.is_file()) or being_made(path):
        path.write_bytes(data)
        return
    with replacing_file(path, result) as scratch:
        scratch.write_bytes(data)


@contextlib.contextmanager
def owning(target: Path, named: Path | None = None) -> Iterator[None]:
    """Keep every other process from writing ``target`` in this way; InputError, about what is ``named``, where one
    does."""
    with contextlib.ExitStack() as stack:
        with _as_mistakes(named or target):
            stack.enter_context(workspace(behind(target)))
        yield


def recover(target: Path) -> None:
    """Put right and clear up what a killed writer of ``target`` left; InputError where one is writing."""
    if workspace_of(behind(target)).exists():
        with owning(target):
            pass


def check_file(path: Path) -> None:
    """InputError where :func:`write_atomically` could not write; asked before long work."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    check_place(path)


def require_apart(written: Iterable[Path | None], read: Iterable[Path | str | None]) -> None:
    """InputError where a file that is written is one of those that are read, or is named twice; asked before any
    work."""
    taken = {os.path.realpath(each): "is read too" for each in read if each is not None and _exists(each)}
    for path in written:
        if path is None:
            continue
        place = os.path.realpath(path)
        if place in taken:
            raise InputError(f"{path}: {taken[place]}, and would be lost; give another place")
        taken[place] = "is to be written twice"


def _exists(path: Path | str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a text that no file can be called
        return False


def check_place(path: Path) -> None:
    """InputError where neither a file nor a folder could be made at ``path``; asked before long work."""
    place = (behind(path) if path.is_symlink() else path).parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{path}: cannot be written, as {place} is no folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written, as {place} may not be changed; choose another place")
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a device or a pipe
    with owning(path):  # not every file system says beforehand what it refuses
        pass


def check_replaceable(target: Path, check: Check) -> None:
    """InputError where :func:`replacing_folder` would not put a folder at ``target``; asked before long work."""
    folder = behind(target)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or entries(folder):
        check(target)
    if not folder.is_dir():
        raise InputError(f"{target}: is a file; name a folder")
    here = Path.cwd()
    if here == folder or folder in here.parents:
        raise InputError(f"{target}: is the folder that you are in, which cannot be replaced; name one inside it")
    if os.path.ismount(folder):
        raise InputError(f"{target}: is where a disk is mounted, which cannot be replaced; name a folder inside it")


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


@contextlib.contextmanager
def _as_mistakes(target: Path) -> Iterator[None]:
    """What a file system refuses, as one line about the place that somebody named."""
    try:
        yield
    except BlockingIOError as error:
        raise InputError(f"{target}: {error.strerror}; wait until it has ended, or choose another place") from error
    except OSError as error:
        raise InputError(
            f"{target}: nothing can be written there ({error.strerror or error}); choose another place"
        ) from error
