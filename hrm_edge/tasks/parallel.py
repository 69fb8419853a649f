"""Many puzzles on all cores, the same ones however many cores there are."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from ..progress import Progress
from .base import Task, Tokens

_SERIAL_SECONDS = 1.0  # starting worker processes costs about this much
_ATTEMPTS = 1000  # for one puzzle that is not in the set yet

Pair = tuple[Tokens, Tokens]


def generate_distinct(
    task: Task,
    n: int,
    seed: int,
    difficulty: str = "ordinary",
    processes: int | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``n`` different questions and their answers, int32[n, S] each; ``progress`` counts them.

    Puzzle i depends on (task, difficulty, seed, i) alone, so neither ``processes`` nor ``n`` changes it (a
    puzzle that repeats an earlier one is drawn again). InputError when the board is too small to have so many, or
    the memory to hold them.
    """
    task.check_difficulty(difficulty)
    if n < 1 or seed < 0:
        raise InputError(f"cannot generate {n} puzzles from seed {seed}: at least 1 puzzle, and a seed from 0 up")
    _require_room(task, n)
    pairs: dict[bytes, Pair] = {}
    for index, (question, answer) in enumerate(_drawn(task, n, seed, difficulty, processes or usable_cores())):
        attempt = 0
        while question.tobytes() in pairs:
            attempt += 1
            if attempt > _ATTEMPTS:
                raise InputError(
                    f"{task.name} has too few {difficulty} puzzles: found {index} different ones, not {n}"
                )
            question, answer = task.generate_one(_rng(task, seed, difficulty, index, attempt), difficulty)
        pairs[question.tobytes()] = question, answer
        if progress:
            progress("puzzles", len(pairs), n)
    questions, answers = (np.stack(side).astype(np.int32) for side in zip(*pairs.values(), strict=True))
    return questions, answers


def _require_room(task: Task, n: int) -> None:
    """InputError where the arrays of ``n`` puzzles alone take more than this machine's memory."""
    needed, memory = n * task.seq_len * 8, machine_memory()
    if needed > memory:
        raise InputError(
            f"{n} {task.name} puzzles take at least {needed // 10**9} GB, as all are held until the last is made, "
            f"and this machine has {memory // 10**9} GB of memory; ask for fewer"
        )


def machine_memory() -> int:
    """Bytes of memory that this machine has; a terabyte where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # there is no sysconf on Windows
        return 10**12


def usable_cores() -> int:
    """Cores this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _rng(task: Task, seed: int, difficulty: str, index: int, attempt: int = 0) -> np.random.Generator:
    # Task and difficulty are part of the entropy, so that an easy set shares no boards with an ordinary one.
    entropy = [seed, zlib.crc32(f"{task.name} {difficulty}".encode())]
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(index, attempt)))


def _range(task: Task, seed: int, difficulty: str, indices: range) -> list[Pair]:
    return [task.generate_one(_rng(task, seed, difficulty, index), difficulty) for index in indices]


def _drawn(task: Task, n: int, seed: int, difficulty: str, processes: int) -> Iterator[Pair]:
    """Puzzles 0..n−1 in order, repetitions included."""
    # The first ones are made here, until they have cost as much as starting workers would.
    begin, done = time.monotonic(), 0
    while done < n and (processes == 1 or time.monotonic() - begin < _SERIAL_SECONDS):
        yield from _range(task, seed, difficulty, range(done, done + 1))
        done += 1
    size = max(1, min(64, (n - done) // (processes * 8)))
    chunks = [range(i, min(i + size, n)) for i in range(done, n, size)]
    if not chunks:
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Fresh processes, because a fork of one whose libraries run threads (torch's do) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_ignore_interrupt)
    try:
        repeat = itertools.repeat
        with main_left_out(task):
            parts = pool.map(_range, repeat(task), repeat(seed), repeat(difficulty), chunks)
        for part in parts:
            yield from part
    finally:
        pool.shutdown(cancel_futures=True)


_hiding = threading.Lock()


@contextlib.contextmanager
def main_left_out(task: Task) -> Iterator[None]:
    """A block in which processes start without running the user's script anew, unless it defines the task."""
    if type(task).__module__ == "__main__":
        yield
        return
    with _hiding:  # or one thread would take for the script's what another has hidden
        main = vars(sys.modules["__main__"])
        hidden = {str(name): main[name] for name in ("__file__", "__spec__") if name in main}
        main["__spec__"] = None
        main.pop("__file__", None)
        try:
            yield
        finally:
            main.update(hidden)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
