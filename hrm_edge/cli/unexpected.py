"""An exception that nothing here expects: told in one line, with its traceback where `HRM_EDGE_DEBUG` asks for it.

Tracebacks quote what was read, so they too go out through the sanitiser.
"""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections.abc import Iterator

from ..errors import UNEXPECTED, HrmEdgeError
from ..progress import announce, say


def tell(error: BaseException) -> int:
    """Say what happened, where, and how to report it; returns the exit code."""
    if os.environ.get("HRM_EDGE_DEBUG", "0") not in ("", "0"):
        for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
            say(line)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    what = f"{type(error).__name__}{where}: {error}" if str(error) else f"{type(error).__name__}{where}"
    announce(
        str(
            HrmEdgeError(
                f"{what}; that is a fault of hrm-edge, not yours: report it in its repository with the command and "
                "what it prints under HRM_EDGE_DEBUG=1"
            )
        )
    )
    return UNEXPECTED


@contextlib.contextmanager
def told_of_threads() -> Iterator[None]:
    """What ends a thread is told in the same way, and ends it alone."""
    before = threading.excepthook

    def hook(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
            tell(found.exc_value)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
