"""Puzzles a second of one bundle in every way of asking, measured in turns in one process.

`python tests/helpers/throughput.py BUNDLE PUZZLES [COUNT [ROUNDS]]` prints a table: medians of wall time, and of
processor time of this process, which other processes disturb less. In each round all ways answer the same COUNT
puzzles. What is *ideal* is as many plain threads as streams, each asking the engine for one puzzle after the other.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrm_edge.runtimes import Engine, HostLoop, load_engine
from hrm_edge.solve.answer import read_puzzles, solve_each
from hrm_edge.solve.scheduler import Scheduler
from hrm_edge.text import echo_json

STREAMS, BATCH = 2, 16
Way = Callable[[np.ndarray], None]  # answers puzzles int32[N, S]


def one_by_one(engine: Engine) -> Way:
    def run(puzzles: np.ndarray) -> None:
        for tokens in puzzles:
            engine.solve(tokens[None])

    return run


def side_by_side(engine: Engine) -> Way:
    def run(puzzles: np.ndarray) -> None:
        waiting = iter(puzzles)  # whose next() is one step of the interpreter

        def work() -> None:
            for tokens in waiting:
                engine.solve(tokens[None])

        threads = [threading.Thread(target=work) for _ in range(engine.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def refilled(engine: Engine) -> Way:
    """All in one call: a host loop refills its rows, a graph loop's calls wait for their slowest."""
    return lambda puzzles: engine.solve(puzzles) and None


def slowest(engine: Engine) -> Way:
    """Rows begin together and end with the slowest, as where nobody refills them."""

    def run(puzzles: np.ndarray) -> None:
        for first in range(0, len(puzzles), BATCH):
            request = engine.request(puzzles[first : first + BATCH])
            stopped = np.zeros(len(request.tokens), bool)
            with engine.flight(BATCH) as flight:
                flight.put(request.tokens, None)
                for _ in range(request.max_think_steps):
                    seen = flight.think()
                    stopped |= engine.stops(request, slice(None), seen.guess, seen.q)
                    if stopped.all():
                        break

    return run


def scheduled(engine: Engine) -> Way:
    def run(puzzles: np.ndarray) -> None:
        with Scheduler(engine) as scheduler:
            for _ in scheduler.map(puzzles):
                pass

    return run


def from_a_file(engine: Engine) -> Way:
    """What `hrm-edge solve FILE --json` does behind its start."""

    def run(puzzles: np.ndarray) -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            (Path(folder) / "p.txt").write_text("\n".join(engine.task.format_many(puzzles)))
            for solved in solve_each(engine, read_puzzles([Path(folder, "p.txt")], engine.task), warm_up=False):
                echo_json(solved.to_dict())

    return run


def main(bundle: str, file: str, count: int = 32, rounds: int = 5) -> None:
    single, double = load_engine(bundle, threads=1), load_engine(bundle, threads=STREAMS)
    streams = load_engine(bundle, threads=STREAMS, streams=STREAMS)
    ways: dict[str, Way] = {
        "one by one, 1 thread": one_by_one(single),
        f"one by one, {STREAMS} threads": one_by_one(double),
        f"all in one call, {STREAMS} threads": refilled(double),
        "ideal": side_by_side(streams),
        f"scheduler, {STREAMS} streams of 1 thread": scheduled(streams),
        f"solve from a file, {STREAMS} streams of 1 thread": from_a_file(streams),
    }
    if isinstance(double, HostLoop) and double.batch in (None, BATCH):
        wide = load_engine(bundle, threads=STREAMS)
        assert isinstance(wide, HostLoop)
        wide.slots = BATCH
        ways[f"batch {BATCH}, waiting for the slowest"] = slowest(double)
        ways[f"batch {BATCH}, refilled"] = refilled(wide)
    puzzles = np.concatenate(
        [part.questions for part in itertools.islice(read_puzzles([Path(file)], single.task), 9)]
    )
    walls: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(puzzles[:4])  # backends finish compiling
    for number in range(rounds):
        some = puzzles[number * count : (number + 1) * count]
        for name, way in ways.items():
            cpu, begin = time.process_time(), time.perf_counter()
            way(some)
            walls[name].append((time.perf_counter() - begin) / len(some))
            used[name].append((time.process_time() - cpu) / len(some))
    print(f"{Path(bundle).name}: {rounds} rounds in turns, {count} puzzles each\n")
    print("| way | puzzles/s | of ideal | processor ms a puzzle | of ideal |\n|---|---|---|---|---|")
    for name in ways:
        speed = np.median(np.array(walls["ideal"]) / np.array(walls[name]))
        spent = np.median(np.array(used["ideal"]) / np.array(used[name]))
        wall, cpu = np.median(walls[name]), np.median(used[name])
        print(f"| {name} | {1 / wall:.0f} | {speed:.2f} | {1000 * cpu:.2f} | {spent:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
