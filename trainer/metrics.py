"""What a run tells while it works: progress with an ETA, JSONL metrics, TensorBoard where installed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskProgressColumn

from ..errors import InputError
from ..files import read_text, write_atomically
from ..progress import bar, say

METRICS = "metrics.jsonl"


class Metrics:
    """Appends to ``metrics.jsonl``; on resume, lines past the saved step are dropped, as they are run again.

    ``quiet`` is every process but the first, which writes and prints for all.
    """

    def __init__(self, folder: Path, step: int, quiet: bool = False):
        self.quiet = quiet
        self.progress: Progress | None = None
        if quiet:
            return
        path = folder / METRICS
        kept = []
        if path.exists():
            for line in read_text(path).splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue  # the line a kill cut off
        write_atomically(path, "".join(line + "\n" for line in kept))
        self.file = path.open("a", buffering=1)
        self.board = _tensorboard(folder)
        if sys.stderr.isatty():
            self.progress = bar(TaskProgressColumn())
            self.bar = self.progress.add_task("training", total=1.0)
            self.progress.start()
        self.started = time.monotonic()
        self.first: float | None = None

    def write(self, row: dict[str, Any], done: float) -> None:
        """Record one row (with its ``step``); ``done`` is the part of the run that is behind us."""
        if self.quiet:
            return
        self.file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and name != "step":
                    self.board.add_scalar(name, value, row["step"])
        shown = "  ".join(f"{name} {_readable(value)}" for name, value in row.items())
        if self.progress is not None:
            self.progress.update(self.bar, completed=done)
            self.progress.console.print(shown)
        else:
            say(f"{shown}  {self._eta(done)}")

    def _eta(self, done: float) -> str:
        if self.first is None:
            self.first = done
        gained = done - self.first
        if gained <= 0:
            return f"({done:.0%})"
        left = (time.monotonic() - self.started) * (1 - done) / gained
        return f"({done:.0%}, {left / 60:.1f} min left)"

    def say(self, text: str) -> None:
        if not self.quiet:
            self.progress.console.print(text) if self.progress else say(text)

    def close(self) -> None:
        if self.quiet:
            return
        self.file.close()
        if self.progress is not None:
            self.progress.stop()
        if self.board is not None:
            self.board.close()


def require_metrics(path: Path) -> None:
    """InputError where a file holds anything but a run's metrics, before :class:`Metrics` writes over it."""
    if not path.exists():
        return
    try:
        lines = read_text(path).splitlines()
        *whole, last = lines if lines else [""]
        if all(isinstance(json.loads(line)["step"], int) for line in whole) and (not last or last[0] == "{"):
            return
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    raise InputError(f"{path}: holds something else than a run's metrics; choose another --output")


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_readable(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
