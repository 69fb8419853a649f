"""A disk on which an operation of this process goes wrong: refused, half done, interrupted, or the last.

A kill is a stop of the disk: from there on nothing that this process does reaches it, its cleaning up included.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Killed(BaseException):
    """Nothing more reaches the disk."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong at one operation. ``lasting``: at every later one of these kinds as well."""

    name: str
    number: int = 0  # of the error
    lasting: bool = False
    only: frozenset[str] = frozenset()  # kinds of operation; empty: all


_WRITES = frozenset({"create", "open", "write", "mkdir", "fsync", "save"})
FAULTS = (
    Fault("ENOSPC", errno.ENOSPC, lasting=True, only=_WRITES),  # a disk that is full, where things can be removed
    Fault("full", errno.ENOSPC, only=frozenset({"open", "write"})),  # … and says so when something is written
    Fault("EACCES", errno.EACCES),
    Fault("EIO", errno.EIO),
    Fault("EROFS", errno.EROFS, lasting=True),  # a disk that has become read-only
    Fault("vanish"),  # the folder is moved away
    Fault("TERM"),
    Fault("kill"),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


def deliver(number: int) -> None:
    """What Python does on a signal, at once: calls its handler. Some libraries that tests of the same process load
    leave a stack for signals behind that is no more, so that a real one ends the process."""
    handler = signal.getsignal(number)
    assert callable(handler), f"nothing waits for signal {number}, which would end this process"
    handler(number, sys._getframe())


@dataclass
class Disk:
    """Counts the operations under ``root`` that change something, and breaks the ``at``-th (from 1; 0: none)."""

    root: Path
    fault: Fault | None = None
    at: int = 0
    look: Callable[[], None] | None = None  # before every operation
    kinds: list[str] = field(default_factory=list)
    dead: bool = False
    hit: bool = False
    looking: bool = False

    def meets(self, kind: str, path: Any) -> str | None:
        """Called before an operation; "full" where it is to write to a full disk."""
        if self.looking or not self._inside(path):
            return None
        if self.dead:
            raise Killed
        self.kinds.append(kind)
        if self.look is not None:
            self.looking = True
            try:
                self.look()
            finally:
                self.looking = False
        fault = self.fault
        if fault is None or len(self.kinds) < self.at or (len(self.kinds) > self.at and not fault.lasting):
            return None
        if fault.only and kind not in fault.only:
            return None
        self.hit = True
        if fault.name == "kill":
            self.dead = True
            raise Killed
        if fault.name == "TERM":
            deliver(signal.SIGTERM)
            return None
        if fault.name == "vanish":
            with self.paused():
                os.rename(self.root, f"{self.root}.gone")
            return None
        if fault.name == "full" and kind == "open":
            return "full"
        raise OSError(fault.number, os.strerror(fault.number), str(path))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.looking = True
        try:
            yield
        finally:
            self.looking = False

    def _inside(self, path: Any) -> bool:
        return os.path.abspath(path).startswith(f"{self.root}{os.sep}")


def _where(path: Any, at: int | None) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path)
    return path if at is None else os.path.join(os.readlink(f"/proc/self/fd/{at}"), path)


def _watched(disk: Disk, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        disk.meets(kind, _where(path, options.get("dir_fd") or options.get("src_dir_fd")))
        return real(path, *arguments, **options)

    return call


def _watched_os_open(disk: Disk, real: Callable[..., int]) -> Callable[..., int]:
    def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            disk.meets("create", _where(path, options.get("dir_fd")))  # written to by `os.write`
        return real(path, flags, *arguments, **options)

    return call


def _watched_open(disk: Disk, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return real(file, mode, *arguments, **options)
        if disk.meets("open", _where(file, None)) == "full":
            real(file, "wb").close()
            return real("/dev/full", mode.replace("x", "w").replace("+", ""), *arguments, **options)
        return real(file, mode, *arguments, **options)

    return call


def _watched_save(disk: Disk, real: Callable[..., Any], error: type[Exception]) -> Callable[..., Any]:
    """A library's own writer: a full disk leaves half a file, and another kind of exception."""

    def call(content: Any, file: Any, *arguments: Any, **options: Any) -> Any:
        try:
            disk.meets("save", _where(file, None))
        except OSError as refused:
            if refused.errno == errno.ENOSPC:
                with disk.paused():
                    Path(file).write_bytes(b"half")
            raise error(str(refused)) from None
        return real(content, file, *arguments, **options)

    return call


@contextlib.contextmanager
def watched(disk: Disk) -> Iterator[None]:
    """Operations of this process go through ``disk``."""
    import torch
    from safetensors import SafetensorError

    from hrm_edge.models import checkpoint
    from hrm_edge.runtimes.openvino import imported

    kinds = {
        **dict.fromkeys(("rename", "replace", "link", "symlink"), "rename"),
        **dict.fromkeys(("unlink", "remove", "rmdir"), "remove"),
        **dict.fromkeys(("write", "ftruncate", "truncate"), "write"),
        **{name: name for name in ("mkdir", "fsync", "chmod")},
    }
    with contextlib.ExitStack() as patches:
        for name, kind in kinds.items():
            patches.enter_context(mock.patch.object(os, name, _watched(disk, kind, getattr(os, name))))
        patches.enter_context(mock.patch.object(os, "open", _watched_os_open(disk, os.open)))
        for module in (builtins, io):
            patches.enter_context(mock.patch.object(module, "open", _watched_open(disk, io.open)))
        for module, name, error in (
            (checkpoint, "save_file", SafetensorError),
            (torch, "save", RuntimeError),
            (imported(), "save_model", RuntimeError),
        ):
            patches.enter_context(
                mock.patch.object(module, name, _watched_save(disk, getattr(module, name), error))
            )
        if fcntl is not None:
            patches.enter_context(mock.patch.object(fcntl, "flock", _watched(disk, "lock", fcntl.flock)))
        yield
