"""The forms of file that puzzles come in. A new one is a module here with its `Format`, and its line in FORMATS."""

from __future__ import annotations

from pathlib import Path

from .base import File, Format, Rows
from .csv import CSV
from .npy import NPY
from .text import TEXT

__all__ = ["FORMATS", "File", "Format", "Rows", "format_of", "writer_of"]

# Asked in this order which one a file has; the last takes any text.
FORMATS: tuple[Format, ...] = (NPY, CSV, TEXT)


def format_of(file: File) -> Format:
    """The form that a file or folder has."""
    return next(form for form in FORMATS if form.fits(file))


def writer_of(path: Path) -> Format | None:
    """The form that ``path`` is written in, by the ending of its name; None where there is none."""
    if not path.suffix:
        return NPY
    return next((form for form in FORMATS if path.name.endswith(form.endings)), None)
