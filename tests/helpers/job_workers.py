"""Stand-ins for a job's workers: a toy engine each, which is lost where a test says so."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import toys

import hrm_edge as he
from hrm_edge.jobs import here
from hrm_edge.jobs.answers import Answered, Asking, answer
from hrm_edge.jobs.crew import Asked, Piece, WorkerLost
from hrm_edge.solve.scheduler import Scheduler

ROWS, SEED, SHARD = 150, 5, 16  # of the puzzles that jobs are tried on

# Told what a worker is at ("start", or its piece) and how many such moments there were: whether it is lost there.
Fate = Callable[[Any, int], bool]


class ToyWorker:
    def __init__(self, asked: Asked, asking: Asking, fate: Fate, log: list[Piece], count: Iterator[int]) -> None:
        self.asked, self.asking, self.fate, self.log, self.count = asked, asking, fate, log, count
        self.scheduler: Any = None

    def start(self) -> None:
        self._live("start")
        self.scheduler = Scheduler(toys.host_engine())

    def answer(self, piece: Piece) -> Answered:
        self._live(piece)
        made = answer(self.scheduler, *self.asked(piece), self.asking)
        self._live(piece)  # as lost with its answers as without
        self.log.append(piece)
        return made

    def stop(self) -> None:
        if self.scheduler is not None:
            self.scheduler.close(drain=False)

    def _live(self, at: Any) -> None:
        if self.fate(at, next(self.count)):
            self.stop()
            raise WorkerLost(f"killed at {at}")


def crew(
    asking: Asking, workers: int = 3, fate: Fate = lambda at, count: False, log: list[Piece] | None = None
) -> Callable[[Asked], Sequence[ToyWorker]]:
    count = itertools.count()
    return lambda asked: [ToyWorker(asked, asking, fate, [] if log is None else log, count) for _ in range(workers)]


@contextmanager
def in_place_of_engines(fate: Fate = lambda at, count: False) -> Iterator[list[Piece]]:
    """What `solve_file` has for its workers inside: these. The pieces that they answered."""
    import pytest

    from hrm_edge.jobs import workers

    log: list[Piece] = []

    @contextmanager
    def stand_ins(bundle: Any, asking: Asking, distributed: Any, count: int | None, address: Any) -> Iterator[Any]:
        yield crew(asking, count or 3, fate, log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "workers_of", stand_ins)
        yield log


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name != "in.csv")


def solve(
    bundle: Any, place: Path, name: str = "out.jsonl", fate: Fate = lambda at, count: False, **options: Any
) -> Any:
    """What came of the puzzles in ``place``, and the pieces that were answered."""
    with in_place_of_engines(fate) as log:
        return he.solve_file(bundle, place / "in.csv", place / name, **options), log


# -- in processes of their own ---------------------------------------------------------------------------

DEADLY = 37  # the row that ends whoever begins it


def deadly(*given: Any) -> None:
    """A local worker's process, whose engine is ended by one row as by the kernel that lacks memory."""
    row = toys.puzzles(ROWS, seed=SEED)[DEADLY]

    def start(tokens: np.ndarray) -> Any:
        if (tokens == row).all(axis=1).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return toys.start(tokens)

    _worked(start, *given)


def slow(*given: Any) -> None:
    """A local worker's process that takes a while over each row."""

    def start(tokens: np.ndarray) -> Any:
        time.sleep(0.01)
        return toys.start(tokens)

    _worked(start, *given)


def _worked(start: Any, *given: Any) -> None:
    here.load_engine = lambda bundle, threads: toys.HostLoop(
        toys.TASK, toys.HALT_MAX_STEPS, start, toys.segment, backend="toy"
    )
    here._work(*given)
