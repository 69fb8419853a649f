"""The report's colours, for pictures that are no part of its page: the page's style sheet is their home."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from ..files import read_text


@functools.cache
def page_colours() -> Mapping[str, str]:
    """The light page's custom properties without their dashes: name → "#rrggbb"."""
    sheet = read_text(Path(__file__).parent / "templates" / "report.css")
    light = sheet[: sheet.index("@media")]
    return {name: _long(value) for name, value in re.findall(r"--(\w+): (#[0-9a-f]{3,6});", light)}


def _long(colour: str) -> str:
    return colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
