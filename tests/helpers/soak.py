"""Random requests from several threads through every backend usable here: does each get its own puzzles' answers?

`python tests/helpers/soak.py MINUTES` runs until the time is over and prints a table; the suite takes some hundred.
A request has any number of rows, limit, halting rule and trace; some are wrong on purpose, and some are cancelled
at any moment, by an exception in their thread. What is right is told by the numpy twin of the network, asked
beforehand. Memory is compared with what it was after the first tenth.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import toys

from hrm_edge.errors import InputError
from hrm_edge.runtimes import HALT_MODES, Answers, Engine, backends, load_engine

THREADS = 8
LIMITS = (1, 2, 3, 5, toys.HALT_MAX_STEPS, toys.HALT_MAX_STEPS + 3)
PUZZLES = toys.puzzles(40)
EXPECTED = {(halt, k): toys.host_engine().solve(PUZZLES, k, halt, True) for halt in HALT_MODES for k in LIMITS}
OUTCOMES = {"answered", "refused", "cancelled", "ended before"}
WRONG = (
    {"tokens": PUZZLES[:2, :-1]},
    {"tokens": PUZZLES[:2] + 100},
    {"tokens": PUZZLES[:2].astype(float)},
    {"halt": "sometimes"},
    {"max_think_steps": 0},
)


class Cancelled(BaseException):
    """What cuts a request off, as Ctrl-C or a server's time limit does."""


@dataclass
class Soak:
    """Counts by what came of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    grown_mb: float = 0.0


def engines(folder: Path) -> dict[str, Engine]:
    """One engine for each backend usable here and each loop, of toy bundles."""
    made = {}
    for target in ("onnx", "openvino"):
        if backends()[target].available().usable:
            for loop in ("host", "graph"):
                name = f"{target}-{loop}"
                made[name] = load_engine(toys.write_toy_bundle(folder / name, target, loop), threads=1)
    return made


def soak(engine: Engine, requests: int | None = None, seconds: float = float("inf"), seed: int = 0) -> Soak:
    """Ask ``engine`` from all threads at once until so many requests are done or so long has passed."""
    found, lock = Soak(), threading.Lock()
    end, memory = time.monotonic() + seconds, [0.0]
    begun = time.monotonic()

    def work(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        done = 0
        while time.monotonic() < end and (requests is None or done < requests // THREADS):
            done += 1
            outcome = _one(engine, rng)
            part = (time.monotonic() - begun) / seconds if requests is None else done * THREADS / requests
            with lock:
                found.outcomes[outcome if outcome in OUTCOMES else "wrong"] += 1
                if outcome not in OUTCOMES and len(found.errors) < 10:
                    found.errors.append(outcome)
                if not memory[0] and part >= 0.1:
                    memory[0] = _resident_mb()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.grown_mb = _resident_mb() - memory[0]
    return found


def _one(engine: Engine, rng: np.random.Generator) -> str:
    """One request: one of OUTCOMES, or a sentence on what went wrong."""
    rows = rng.integers(0, len(PUZZLES), rng.integers(0, 10))
    halt, limit, trace = str(rng.choice(HALT_MODES)), int(rng.choice(LIMITS)), bool(rng.integers(2))
    request = {"tokens": PUZZLES[rows], "max_think_steps": limit, "halt": halt, "trace": trace}
    bad = rng.random() < 0.1
    if bad:
        request |= WRONG[rng.integers(len(WRONG))]
    elif rng.random() < 0.1:
        return _cut_off(engine, request, rng.uniform(0, 0.003))
    try:
        answers = engine.solve(**request)
    except InputError as error:
        return "refused" if bad else f"a right request was refused: {error}"
    except Exception as error:
        return f"a traceback: {type(error).__name__}: {error}"
    if bad:
        return "a wrong request was answered"
    return _apart(answers, EXPECTED[halt, limit], rows, trace) or "answered"


def _cut_off(engine: Engine, request: dict[str, Any], after: float) -> str:
    """A request into which :class:`Cancelled` is thrown after so many seconds: it ends by that, or had ended."""
    timer = threading.Timer(after, _throw, (threading.get_ident(),))
    ended = False
    try:
        timer.start()
        engine.solve(**request)
        ended = True
        while timer.is_alive():
            time.sleep(0.001)
        time.sleep(0.001)  # it is raised between two steps of Python's own
    except Cancelled:
        return "ended before" if ended else "cancelled"
    except Exception as error:
        return f"a traceback of one cancelled: {type(error).__name__}: {error}"
    return "a cancelled request never heard of it"


def _throw(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Cancelled))


def _apart(answers: Answers, expected: Answers, rows: np.ndarray, trace: bool) -> str | None:
    for name in ("tokens", "steps", "halted", "q"):
        if not np.array_equal(getattr(answers, name), getattr(expected, name)[rows]):
            return f"{name} of rows {rows.tolist()} are not these puzzles' own"
    if trace and len(rows):
        assert answers.trace is not None
        assert expected.trace is not None
        if not np.array_equal(answers.trace, expected.trace[: len(answers.trace), rows]):
            return f"the trace of rows {rows.tolist()} is not these puzzles' own"
    return None


def _resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        made = engines(Path(folder))
        print("| engine | requests | outcomes | memory grew by |\n|---|---:|---|---:|")
        for name, engine in made.items():
            found = soak(engine, seconds=60 * minutes / len(made))
            wrong += len(found.errors)
            outcomes = ", ".join(f"{what} {count}" for what, count in sorted(found.outcomes.items()))
            print(f"| {name} | {found.outcomes.total()} | {outcomes} | {found.grown_mb:.1f} MB |", flush=True)
            print(*found.errors, sep="\n", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
