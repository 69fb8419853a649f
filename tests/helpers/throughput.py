"""Puzzles a second in every way of asking, all in turns: `throughput.py BUNDLE… --checkpoint CHECKPOINT`.

Every round answers its puzzles in all ways of all bundles, and in PyTorch without halting; a ratio is a round's
own. *Ideal* is as many plain threads as streams, each asking its engine for one puzzle after the other. Where
the work is in other processes, processor time is not told. Jobs are timed by what more puzzles take longer, so that
starting is not in it. Every answer is compared with that of the engine alone.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import io
import itertools
import json
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads would spin through the others' turns

import numpy as np
from services import SECRET, Process

import hrm_edge as he
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.measure.artifact import open_artifact
from hrm_edge.measure.clock import Clock
from hrm_edge.measure.statistics import median_interval
from hrm_edge.runtimes import Engine, HostLoop, load_engine
from hrm_edge.solve.answer import read_puzzles, solve_each
from hrm_edge.solve.scheduler import Scheduler
from hrm_edge.tasks import Task
from hrm_edge.text import echo_json

STREAMS, BATCH = 2, 16
TOGETHER = 64  # puzzles of one request of the service, and of one call of PyTorch
STARTED = 64  # puzzles of a job that is begun for what starting takes
EAGER, FIXED = 8, 16  # of so many puzzles one is asked without halting, so many segments
Way = Callable[[np.ndarray], np.ndarray | None]  # answers puzzles int32[N, S]; None: in no order
ALONE, IDEAL = "engine alone, 1 thread", f"ideal: {STREAMS} plain threads, one engine each"
SLOW = "PyTorch, 16 segments"


def one_by_one(engine: Engine) -> Way:
    return lambda puzzles: np.concatenate([engine.solve(tokens[None]).tokens for tokens in puzzles])


def side_by_side(engine: Engine) -> Way:
    def run(puzzles: np.ndarray) -> np.ndarray:
        found, waiting = np.empty_like(puzzles), iter(range(len(puzzles)))  # whose next() is one step

        def work() -> None:
            for row in waiting:
                found[row] = engine.solve(puzzles[row][None]).tokens[0]

        _side_by_side(work, engine.streams)
        return found

    return run


def _side_by_side(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def refilled(engine: Engine) -> Way:
    """All in one call: a host loop refills its rows, a graph loop has a call for each."""
    return lambda puzzles: engine.solve(puzzles).tokens


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
    def run(puzzles: np.ndarray) -> np.ndarray:
        with Scheduler(engine) as scheduler:
            return np.array([outcome.tokens for outcome in scheduler.map(puzzles)])

    return run


def from_a_file(engine: Engine) -> Way:
    """What `hrm-edge solve FILE --json` does behind its start."""

    def run(puzzles: np.ndarray) -> np.ndarray:
        told = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(told):
            (Path(folder) / "p.txt").write_text("\n".join(engine.task.format_many(puzzles)))
            for solved in solve_each(engine, read_puzzles([Path(folder, "p.txt")], engine.task), warm_up=False):
                echo_json(solved.to_dict())
        return _parsed(engine.task, [json.loads(line)["answer"] for line in told.getvalue().splitlines()])

    return run


def served(task: Task, port: int) -> Way:
    """Callers as many as streams and one, each with many puzzles a request, on a kept connection."""

    def run(puzzles: np.ndarray) -> np.ndarray:
        parts = deque(range(0, len(puzzles), TOGETHER))
        texts, found = task.format_many(puzzles), [""] * len(puzzles)

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
            while True:
                try:
                    part = slice(first := parts.popleft(), first + TOGETHER)
                except IndexError:
                    break
                headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
                connection.request("POST", "/v1/solve", json.dumps({"puzzles": texts[part]}), headers)
                response = connection.getresponse()
                content = json.loads(response.read())
                assert response.status == 200, content
                found[part] = [each["answer"] for each in content["results"]]
            connection.close()

        _side_by_side(work, STREAMS + 1)
        return _parsed(task, found)

    return run


def job(bundle: Path, task: Task, distributed: str | None) -> Way:
    def run(puzzles: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder, "asked.csv"), Path(folder, "answered.jsonl")
            asked.write_text("question\n" + "\n".join(task.format_many(puzzles)) + "\n")
            address = "local" if distributed else None
            he.solve_file(bundle, asked, answered, distributed=distributed, workers=STREAMS, address=address)
            return _parsed(task, [json.loads(line)["answer"] for line in answered.read_text().splitlines()])

    return run


def eager(engine: Engine, rows: int) -> Way:
    """What one has who knows of no halting."""

    def run(puzzles: np.ndarray) -> None:
        for first in range(0, len(puzzles), rows):
            engine.solve(puzzles[first : first + rows], halt="fixed", max_think_steps=FIXED)

    return run


def _parsed(task: Task, texts: list[str]) -> np.ndarray:
    return np.array([task.parse(text) for text in texts])


@contextlib.contextmanager
def ways_of(bundle: Path) -> Iterator[dict[str, Way]]:
    single, double = load_engine(bundle, threads=1), load_engine(bundle, threads=STREAMS)
    streams = load_engine(bundle, threads=STREAMS, streams=STREAMS)
    ways: dict[str, Way] = {
        ALONE: one_by_one(single),
        f"engine alone, {STREAMS} threads": one_by_one(double),
        f"all in one call, {STREAMS} threads": refilled(double),
        IDEAL: side_by_side(streams),
        f"scheduler, {STREAMS} streams": scheduled(streams),
        f"solve from a file, {STREAMS} streams": from_a_file(streams),
    }
    if isinstance(double, HostLoop) and double.batch in (None, BATCH):
        wide = load_engine(bundle, threads=STREAMS)
        assert isinstance(wide, HostLoop)
        wide.slots = BATCH
        ways[f"batch {BATCH}, waiting for the slowest"] = slowest(double)
        ways[f"batch {BATCH}, refilled"] = refilled(wide)
    ways[f"solve -o, {STREAMS} workers"] = job(bundle, single.task, None)
    if importlib.util.find_spec("ray"):
        ways[f"solve -o --distributed ray, {STREAMS} actors"] = job(bundle, single.task, "ray")
    with contextlib.ExitStack() as stack:
        if importlib.util.find_spec("starlette"):
            server = Process(bundle, "--threads", str(STREAMS), "--streams", str(STREAMS), "--queue", "1024")
            stack.callback(server.end, signal.SIGTERM)
            ways[f"service, {STREAMS} streams"] = served(single.task, server.port)
        yield ways


class Table:
    """Seconds a puzzle by way, round by round, and how many answers were the engine's."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.walls: dict[str, list[float]] = {}
        self.used: dict[str, list[float]] = {}
        self.alike: dict[str, list[int]] = {}  # answers alike, answers
        self.waiting: list[float] = []

    def time(self, name: str, way: Way, puzzles: np.ndarray, right: np.ndarray | None) -> np.ndarray | None:
        starting, apart = 0.0, name.startswith(("service", "solve -o"))
        if name.startswith("solve -o"):
            begin = time.perf_counter()
            way(puzzles[:STARTED])
            starting = time.perf_counter() - begin
        asked = len(puzzles) - (STARTED if starting else 0)
        clock = Clock()
        found = way(puzzles)
        span = clock.stop()
        self.waiting.append(span.waiting)
        self.walls.setdefault(name, []).append((span.seconds - starting) / asked)
        self.used.setdefault(name, []).append(float("nan") if apart else span.cpu / asked)
        if found is not None and right is not None:
            same = self.alike.setdefault(name, [0, 0])
            same[0] += int((found == right).all(axis=1).sum())
            same[1] += len(right)
        return found

    def print(self, title: str, slow: list[float]) -> None:
        print(f"\n{title}: {len(self.walls[ALONE])} rounds in turns of {self.count} puzzles\n")
        print("| way | puzzles/s | 95 % | of ideal | × PyTorch | CPU ms a puzzle | answers as the engine's |")
        print("|---|---|---|---|---|---|---|")
        ideal = np.array(self.walls[IDEAL])
        for name, walls in self.walls.items():
            speeds = 1 / np.array(walls)
            low, high = median_interval(speeds.tolist())
            of, ahead = np.median(ideal / walls), np.median(np.array(slow) / walls)
            spent = 1000 * float(np.median(self.used[name]))
            alike = "{} of {}".format(*self.alike[name]) if name in self.alike else "–"
            told = "–" if np.isnan(spent) else f"{spent:.2f}"
            print(
                f"| {name} | {np.median(speeds):.0f} | {low:.0f} to {high:.0f} | {of:.2f} | {ahead:.1f} | {told} "
                f"| {alike} |"
            )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("bundles", type=Path, nargs="+")
    arguments.add_argument("--checkpoint", help="of which the bundles are, for PyTorch", required=True)
    arguments.add_argument("--data", type=Path, help="puzzles; by default generated ones")
    arguments.add_argument("--count", type=int, default=512, help="puzzles of a round")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    torch = {threads: open_artifact(given.checkpoint, threads).engine for threads in (1, STREAMS)}
    task, needed = torch[1].task, given.count * given.rounds
    if given.data:
        puzzles = np.concatenate([part.questions for part in read_puzzles([given.data], task)])
    else:
        puzzles = generate_puzzles(task, needed, seed=2026).questions
    puzzles = puzzles[np.arange(needed) % len(puzzles)]
    slow_ways = {
        f"{SLOW}, one by one": eager(torch[STREAMS], 1),
        f"{SLOW}, {TOGETHER} in a call": eager(torch[STREAMS], TOGETHER),
    }
    tables, slow = [Table(given.count) for _ in given.bundles], Table(given.count // EAGER)
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(ways_of(bundle)) for bundle in given.bundles]
        for way in itertools.chain(slow_ways.values(), *(each.values() for each in ways)):
            way(puzzles[:TOGETHER])  # backends finish compiling
        for number in range(given.rounds):
            some = puzzles[number * given.count : (number + 1) * given.count]
            for name, way in slow_ways.items():
                slow.time(name, way, some[::EAGER], None)
            for table, each in zip(tables, ways, strict=True):
                right = None
                for name, way in each.items():
                    found = table.time(name, way, some, right)
                    right = found if name == ALONE else right
    for name, walls in slow.walls.items():
        speeds = [1 / wall for wall in walls]
        low, high = median_interval(speeds)
        print(f"{name}, {STREAMS} threads: {np.median(speeds):.1f} puzzles a second, {low:.1f} to {high:.1f}")
    for bundle, table in zip(given.bundles, tables, strict=True):
        table.print(bundle.name, next(iter(slow.walls.values())))
    busy = max(each for table in [slow, *tables] for each in table.waiting)
    print(f"\nat most {busy:.0%} of a turn went by waiting for a CPU that others had")


if __name__ == "__main__":
    main()
