"""What a form of puzzle file is: how it is told, read and written."""

from __future__ import annotations

import functools
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...files import readable_name
from ...progress import Progress
from ...tasks import Task
from ...text import decoded
from ..public_layout import Grouping

if TYPE_CHECKING:
    from ..puzzles import PuzzleSet

    Write = Callable[[PuzzleSet, Path, Progress | None], None]


@dataclass(frozen=True)
class File:
    """A file or folder that somebody named; its text is read once, when it is first asked for."""

    path: Path

    @property
    def name(self) -> str:
        """What its puzzles are called: the file's name without its endings."""
        name = readable_name(self.path.name)
        return name if self.path.is_dir() else name.split(".")[0]

    @functools.cached_property
    def text(self) -> str:
        """UTF-8 or what its byte-order mark says, gzipped or not. InputError when it cannot be read as such."""
        path = self.path
        try:
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
            return decoded(data)
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not text: byte {error.start} is not {error.encoding.upper()}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{path} is a damaged gzip file ({error}); fetch or write it again") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}") from None


@dataclass(frozen=True, eq=False)
class Rows:
    """What stands in a file, its puzzles' rules not yet checked.

    ``questions``, ``answers`` int32[N, S]; an answer that is not given is all padding. ``where`` names a row for
    people. ``sources``: where each row came from; None: the file. The rest is as in :class:`PuzzleSet`.
    """

    questions: np.ndarray
    answers: np.ndarray
    where: Callable[[int], str]
    sources: list[str] | None = None
    identifiers: np.ndarray | None = None
    num_identifiers: int = 1
    grouping: Grouping | None = None
    identifier_names: str | None = None


@dataclass(frozen=True)
class Format:
    """One form of puzzle file.

    ``fits``: whether a file has it. ``read``: what is in it; InputError names the place of anything wrong.
    ``endings``: of the names that are written in this form (a folder's has none). ``write`` puts a set at a path,
    whole or not at all; None: the form is only read.
    """

    fits: Callable[[File], bool]
    read: Callable[[File, Task], Rows]
    endings: tuple[str, ...] = ()
    write: Write | None = None
