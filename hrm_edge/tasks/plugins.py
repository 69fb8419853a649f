"""Tasks of other packages: classes that an installed one names under the entry point `hrm_edge.tasks`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from ..text import printable
from .base import Task

GROUP = "hrm_edge.tasks"


@dataclass(frozen=True)
class Broken:
    """A package whose class cannot be used, and why, in a line."""

    package: str
    why: str


@functools.cache
def installed() -> tuple[tuple[type[Task], ...], tuple[Broken, ...]]:
    """The classes that installed packages name, imported when they are first asked for, and what could not be."""
    found: list[type[Task]] = []
    broken = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            family = point.load()
            if not (isinstance(family, type) and issubclass(family, Task)):
                raise TypeError(f"{point.value} is no Task class")
            if family not in found:
                found.append(family)
        except Exception as error:  # whatever a stranger's module raises while it is imported
            broken.append(Broken(_package(point), printable(f"{type(error).__name__}: {error}"[:200])))
    return tuple(found), tuple(broken)


def provider_of(family: type[Task]) -> tuple[str, str] | None:
    """(package, version) that a task's class is installed with; None: none names it."""
    top = family.__module__.partition(".")[0]
    point = next((each for each in entry_points(group=GROUP) if each.module.partition(".")[0] == top), None)
    return None if point is None or point.dist is None else (_package(point), point.dist.version)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module.partition(".")[0]
