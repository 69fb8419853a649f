"""A cold start: a fresh process imports, opens, compiles and answers, and tells how long each took and its memory.

In one process the engines could not be told apart, hence `python -m hrm_edge.measure.cold`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_text
from ..text import echo_json

_LONGEST = 900  # seconds; `torch.compile` at paper size takes minutes
STAGES = ("start", "import", "open", "compile", "first")


@dataclass(frozen=True)
class ColdStart:
    """One process that did nothing else.

    Seconds, by the clock and of its CPU time: ``start`` of the interpreter and of hrm-edge, ``import`` of the
    backend's library, ``open`` of the artifact (its files are hashed), ``compile`` of its graphs (a C library or a
    TensorRT engine that is kept is loaded), ``first`` answer: two segments of empty boards. Memory in MB (10⁶
    bytes), resident: ``bare`` with the library loaded and nothing opened, ``peak`` at the end; None where the
    system does not tell.
    """

    seconds: dict[str, float]
    cpu: dict[str, float]
    bare_rss_mb: float | None
    peak_rss_mb: float | None

    @property
    def total(self) -> float:
        """Seconds from nothing to the first answer."""
        return sum(self.seconds.values())

    @property
    def above_bare_mb(self) -> float | None:
        """What weights, compiled graphs and their work take beside the library itself."""
        if self.peak_rss_mb is None or self.bare_rss_mb is None:
            return None
        return self.peak_rss_mb - self.bare_rss_mb


def start_cold(
    path: Path | str, *, batch: int, threads: int, compiled: bool = False
) -> tuple[ColdStart | None, str]:
    """(what a process of its own told, why not when it is None). Nothing kept is read where that can be."""
    from ..runtimes import backends

    wanted = {"path": str(path), "batch": batch, "threads": threads, "compiled": compiled, "begin": time.time()}
    backend = backends().get(_target(Path(path)))
    forgets = {"HRM_EDGE_CACHE": os.devnull} if backend is not None and backend.cold_without_cache else {}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hrm_edge.measure.cold", json.dumps(wanted)],
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
            env={**os.environ, **forgets},
        )
    except subprocess.TimeoutExpired:
        return None, f"did not finish within {_LONGEST} s"
    try:
        return ColdStart(**json.loads(done.stdout.splitlines()[-1])), ""
    except (IndexError, ValueError, TypeError):
        return None, (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]


def peak_memory(path: Path | str, *, batch: int, threads: int, compiled: bool = False) -> tuple[float | None, str]:
    """(peak resident memory in MB of a process that does nothing else, why not when it is None).

    The whole process counts: the interpreter, the backend's libraries, the weights and their work space.
    """
    cold, why_not = start_cold(path, batch=batch, threads=threads, compiled=compiled)
    if cold is None:
        return None, why_not
    return (
        cold.peak_rss_mb,
        "" if cold.peak_rss_mb is not None else "this system does not tell a process its memory",
    )


def own_peak_mb() -> float | None:
    """This process's peak resident memory, or None where the system does not tell."""
    if (kibibytes := _status("VmHWM:")) is not None:
        # Not getrusage on Linux: its figure also remembers the parent's size from before the exec.
        return kibibytes * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _own_mb() -> float | None:
    kibibytes = _status("VmRSS:")
    return None if kibibytes is None else kibibytes * 1024 / 1e6


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(field)))
    except (OSError, StopIteration, ValueError):
        return None


class _Stages:
    """Ends one stage after the other, each from where the one before ended."""

    def __init__(self, begin: float) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._time, self._cpu = begin, 0.0

    def end(self, stage: str) -> None:
        now, cpu = time.time(), time.process_time()
        self.seconds[stage], self.cpu[stage] = round(max(0.0, now - self._time), 4), round(cpu - self._cpu, 4)
        self._time, self._cpu = now, cpu


def main(arguments: list[str]) -> None:
    """Print a :class:`ColdStart` as one JSON object."""
    import numpy as np

    from .artifact import is_bundle, require_checkpoint

    wanted: dict[str, Any] = json.loads(arguments[0])
    stages = _Stages(wanted.get("begin", time.time()))
    stages.end("start")
    if is_bundle(wanted["path"]):
        from ..bundle import open_bundle
        from ..runtimes import backends, load_engine

        target = _target(Path(wanted["path"]))
        if target in backends():
            backends()[target].available()  # which imports its library
        stages.end("import")
        bare = _own_mb()
        bundle = open_bundle(wanted["path"])
        stages.end("open")
        engine = load_engine(bundle, wanted["threads"])
    else:
        require_checkpoint(wanted["path"])
        import torch

        from ..models import load_checkpoint
        from ..models.engine import TorchEngine

        torch.set_num_threads(wanted["threads"])
        stages.end("import")
        bare = _own_mb()
        checkpoint = load_checkpoint(wanted["path"])
        stages.end("open")
        engine = TorchEngine(checkpoint, wanted["compiled"])
    stages.end("compile")
    boards = np.full((wanted["batch"], engine.task.seq_len), engine.task.blank, np.int32)
    # Said although they are the default: an engine that kept some puzzles' embeddings insists.
    identifiers = np.zeros(len(boards), np.int32)
    engine.solve(boards, max_think_steps=2, halt="fixed", puzzle_identifiers=identifiers)
    stages.end("first")
    echo_json({"seconds": stages.seconds, "cpu": stages.cpu, "bare_rss_mb": bare, "peak_rss_mb": own_peak_mb()})


def _target(path: Path) -> str:
    """What a bundle was built for, as its manifest says before anything is checked."""
    from ..bundle import MANIFEST

    try:
        return str(json.loads(read_text(path / MANIFEST)).get("target"))
    except (OSError, ValueError, AttributeError, InputError):
        return ""


if __name__ == "__main__":
    main(sys.argv[1:])
