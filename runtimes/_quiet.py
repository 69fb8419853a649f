"""What native libraries print past Python, kept from the terminal."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def quiet_native() -> Iterator[None]:
    """Drop what is written to standard error meanwhile, by whatever thread: runtimes say what they are, unasked."""
    with _one_at_a_time, open(os.devnull, "w") as nowhere:
        try:
            kept = os.dup(2)
        except OSError:  # closed: nothing can be said there
            yield
            return
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
