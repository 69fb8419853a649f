"""What a million puzzles cost on 1, 8 and 64 nodes, from what is measured here: `python million.py BUNDLE`.

CPU time is measured, as a machine that does other work too has no wall time to go by; what takes no longer for more
puzzles (opening the bundle, starting processes) is told apart by asking for few and for many.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import hrm_edge as he
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles, save_puzzles
from hrm_edge.errors import HrmEdgeError
from hrm_edge.jobs.answers import Asking
from hrm_edge.jobs.run import FileJob
from hrm_edge.jobs.workers import workers_of

MILLION = 1_000_000
NODES = (1, 8, 64)
FEW = 256


def alone(bundle: Path, puzzles: PuzzleSet, rounds: int) -> list[float]:
    """CPU-seconds a puzzle of one engine with one thread, asked one by one: a figure a round."""
    engine = he.load_engine(bundle, threads=1)
    engine.solve(puzzles.questions[:1])
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        for question in puzzles.questions:
            engine.solve(question[None])
        found.append((time.process_time() - begin) / len(puzzles))
    return found


def job(bundle: Path, source: Path, output: Path, distributed: str | None, workers: int) -> dict[str, float]:
    """CPU-seconds of one job: this process's with those of its own workers, and those of the actors below it."""
    opened, asking, actors, looking = he.open_bundle(bundle), Asking(), {}, [0.0]

    def look(what: str, done: int, total: int) -> None:
        if distributed is not None:
            begin = time.process_time()
            actors.update(actors_below())
            looking[0] += time.process_time() - begin

    with workers_of(opened, asking, distributed, workers, "local" if distributed else None) as made:
        begin, ended = time.process_time(), of_ended()
        FileJob(opened, [source], output, made, asking, replace=True, progress=look).run()
        own = time.process_time() - begin - looking[0]
        if distributed is None:
            own += of_ended() - ended
    return {"own": own, "actors": sum(actors.values())}


def of_ended() -> float:
    """CPU-seconds of the processes below this one that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def actors_below() -> dict[int, float]:
    """CPU-seconds of the actors' processes so far."""
    import psutil

    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "Actor" in " ".join(process.cmdline()):
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
    return found


def a_puzzle(bundle: Path, folder: Path, distributed: str | None, workers: int, n: int) -> dict[str, float]:
    """CPU-seconds a puzzle, and those that a job takes however few there are."""
    output = folder / f"{distributed or 'here'}{workers}.csv"
    few = job(bundle, folder / "few.csv", folder / "few-answers.csv", distributed, workers)
    many = job(bundle, folder / "many.csv", output, distributed, workers)
    slopes = {name: (many[name] - few[name]) / (n - FEW) for name in few}
    return {**slopes, "start": sum(few.values()) - FEW * sum(slopes.values())}


class Instant:
    """In an actor's place: it says nothing of its rows, at once."""

    def open(self, files: dict, sha256: str, version: str, asking: Asking) -> str:
        return "instant, process 0"

    def answer(self, questions, identifiers) -> dict:
        return {
            **{name: [0] * len(questions) for name in ("steps", "variant", "segments")},
            **{name: [False] * len(questions) for name in ("halted", "verified")},
            "tokens": questions,
            "errors": [""] * len(questions),
        }


def handing_out(bundle: Path, folder: Path, lines: list[str], n: int) -> float:
    """CPU-seconds a puzzle of the one process that reads, hands out and writes, by actors that take no time: beside
    slow ones, what it does while it waits would count too."""
    from hrm_edge.jobs import ray

    actor, ray.Actor = ray.Actor, Instant
    try:
        for name, count in (("few", FEW), ("many", n)):
            rows = [lines[row % len(lines)] for row in range(count)]
            (folder / f"{name}-plain.csv").write_text("question\n" + "\n".join(rows) + "\n")
        few, many = (
            job(bundle, folder / f"{name}-plain.csv", folder / f"{name}-none.csv", "ray", 2)["own"]
            for name in ("few", "many")
        )
    finally:
        ray.Actor = actor
    return (many - few) / (n - FEW)


def million(answering: float, coordinating: float, cores: int) -> list[dict[str, float]]:
    """Extrapolated: nodes of so many cores, each core as fast as one here, and one process that hands out."""
    rows = []
    for nodes in NODES:
        all_cores, one = MILLION * answering / (nodes * cores), MILLION * coordinating
        hours = MILLION * (answering + coordinating) / 3600
        rows.append({"nodes": nodes, "seconds": max(all_cores, one), "core_hours": hours, "of_it_one_process": one})
    return rows


def measured(bundle: Path, n: int, rounds: int, cores: int) -> dict[str, Any]:
    """What is measured here of ``n`` puzzles, and extrapolated to nodes of so many cores."""
    puzzles = generate_puzzles(he.load_engine(bundle, threads=1).task, n, seed=2026)
    kinds = [(None, 1), (None, 2)]
    if importlib.util.find_spec("ray") is not None:
        kinds += [("ray", 1), ("ray", 2)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_puzzles(puzzles, folder / "many.csv")
        few = generate_puzzles(puzzles.task, FEW, seed=2026)
        save_puzzles(few, folder / "few.csv")
        alone_each = alone(bundle, few, rounds)
        found = {
            f"{distributed or 'here'}, {workers} workers": a_puzzle(bundle, folder, distributed, workers, n)
            for distributed, workers in kinds
        }
        answers = {
            (folder / f"{distributed or 'here'}{workers}.csv").read_bytes() for distributed, workers in kinds
        }
        assert len(answers) == 1, "who answers must not change a byte"
        lines = puzzles.task.format_many(puzzles.questions)
        coordinating = handing_out(bundle, folder, lines, 40 * n) if kinds[2:] else 0.0
    last = list(found.values())[-1]
    told = {
        "engine alone": statistics.median(alone_each),
        "rounds": sorted(alone_each),
        **found,
        "handing out": coordinating,
    }
    answering = last["actors"] or last["own"]
    return {**told, "million": million(answering, coordinating, cores)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--n", type=int, default=1024, help=f"puzzles of a measurement, more than {FEW}")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--cores", type=int, default=16, help="of a node that is extrapolated to")
    given = arguments.parse_args()
    if given.n <= FEW:
        arguments.error(f"--n {given.n}: takes more than {FEW}, which are measured as well")
    if given.rounds < 1 or given.cores < 1:
        arguments.error("--rounds and --cores: take at least 1")
    try:
        print(json.dumps(measured(given.bundle, given.n, given.rounds, given.cores), indent=1))
    except (HrmEdgeError, OSError) as error:
        arguments.exit(2, f"{arguments.prog}: {error}\n")


if __name__ == "__main__":
    main()
