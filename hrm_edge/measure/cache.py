"""A cache of answers, keyed by the content of everything they depend on."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..data.puzzles import PuzzleSet
from ..files import cache_folder, sha256, write_atomically
from ..packages import version_of
from ..progress import announce
from ..runtimes import Answers
from ..tasks import Task
from .arithmetic import cpu_arithmetic

# Of the answers to n puzzles of S cells: type, and shape behind n.
_FIELDS: dict[str, tuple[type, Callable[[int], tuple[int, ...]]]] = {
    "tokens": (np.int32, lambda length: (length,)),
    "steps": (np.int32, lambda length: ()),
    "halted": (np.bool_, lambda length: ()),
    "q": (np.float32, lambda length: (2,)),
}
_DIGEST_BYTES = 32

# What computes answers, or writes what computes them: rooms of this package, and what they stand on.
_ROOMS = ("exporters", "measure", "models", "runtimes", "solve", "tasks")
_GROUND = ("halting", "identifiers", "precision")
_PACKAGES = ("numpy", "torch", "onnx", "onnxscript")  # a backend's version is in the key of who asks that backend


def cached_answers(kind: str, key: dict[str, Any], puzzles: PuzzleSet, compute: Callable[[], Answers]) -> Answers:
    """`compute()`, or what it gave for the same puzzles and JSON `key` before; traces are not kept.

    Damaged or truncated files, and those that do not hold these puzzles' answers, are computed again; a cache
    folder that cannot be written is done without.
    """
    file = cache_file(kind, key, puzzles)
    kept = read_answers(file, puzzles)
    if kept is not None:
        return kept
    answers = compute()
    try:
        write_atomically(file, _to_bytes(answers))
    except OSError as error:
        announce(f"{kind} answers not cached in {file.parent} ({error.strerror})")
    return answers


def cache_file(kind: str, key: dict[str, Any], puzzles: PuzzleSet) -> Path:
    """The file that holds the answers of this key, whether it is there or not.

    What all answers depend on is added to the key: the puzzles, the code, its packages and the kind of CPU.
    """
    whole = {
        **key,
        "puzzles": puzzles.content_hash(),
        "code": [code_hash(), _task_code(puzzles.task)],  # what a task without code is, its puzzles' hash covers
        "packages": {name: version_of(name) for name in _PACKAGES},
        "cpu": cpu_arithmetic(),
    }
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return cache_folder() / kind / f"{digest}.answers"


def read_answers(file: Path, puzzles: PuzzleSet) -> Answers | None:
    """Cached answers to these puzzles, or None when there are none to trust."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, archive = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(archive).digest() != digest:
        return None
    try:
        with np.load(io.BytesIO(archive), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _FIELDS}
    except (KeyError, OSError, ValueError, zipfile.BadZipFile):  # whole, but not what is kept here today
        return None
    for name, (kind, shape) in _FIELDS.items():
        if arrays[name].dtype != kind or arrays[name].shape != (len(puzzles), *shape(puzzles.task.seq_len)):
            return None
    return Answers(**arrays)


# -- the code that answers depend on -------------------------------------------------------------------


@functools.cache
def code_hash() -> str:
    """SHA-256 over everything in this package that computes answers, or writes what computes them."""
    digest = hashlib.sha256()
    for file in code_files():
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def code_files() -> list[Path]:
    """The files that :func:`code_hash` is of, in an order of their own."""
    package = __package__.rpartition(".")[0]
    found = []
    for name in _ROOMS:
        room = importlib.util.find_spec(f"{package}.{name}")
        assert room is not None
        for folder in room.submodule_search_locations or ():
            found += sorted(Path(folder).rglob("*.py"))
    return found + [Path(__file__).parents[1] / f"{name}.py" for name in _GROUND]


def _task_code(task: Task) -> list[str]:
    """Of a task that does not ship: the files that its class and those above it stand in."""
    package = __package__.rpartition(".")[0]
    modules = [kind.__module__ for kind in type(task).__mro__ if not kind.__module__.startswith(f"{package}.")]
    files = {inspect.getsourcefile(sys.modules[name]) for name in modules if hasattr(sys.modules[name], "__file__")}
    return sorted(sha256(Path(file)) for file in files if file is not None and Path(file).is_file())


# -- to bytes ------------------------------------------------------------------------------------------


def _to_bytes(answers: Answers) -> bytes:
    """An npz behind its own SHA-256, so that any damage at all shows before numpy parses a byte."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(answers, name) for name in _FIELDS})
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()
