"""The machine's C compiler: which it is, and a bundle's source as a library that was compiled here.

What was compiled is kept in the user's cache folder, under a name made of the source, the compiler, its flags and
what it takes the CPU for. Only a file that is the user's own, that nobody else may write, and that is as it was
written, is loaded from there.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...files import cache_folder
from ...text import printable
from .._kept import keep, kept

# Fast math, which a CC may bring, would change answers, and round for the whole process that loads the library. The
# source itself says whether products are fused with sums; clang alone lets options overrule it.
_FLAGS = ("-std=c99", "-O3", "-fno-fast-math", "-ffp-contract=on", "-fno-math-errno", "-fPIC", "-shared")
_FOR_THIS_CPU = (("-march=native",), ("-mcpu=native",), ())
_CANDIDATES = ("cc", "gcc", "clang")
_LIBRARY = "hrm.so"
_SECONDS = 600  # a compiler that takes longer hangs


def find() -> tuple[tuple[str, ...], str]:
    """(the command of the C compiler, or nothing; its version, or why there is none).

    It is what the environment's ``CC`` says, which may hold options, or else the first of cc, gcc and clang.
    """
    return _find(os.environ.get("CC", ""), os.environ.get("PATH", ""))


@functools.lru_cache(maxsize=8)
def _find(chosen: str, path: str) -> tuple[tuple[str, ...], str]:
    try:
        commands = [shlex.split(chosen)] if chosen.strip() else [[name] for name in _CANDIDATES]
    except ValueError as error:
        return (), f"CC is no command: {error}"
    for command in commands:
        if shutil.which(command[0], path=path):
            try:
                told = _run([*command, "--version"])
            except InputError as error:
                return (), str(error)
            return tuple(command), printable(told.splitlines()[0].strip()) if told.strip() else command[0]
    if chosen.strip():
        return (), f"CC names {printable(commands[0][0])}, which is not on the PATH"
    return (), f"no C compiler is on the PATH ({', '.join(_CANDIDATES)})"


def compiled(header: bytes, source: bytes, what: object) -> ctypes.CDLL:
    """The library of a header and a source, compiled now or kept from before. InputError about ``what``."""
    command, version = find()
    if not command:
        raise InputError(f"{what}: {version}; install one, or name it in CC")
    flags, cpu = _flags(command)
    told = [hashlib.sha256(part).hexdigest() for part in (header, source)]
    key = hashlib.sha256(json.dumps([*told, command, version, flags, cpu]).encode()).hexdigest()
    place = cache_folder() / "c" / f"{key}.so"
    library = kept(place)
    if library is None:
        library = _build(command, flags, header, source, what)
        keep(place, library)
    return _load(library, what)


@functools.lru_cache(maxsize=8)
def _flags(command: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """(all flags, a digest of the macros that tell of the CPU they are for)."""
    for native in _FOR_THIS_CPU:
        flags = (*_FLAGS, *native)
        with contextlib.suppress(InputError):
            macros = _run([*command, *flags, "-dM", "-E", "-x", "c", os.devnull])
            return flags, hashlib.sha256(macros.encode()).hexdigest()
    return _FLAGS, ""


def _build(command: Sequence[str], flags: Sequence[str], header: bytes, source: bytes, what: object) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hrm-edge-c-") as scratch:
        folder = Path(scratch)
        (folder / "hrm.h").write_bytes(header)
        (folder / "hrm.c").write_bytes(source)
        try:
            _run([*command, *flags, "hrm.c", "-o", _LIBRARY, "-lm"], folder)
            return (folder / _LIBRARY).read_bytes()
        except (InputError, OSError) as error:
            raise InputError(
                f"{what}: its C source can not be compiled ({error}); try another compiler: CC=…"
            ) from None


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    """What a command prints. InputError: it failed, in its first words about that."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=_SECONDS, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{command[0]} does not run: {printable(str(error))}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        why = next((line for line in lines if "error" in line), lines[0] if lines else f"exit {done.returncode}")
        raise InputError(printable(f"{command[0]}: {why.strip()}"))
    return done.stdout.decode(errors="replace")


def _load(library: bytes, what: object) -> ctypes.CDLL:
    """Load from a folder that nobody else can write, and leave nothing there."""
    with tempfile.TemporaryDirectory(prefix="hrm-edge-c-", ignore_cleanup_errors=True) as scratch:
        file = Path(scratch) / _LIBRARY
        file.write_bytes(library)
        try:
            return ctypes.CDLL(str(file))
        except OSError as error:
            raise InputError(f"{what}: what was compiled does not load ({printable(str(error))})") from None
