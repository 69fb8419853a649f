"""How many streams a bundle is best asked with: measured once on the first of many puzzles, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path

import numpy as np

from ..bundle import Bundle
from ..data.formats import Rows
from ..files import cache_folder, write_atomically
from ..packages import version_of
from ..progress import Say
from ..runtimes import Engine, backends, load_engine
from ..tasks.parallel import usable_cores
from .scheduler import Scheduler

# As many puzzles at hand are worth a second engine and a second or two of measuring.
WORTH = 512

_ROUNDS, _SECONDS = 3, 0.3  # measured in turns, so that what else the machine does hits all alike
_LARGEST = 4096  # bytes of a kept choice, which has less than a hundred
_BETTER = 1.05  # by so much: one stream gives each answer sooner


def open_for_many(bundle: Bundle, threads: int | None, rows: Rows | None, say: Say) -> Engine:
    """The bundle's engine, with as many streams as answer the most puzzles: one, or one a thread.

    What was measured before is kept in the cache folder, by bundle, backend and number of threads. Else it is
    measured on ``rows``, where these are so many that it pays, and said.
    """
    most, used = threads or usable_cores(), backends().get(bundle.manifest.target)
    if used is None or most == 1 or not used.streams:
        return load_engine(bundle, threads)
    version = used.available().version
    key = [bundle.sha256, bundle.manifest.target, version, version_of("hrm-edge"), most, usable_cores()]
    file = cache_folder() / "streams" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
    if (kept := _read(file, most)) is not None:
        return load_engine(bundle, threads, streams=kept)
    single = load_engine(bundle, threads)
    if rows is None or len(rows.questions) < WORTH:
        return single
    engines = [single, load_engine(bundle, most, streams=most)]
    rates = _rates(engines, rows)
    best = 1 if rates[1] > rates[0] * _BETTER else 0
    say(
        f"one puzzle after the other: {rates[0]:.0f} a second, {most} side by side: {rates[1]:.0f}; --streams "
        f"{engines[best].streams} from now on, unless told otherwise"
    )
    with contextlib.suppress(OSError):  # it is measured again the next time
        write_atomically(file, json.dumps({"streams": engines[best].streams}) + "\n")
    return engines[best]


def _rates(engines: list[Engine], rows: Rows) -> list[float]:
    """Puzzles a second of each engine, the medians of some rounds in turns."""
    seen: list[list[float]] = [[] for _ in engines]
    row = 0
    for number in range(_ROUNDS + 1):
        for engine, rates in zip(engines, seen, strict=True):
            count, begin = 0, time.perf_counter()
            with Scheduler(engine) as scheduler:
                while (seconds := time.perf_counter() - begin) < _SECONDS:
                    picked = np.arange(row, row + 8 * engine.streams * engine.together) % len(rows.questions)
                    row += len(picked)
                    identifiers = rows.identifiers
                    asked = (
                        {
                            "tokens": rows.questions[each],
                            "puzzle_identifier": None if identifiers is None else identifiers[each],
                        }
                        for each in picked
                    )
                    count += sum(1 for _ in scheduler.map(asked, ordered=False))
            if number:  # the first time backends finish compiling
                rates.append(count / seconds)
    return [float(np.median(rates)) for rates in seen]


def _read(file: Path, most: int) -> int | None:
    """What was kept, where it can be: the cache folder may hold anything."""
    try:
        with file.open("rb") as opened:
            kept = json.loads(opened.read(_LARGEST)).get("streams")
    except (OSError, ValueError, RecursionError, AttributeError):
        return None
    return kept if type(kept) is int and kept in (1, most) else None
