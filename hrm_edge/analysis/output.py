"""Write results as files: the ending of the name chooses the plot, the numbers or a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..files import check_file, require_apart, write_atomically
from ..report.svg import require_matplotlib


class HasMarkdown(Protocol):
    """A table, or several."""

    def markdown(self) -> str: ...


PLOTS = (".png", ".svg")
KINDS = (*PLOTS, ".json", ".md")


def check_outputs(paths: Sequence[Path], data: Path | None = None) -> None:
    """InputError for a name whose ending says nothing or that cannot be written, or that is given twice or is the
    ``data``, and for plots without matplotlib; asked before long work."""
    require_apart(paths, [data])
    for path in paths:
        if path.suffix not in KINDS:
            raise InputError(f"-o {path}: end it in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        check_file(path)
        if path.suffix in PLOTS:
            require_matplotlib()


def write_outputs(paths: Sequence[Path], content: Any, table: HasMarkdown, picture: Callable[[str], bytes]) -> None:
    """Write each of `paths`: `content` as JSON, the table or `picture("png" or "svg")`, whole or not at all."""
    for path in paths:
        if path.suffix == ".json":
            write_atomically(path, json.dumps(content, indent=2) + "\n")
        elif path.suffix == ".md":
            write_atomically(path, table.markdown())
        else:
            write_atomically(path, picture(path.suffix[1:]))
