"""The forms of file that puzzles come in. A new one is a module here with its `Format`, and its line in FORMATS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from .base import File, Format, Rows
from .csv import CSV
from .npy import NPY
from .text import TEXT

if TYPE_CHECKING:
    from .base import Write

__all__ = ["FORMATS", "File", "Format", "Rows", "format_of", "writer_of"]

# Asked in this order which one a file has; the last takes any text.
FORMATS: tuple[Format, ...] = (NPY, CSV, TEXT)


def format_of(file: File) -> Format:
    """The form that a file or folder has."""
    return next(form for form in FORMATS if form.fits(file))


def writer_of(path: Path) -> Write:
    """What writes a set at ``path``, by the ending of its name; InputError where nothing does."""
    for form in FORMATS:
        if form.write is not None and (path.name.endswith(form.endings) if path.suffix else not form.endings):
            return form.write
    endings = " or ".join(ending for form in FORMATS for ending in form.endings)
    raise InputError(f"cannot write {path}: end it in {endings}, or name a folder for .npy files")
