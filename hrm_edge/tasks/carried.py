"""`task.json`: what a checkpoint or a bundle carries of its task, where the name alone says nothing elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from .. import limits
from ..errors import InputError
from ..packages import version_of
from ..records import STRICT, from_json, must_be, newer_version
from . import defined_task, named_task, unknown_task
from .base import Task
from .dataset import TaskDefinition
from .plugins import installed, provider_of

TASK = "task.json"
FORMAT_VERSION = 1

_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")  # as packages are named
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]{1,60}")


@dataclass(frozen=True, config=STRICT)
class Provider:
    """The package whose class a task is."""

    package: Annotated[
        str, must_be("the name of a Python package", lambda name: _PACKAGE.fullmatch(name) is not None)
    ]
    version: Annotated[str, must_be("a version", lambda version: _VERSION.fullmatch(version) is not None)]


@dataclass(frozen=True, config=STRICT)
class CarriedTask:
    """One of both: the task itself, or the package that has it."""

    definition: TaskDefinition | None
    provider: Provider | None
    format_version: Annotated[int, must_be(str(FORMAT_VERSION), lambda version: version == FORMAT_VERSION)] = (
        FORMAT_VERSION
    )

    @model_validator(mode="after")
    def _check_whole(self) -> CarriedTask:
        if (self.definition is None) == (self.provider is None):
            raise ValueError("names not one of definition and provider")
        return self

    def task(self, name: str) -> Task:
        """The task, which must be called ``name``; InputError says which package is missing."""
        if self.definition is not None:
            if self.definition.name != name:
                raise InputError(f"is of the task {self.definition.name!r}, not {name!r}")
            return defined_task(self.definition)
        assert self.provider is not None
        package = self.provider.package
        if found := named_task(name):
            return found
        broken = next((each for each in installed()[1] if each.package == package), None)
        told = f"the task {name!r} comes from the package {package}"
        if broken is not None:
            raise InputError(f"{told}, which cannot be loaded here ({broken.why}); install it anew")
        version = self.provider.version
        if (here := version_of(package)) is not None:
            raise InputError(f"{told} {version}, and {here}, which is installed here, has no such task; upgrade it")
        # No command: what an index has under that name may be somebody else's.
        raise InputError(f"{told}, which is not installed here; if you trust its makers, get {version} from them")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def carried(task: Task) -> CarriedTask | None:
    """What is to be carried of a task; None: its name says all."""
    if task.definition is not None:
        return CarriedTask(task.definition, None)
    provider = provider_of(type(task))
    return None if provider is None else CarriedTask(None, Provider(*provider))


def known_task(name: str) -> Task:
    """The task that is called so, and no folder: a stranger may have written the name."""
    found = named_task(name)
    if found is None:
        raise unknown_task(name)
    return found


def write_task(task: Task, folder: Path) -> None:
    """Put what is carried of a task into a folder that is being made; nothing where its name says all."""
    content = carried(task)
    if content is not None:
        text = json.dumps(asdict(content), indent=None if task.definition else 2, sort_keys=True)
        (folder / TASK).write_text(text + "\n", "utf-8")


def read_task(folder: Path, name: str) -> Task:
    """The task called ``name`` of a checkpoint's or a bundle's folder. InputError, one line: there is none."""
    file = folder / TASK
    if not file.is_file():
        return known_task(name)
    try:
        if (size := file.stat().st_size) > limits.TASK_BYTES:
            raise InputError(f"has {size} bytes, and a task at most {limits.TASK_BYTES}")
        text = file.read_bytes()
        if version := newer_version(_parsed(text), FORMAT_VERSION):
            raise InputError(
                f"has format version {version}, and this hrm-edge reads up to {FORMAT_VERSION}; upgrade hrm-edge"
            )
        return from_json(CarriedTask, text, file, "make it again").task(name)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except InputError as error:
        where = "" if str(error).startswith(str(file)) else f"{file}: "
        raise InputError(f"{where}{error}") from None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None  # for the reader to say what is wrong
