"""The forms of file that puzzles come in. A new one is a module here with its `Format`, and its line in FORMATS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from .archive import ZIP
from .base import STDIN, File, Format, Rows, joined
from .csv import CSV
from .json import JSON
from .npy import ARRAY, NPY
from .parquet import PARQUET
from .tables import Block, Column, Tabulate, packed
from .text import TEXT
from .xml import XML

if TYPE_CHECKING:
    from .base import Write

__all__ = [
    "ENDINGS",
    "FORMATS",
    "STDIN",
    "Block",
    "Column",
    "File",
    "Format",
    "Rows",
    "format_of",
    "joined",
    "table_writer_of",
    "writer_of",
]

# Asked in this order which one a file has; the last takes any text.
FORMATS: tuple[Format, ...] = (NPY, ARRAY, PARQUET, ZIP, XML, JSON, CSV, TEXT)

# Of names that are files, though there may be none of them.
ENDINGS = (
    *(".csv", ".tsv", ".txt", ".sdk", ".sdm", ".sdx", ".ss", ".opensudoku", ".xml", ".json", ".jsonl", ".ndjson"),
    *(".npy", ".npz", ".parquet", ".gz", ".xz", ".lzma", ".bz2", ".zip", "/"),
)


def format_of(file: File) -> Format:
    """The form that a file or folder has."""
    return next(form for form in FORMATS if form.fits(file))


def writer_of(path: Path) -> Write:
    """What writes a set at ``path``, by the ending of its name; InputError where nothing does."""
    for form in FORMATS:
        if form.write is not None and (path.name.endswith(form.endings) if path.suffix else not form.endings):
            return form.write
    endings = " or ".join(sorted(ending for form in FORMATS if form.write is not None for ending in form.endings))
    raise InputError(f"cannot write {path}: end it in {endings}, or name a folder for .npy files")


def table_writer_of(path: Path) -> Tabulate:
    """What writes a table at ``path``, by the ending of its name, compressed where that says so; InputError where
    nothing does, or a package for it is missing."""
    for form in FORMATS:
        if form.tabulate is not None and path.name.endswith(form.endings):
            form.need(f"cannot write {path}")
            return packed(form.tabulate) if path.suffix == ".gz" else form.tabulate
    endings = " or ".join(sorted(ending for form in FORMATS if form.tabulate for ending in form.endings))
    raise InputError(f"cannot write {path}: end it in {endings}")
