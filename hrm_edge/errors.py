"""The one exception family: what was wrong, where, and what to do, in one line."""

import operator
from typing import Any

from .text import printable

# Characters of a line, where a file's own text may fill pages. What is wrong comes first, what to do at the end.
_LONGEST, _HEAD, _TAIL = 1500, 1000, 400

# The exit code for what nothing here expects, EX_SOFTWARE of BSD's sysexits.h: no failed gate, no user's mistake.
UNEXPECTED = 70


class HrmEdgeError(Exception):
    """Base of every error a user can cause. ``str()`` is the one line the command line prints."""

    exit_code = 2

    def __str__(self) -> str:
        """One line whatever keys and names a file has: nothing in them breaks it or commands the terminal."""
        text = printable(super().__str__())
        return text if len(text) <= _LONGEST else f"{text[:_HEAD]} … {text[-_TAIL:]}"


class InputError(HrmEdgeError):
    """Something given to us (a puzzle, file, config, bundle, flag) is wrong. Exit code 2."""


class ArtifactError(InputError):
    """A compiled artifact gives what no network can: at a gate it fails, elsewhere the bundle is wrong."""


class GateFailed(HrmEdgeError):
    """What was built answers worse than its reference, so it is not published. Exit code 1."""

    exit_code = 1
    report: Any = None  # of a check, with every verdict, or of a gate


def require_whole(least: int, **given: Any) -> None:
    """InputError unless each of ``given`` that is not None is a whole number of at least ``least``."""
    for name, value in given.items():
        if value is None:
            continue
        try:
            number = operator.index(value)
        except TypeError:
            number = least - 1
        if isinstance(value, bool) or number < least:
            raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
