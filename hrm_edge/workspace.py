"""A folder of our own beside what is written: one writer at a time, and what a killed one left is found again.

Beside NAME it is called `.NAME.hrm-edge`. Its file `owner` is locked by the process that writes, and tells whose
the folder is; `new` is what is being written, `old` what `new` takes the place of. A process that is killed leaves
it behind. The next *writer* of the same place puts `old` back where it is missing and clears up; readers look at
`old` where it stands (:func:`standing`), and change nothing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from .errors import InputError
from .signals import once, undisturbed

T = TypeVar("T")

NEW = "new"
MANIFEST, MANIFEST_BYTES = "manifest.json", 2**24  # of a bundle, and the most that it may have

_OWNER, _OLD = "owner", "old"
_MARK = "hrm-edge writes beside this folder; it may be deleted when that has ended: process "
_SECONDS_TO_WAIT = 10.0  # for another writer of one file, which takes milliseconds
_LOOKS = 4
_OF_A_MANIFEST = {"digest", "files", "gate", "graphs"}  # with which no other program's is confused
_READINGS = 5  # of a folder in whose place another one comes every time
_written: list[Path] = []
# What Macs, Windows and their file servers leave in folders that somebody looked into, in small letters.
_SYSTEM_FILES = {".ds_store", ".localized", "thumbs.db", "ehthumbs.db", "desktop.ini"}


def is_system_file(name: str) -> bool:
    """Whether a file of this name is the operating system's: no part of anything, not read, and no hindrance."""
    return name.lower() in _SYSTEM_FILES or name.startswith("._")


def written() -> list[Path]:
    """What this program was asked for and has put in its place, for it to add to and to clear: a wish to stop that
    comes later fails nothing any more."""
    return _written


def unmixed(path: Path, read: Callable[[Path], T]) -> T:
    """``read`` of the folder that stands at ``path``; anew where another one took its place meanwhile, so that
    nothing is made of parts of both. InputError where that happens every time."""
    for _ in range(_READINGS):
        before = _which(path)
        try:
            made = read(standing(path))
        except Exception:
            if _which(path) == before:
                raise
            continue
        if _which(path) == before:
            return made
    raise InputError(f"{path}: another program replaces it all the time; try again when that has ended")


def _which(path: Path) -> tuple[Path, int, int, int, int] | None:
    """What tells the folder at a path from the next one; None where nothing is."""
    folder = standing(path)
    try:
        found = folder.stat()
    except (OSError, ValueError):
        return None
    return folder, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def standing(path: Path) -> Path:
    """Where the last whole content of a folder stands: at ``path``, or beside it when a replacement was cut off."""
    path = Path(path)
    folder = behind(path)
    if os.path.lexists(folder) or not folder.name:
        return path
    work = workspace_of(folder)
    if not (work / _OLD).is_dir() or not _is_ours(work):
        return path
    time.sleep(0.05)  # in which one that is under way would end
    return path if os.path.lexists(folder) or not (work / _OLD).is_dir() else work / _OLD


def behind(path: Path) -> Path:
    """The absolute path that is written when somebody names ``path``: a link is followed, and stays."""
    path = Path(path)
    if path.is_symlink() or path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def workspace_of(target: Path) -> Path:
    """Where the workspace of a path is, which is one that :func:`behind` gave."""
    if not target.name:
        raise OSError(errno.EBUSY, "it is a whole disk", str(target))
    return target.with_name(f".{target.name}.hrm-edge")


def being_made(path: Path) -> bool:
    """Whether a path lies in what takes its place whole when it is done, and so needs no workspace of its own."""
    return any(each.name == NEW and each.is_dir() and _is_ours(each.parent) for each in path.parents)


@contextlib.contextmanager
def workspace(target: Path, wait: bool = False) -> Iterator[Path]:
    """This process's own folder beside ``target``, which is then whole; gone afterwards.

    InputError where ``target`` lies in a bundle.
    """
    _require_outside_bundles(target)
    work = workspace_of(target)
    until = time.monotonic() + _SECONDS_TO_WAIT
    handle, understood = None, False
    with _parents_of(work):
        try:
            while handle is None:
                with undisturbed():
                    handle = _take(work, target)
                    if handle is not None:
                        _recover(work, target)
                        understood = True
                if handle is None:
                    if not wait or time.monotonic() > until:
                        raise BlockingIOError(errno.EAGAIN, f"{_holder(work)} is writing there", str(target))
                    time.sleep(0.01)
            yield work
        except OSError as error:
            error.filename = error.filename or str(target)  # a full disk says of itself only that it is full
            raise
        finally:
            if handle is not None:
                leave = functools.partial(_leave, work, target) if understood else os.close
                once(lambda: leave(handle))


def _require_outside_bundles(target: Path) -> None:
    """A bundle with a file more opens no more, whichever command wrote it."""
    for folder in target.parents:
        try:
            if (folder / MANIFEST).stat().st_size > MANIFEST_BYTES:
                continue
            content = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and content.keys() >= _OF_A_MANIFEST:
            raise InputError(
                f"{target}: lies inside {folder}, a bundle, which may not change; give a place outside"
            )


@contextlib.contextmanager
def _parents_of(path: Path) -> Iterator[None]:
    """The folders above ``path``; those that were made for it go again where nothing came into them."""
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _take(work: Path, target: Path) -> int | None:
    """A handle on the locked ``owner``, None while another process has it. The lock ends with the process, however
    that ends."""
    while True:
        with contextlib.suppress(FileExistsError):
            work.mkdir()
        _require_ours(work, target)
        try:
            handle = os.open(work / _OWNER, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:
            if not work.parent.is_dir():
                raise
            continue  # whoever had it has just cleared up
        except OSError:
            with contextlib.suppress(OSError):
                work.rmdir()
            raise
        locked = False
        try:
            locked = _try_lock(handle)
            if locked and _is_same(handle, work / _OWNER):
                _require_ours(work, target)
                os.write(handle, f"{_MARK}{os.getpid():<10}\n".encode())
                return handle
        except BaseException:
            try:
                if locked and os.fstat(handle).st_size == 0:  # made here, and nothing else is in the folder
                    os.unlink(work / _OWNER)
                    work.rmdir()
            except OSError:
                pass
            finally:
                os.close(handle)
            raise
        os.close(handle)
        if not locked:
            return None


def _try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, which locks bytes: one that nobody reads
        import msvcrt

        os.lseek(handle, 2**20, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a disk that knows no locks
            raise
    return True


def _is_same(handle: int, path: Path) -> bool:
    """Whether an open file still stands at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(work: Path) -> str:
    try:
        number = re.search(rb"process (\d+)", (work / _OWNER).read_bytes())
    except OSError:
        number = None
    return "another hrm-edge" + (f" (process {int(number[1])})" if number else "")


def _require_ours(work: Path, target: Path) -> None:
    if not _is_ours(work):
        raise FileExistsError(errno.EEXIST, f"{work} is in the way and not ours; move it away", str(target))


def _is_ours(work: Path) -> bool:
    """Whether a folder is a workspace. One that changes hands meanwhile may look like another's at one look, where
    the names are of the one process and the mark of the next; what is another's does so at all of them."""
    return any(_looks_ours(work) for _ in range(_LOOKS))


def _looks_ours(work: Path) -> bool:
    """``owner`` says so before anything else is in it, and nothing else is."""
    if work.is_symlink() or not work.is_dir():
        return not os.path.lexists(work)  # gone again, and nobody's
    try:
        names = entries(work)
        mark = (work / _OWNER).read_bytes() if _OWNER in names else b""
    except FileNotFoundError:
        return True  # it is just being cleared up; asked again when it is locked
    if mark.startswith(_MARK.encode()):
        return names <= {_OWNER, NEW, _OLD}
    return not mark and names <= {_OWNER}


def _recover(work: Path, target: Path) -> None:
    """Undo what a killed process left half-way, so that ``target`` is the last whole content."""
    old = work / _OLD
    if os.path.lexists(old) and os.path.lexists(target) and os.path.lexists(work / NEW):
        raise FileExistsError(
            errno.EEXIST,
            f"what stood there before a replacement that was cut off is in {old}; move it to where you want it",
            str(target),
        )
    if os.path.lexists(old) and not os.path.lexists(target):
        old.rename(target)
    _remove(work / NEW)
    _discard_old(work)


def _discard_old(work: Path) -> None:
    """Under another name first, as half of it must never be put back."""
    if os.path.lexists(work / _OLD):
        (work / _OLD).rename(work / NEW)
        _remove(work / NEW)


def swap(work: Path, target: Path) -> None:
    """Put ``new`` in the place of ``target``, which is then ``old``; as it was where that fails."""
    with contextlib.ExitStack() as stack:
        held = None
        if os.stat in os.supports_dir_fd:  # not on Windows
            held = os.open(target.parent, os.O_RDONLY)
            stack.callback(os.close, held)
        if target.exists():
            target.rename(work / _OLD)
        try:
            (work / NEW).rename(target)
        except BaseException:
            _put_back(work, target, held)
            raise
    sync_quietly(target.parent)


def _put_back(work: Path, target: Path, held: int | None) -> None:
    """``held``: the folder in which both stand, as it may have been moved away with them."""
    old, place = (work / _OLD, target) if held is None else (f"{work.name}/{_OLD}", target.name)
    try:
        os.stat(place, dir_fd=held, follow_symlinks=False)
    except FileNotFoundError:
        with contextlib.suppress(FileNotFoundError):  # nothing stood there
            os.rename(old, place, src_dir_fd=held, dst_dir_fd=held)


def _leave(work: Path, target: Path, handle: int) -> None:
    """Clear up and let go. What cannot be removed is the next writer's to remove; so is ``old`` to put back."""
    cleared = False
    try:
        _remove(work / NEW)
        if os.path.lexists(target):
            _discard_old(work)
        cleared = entries(work) <= {_OWNER}
        if cleared and os.name != "nt":  # where nothing that is open can be removed
            # While it is locked: whoever waits for it sees that it is gone, and starts anew.
            os.unlink(work / _OWNER)
    except OSError:
        pass
    finally:
        os.close(handle)
    if cleared:
        with contextlib.suppress(OSError):
            if os.name == "nt":
                os.unlink(work / _OWNER)
            work.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def entries(folder: Path) -> set[str]:
    """Names of what is in a folder, but for the system's files."""
    return {name for name in os.listdir(folder) if not is_system_file(name)}


def sync(path: Path) -> None:
    """Flush one file or folder to disk, so that a rename never publishes an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_quietly(path: Path) -> None:
    """After a rename: what stands there stands there, and is no failure however soon it reaches the disk."""
    with contextlib.suppress(OSError):
        sync(path)
