"""Peak memory of an artifact: a fresh process loads it, solves once and reports its own peak.

In one process the engines' peaks could not be told apart, hence `python -m hrm_edge.measure.memory`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..text import echo_json
from .artifact import open_artifact

_LONGEST = 900  # seconds; `torch.compile` at paper size takes minutes


def peak_memory(path: Path | str, *, batch: int, threads: int, compiled: bool = False) -> tuple[float | None, str]:
    """(peak resident memory in MB of a process that does nothing else, why not when it is None).

    The whole process counts: the interpreter, the backend's libraries, the weights and their work space.
    """
    arguments = [json.dumps({"path": str(path), "batch": batch, "threads": threads, "compiled": compiled})]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hrm_edge.measure.memory", *arguments],
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"did not finish within {_LONGEST} s"
    try:
        peak = json.loads(done.stdout.splitlines()[-1])["peak_rss_mb"]
    except (IndexError, ValueError, KeyError):
        return None, (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
    return peak, "" if peak is not None else "this system does not tell a process its peak memory"


def own_peak_mb() -> float | None:
    """This process's peak resident memory, or None where the system does not tell."""
    try:
        # Not getrusage on Linux: its figure also remembers the parent's size from before the exec.
        status = Path("/proc/self/status").read_text()
        kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024 / 1e6
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main(arguments: list[str]) -> None:
    """Solve a batch of empty boards for two segments and print `{"peak_rss_mb": …}`."""
    wanted = json.loads(arguments[0])
    engine = open_artifact(wanted["path"], wanted["threads"], wanted["compiled"]).engine
    boards = np.full((wanted["batch"], engine.task.seq_len), engine.task.blank, np.int32)
    # Said although they are the default: an engine that kept some puzzles' embeddings insists.
    identifiers = np.zeros(len(boards), np.int32)
    engine.solve(boards, max_think_steps=2, halt="fixed", puzzle_identifiers=identifiers)
    echo_json({"peak_rss_mb": own_peak_mb()})


if __name__ == "__main__":
    main(sys.argv[1:])
