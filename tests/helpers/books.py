"""Folders of one page, which take the place of others of their kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hrm_edge.errors import InputError
from hrm_edge.files import replacing_folder
from hrm_edge.workspace import workspace


def ours(folder: Path) -> None:
    """Whatever is called `page*`."""
    if others := [path.name for path in folder.iterdir() if not path.name.startswith("page")]:
        raise InputError(f"{folder}: holds {others[0]!r}")


def put(folder: Path, text: str) -> None:
    with replacing_folder(folder, ours) as scratch:
        (scratch / "page").write_text(text)


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refusal(call: Callable[..., object], *arguments: object) -> str:
    """The one line that it refuses with."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def killed(folder: Path, swapped: bool) -> None:
    """What a kill leaves in the middle of writing `two`, or between the two renames of putting it in place."""
    put(folder, "one")
    with workspace(folder) as work:
        (work / "new").mkdir()
        (work / "new" / "page").write_text("two")
        if swapped:
            folder.rename(work / "old")
        work.rename(f"{work}.kept")
    os.rename(f"{work}.kept", work)
