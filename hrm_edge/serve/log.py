"""What libraries log, as lines of ours: their own handlers would print whatever a stranger sent."""

from __future__ import annotations

import logging

from ..errors import HrmEdgeError
from ..progress import announce
from .asking import Tell


class Told(logging.Handler):
    """Warnings as one line each; of what was thrown `tell` is told."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._tell(record.exc_info[1])
        else:
            announce(str(HrmEdgeError(record.getMessage())))


def log_to_lines(tell: Tell) -> None:
    """From here on, for the whole program, which is a server."""
    root = logging.getLogger()
    root.handlers = [Told(tell)]
    root.setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
