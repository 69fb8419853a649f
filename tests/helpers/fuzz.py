"""Damaged and hostile files for every reader: ``python tests/helpers/fuzz.py --inputs 1000 --seconds 600``.

Each input is a right file that was changed at random, by a seed that brings it back: a new one each time, which is
printed. A reader may accept it or refuse it in one line of our own errors; anything else, and anything slow or
greedy, is a finding, whose input is kept. Each reader runs in a process of its own with little memory, because some
end in other people's compiled code. Times are the processor's, so that other work beside it finds nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fuzz_checkpoints
import fuzz_graphs
import fuzz_puzzles
import fuzz_records

READERS = fuzz_records.READERS | fuzz_checkpoints.READERS | fuzz_puzzles.READERS | fuzz_graphs.READERS

MEMORY = 8 * 2**30  # address space of a reader's process; what is really used is reported
SLOWEST = 10.0  # seconds of the processor that an input may take, by all threads
STUCK = 300.0  # seconds in all, of one that waits for something
LONGEST = 2000  # characters of an error
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


@dataclass
class Result:
    """What came of one reader's inputs. ``findings``: what went wrong, by where, with the first input's number."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    crashed: int = 0  # in a library that is known to
    slowest: float = 0.0
    seconds: float = 0.0  # of reading; what a reader needs beforehand is not counted
    grown_mb: int = 0  # by how much its process grew after the right files were read
    findings: dict[str, int] = field(default_factory=dict)


class _TooSlow(BaseException):
    pass


def changed(name: str, seeds: list[bytes], seed: int, number: int) -> tuple[bytes, int]:
    """The input of this number, and which right file it was."""
    rng = random.Random(f"{seed}/{name}/{number}")
    which = rng.randrange(len(seeds))
    return READERS[name].mutate(rng, seeds[which], seeds), which


def _work(name: str, seed: int, first: int, inputs: int, most: float, folder: Path, kept: Path, say: Any) -> None:
    """In a process of its own: read inputs from the ``first`` on, and write what came of each batch."""
    from hrm_edge.errors import HrmEdgeError

    def too_slow(*_: object) -> None:
        raise _TooSlow

    for clock in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(clock, too_slow)
    seeds, read = READERS[name].prepare(folder)
    result = Result()
    for which, each in enumerate(seeds):
        try:
            read(each, which)
        except HrmEdgeError as error:
            result.findings[f"a right file is refused: {error}"] = -1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    for number in range(first, inputs):
        content, which = changed(name, seeds, seed, number)
        result.seconds = time.monotonic() - start
        say({"at": number, **asdict(result)})
        began = time.process_time()
        wrong = None
        signal.setitimer(signal.ITIMER_PROF, SLOWEST)
        signal.setitimer(signal.ITIMER_REAL, STUCK)
        try:
            read(content, which)
            result.accepted += 1
        except HrmEdgeError as error:
            result.refused += 1
            line = str(error)
            if "\n" in line or not line or len(line) > LONGEST:
                wrong = f"an error of {len(line)} characters, {line.count(chr(10)) + 1} lines: {line[:60]!r}"
        except _TooSlow:
            wrong = f"more than {SLOWEST:g} s of the processor, or {STUCK:g} s of waiting"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in last if "hrm_edge" in frame.filename or "/models/" in frame.filename] or last
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            wrong = f"{type(error).__name__} at {where}: {str(error).splitlines()[0][:80] if str(error) else ''}"
        finally:
            for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
                signal.setitimer(timer, 0)
        result.inputs += 1
        result.slowest = max(result.slowest, time.process_time() - began)
        if wrong is not None and wrong not in result.findings and len(result.findings) < 40:
            result.findings[wrong] = number
            (kept / f"{name.replace(' ', '-')}-{number}").write_bytes(content)
        if time.monotonic() - start > most:
            break
    result.grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    result.seconds = time.monotonic() - start
    say({"at": None, **asdict(result)})


def run(
    name: str, seed: int, inputs: int, seconds: float, kept: Path, memory: int = MEMORY, first: int = 0
) -> Result:
    """Read the changed inputs from the ``first`` up to so many, for so long at most. A reader that dies of one goes
    on behind it."""
    total = Result()
    while first < inputs and total.seconds < seconds:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
            log = Path(scratch) / "log"
            (Path(scratch) / "files").mkdir()
            child = os.fork()
            if child == 0:
                most = seconds - total.seconds
                _in_child(log, memory, name, seed, first, inputs, most, Path(scratch) / "files", kept)
            _, status = os.waitpid(child, 0)
            last = json.loads(log.read_text()) if log.exists() and log.stat().st_size else {"at": first}
            said = (Path(scratch) / "said").read_text(errors="replace").strip().splitlines()
        at = last.pop("at")
        for key in ("inputs", "accepted", "refused", "seconds"):
            setattr(total, key, getattr(total, key) + last.get(key, 0))
        total.slowest = max(total.slowest, last.get("slowest", 0.0))
        total.grown_mb = max(total.grown_mb, last.get("grown_mb", 0))
        total.findings |= {
            key: number for key, number in last.get("findings", {}).items() if key not in total.findings
        }
        if at is None:
            break
        if READERS[name].crashes and os.WIFSIGNALED(status) and os.WTERMSIG(status) in CRASHES:
            total.crashed += 1
        else:
            total.findings.setdefault(f"the process ended with {status}: {said[-1][:120] if said else ''}", at)
        total.inputs += 1
        first = at + 1
    return total


def _in_child(log: Path, memory: int, *arguments: Any) -> None:
    code = 1
    try:
        out = os.open(log.with_name("said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        # Written in place and never flushed: what a dying process wrote is still the system's to keep.
        with open(log, "w+b", buffering=0) as file:

            def say(state: dict[str, Any]) -> None:
                text = json.dumps(state).encode()
                file.seek(0)
                file.write(text)
                file.truncate(len(text))

            _work(*arguments, say)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="for each reader, or its share of so many")
    parser.add_argument("--seconds", type=float, default=600, help="of reading, for all of them")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(32), help="a new one, if none"
    )
    parser.add_argument("--only", default="", help="names of readers, with commas between them")
    parser.add_argument("--number", type=int, help="with --seed and --only: that input alone, of a finding")
    parser.add_argument("--memory", type=float, default=MEMORY / 2**30, help="GiB of address space")
    parser.add_argument(
        "--kept", type=Path, default=Path(tempfile.gettempdir()) / "hrm-edge-fuzz", help="findings' inputs"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = [name for name in READERS if not options.only or name in options.only.split(",")]
    options.kept.mkdir(parents=True, exist_ok=True)
    # What most readers import is imported once. (Not onnxruntime or OpenVINO, whose threads no fork would have.)
    for module in ("torch", "onnx", "hrm_edge.models.public", "hrm_edge.trainer"):
        importlib.import_module(module)
    if not options.json:
        print(f"seed {options.seed}")
        print(
            f"{'reader':22}{'inputs':>9}{'accepted':>10}{'refused':>9}{'slowest':>10}{'grown':>10}{'findings':>10}"
        )
    results = {}
    left = options.seconds  # what one reader does not need is the others'
    for index, name in enumerate(names):
        first = options.number or 0
        last = max(1, round(options.inputs * READERS[name].share)) if options.number is None else first + 1
        # What was slower than its share takes not all of the others'.
        seconds = max(left / (len(names) - index), options.seconds / len(names) / 2)
        memory = int(options.memory * 2**30)
        results[name] = run(name, options.seed, last, seconds, options.kept, memory, first)
        left -= results[name].seconds
        if not options.json:
            _print(name, results[name], options.seed)
    if options.json:
        print(json.dumps({name: asdict(result) for name, result in results.items()}))
    else:
        print(f"{'all':22}{sum(result.inputs for result in results.values()):>9}")
    return 1 if any(result.findings for result in results.values()) else 0


def _print(name: str, result: Result, seed: int) -> None:
    print(
        f"{name:22}{result.inputs:>9}{result.accepted:>10}{result.refused:>9}{result.slowest * 1000:>7.0f} ms"
        f"{result.grown_mb:>7} MB{len(result.findings):>10}",
        flush=True,
    )
    if result.crashed:
        print(f"    the library that reads it ended the process {result.crashed} times", flush=True)
    for what, number in result.findings.items():
        print(f"    {what}: --seed {seed} --only '{name}' --number {number}", flush=True)


if __name__ == "__main__":
    shutil.rmtree(Path(tempfile.gettempdir()) / "hrm-edge-fuzz", ignore_errors=True)
    sys.exit(main())
