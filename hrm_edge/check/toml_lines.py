"""On which line of a TOML text something stands: `tomllib` tells only where the syntax breaks."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Strings first, so that what looks like a header or a comment inside one is passed over whole.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|\n"
    r"|[^\S\n]+"
    r"|[\[\]{}=]"
    r"|[^\s\[\]{}=\"'#]+"
    r"|.",
    re.DOTALL,
)


class Lines:
    """Where each key and each `[[header]]` of a valid TOML text begins, counted from 1."""

    def __init__(self, text: str) -> None:
        self._top: dict[str, int] = {}
        self._arrays: dict[str, list[tuple[int, dict[str, int]]]] = {}
        keys = self._top
        for line, head in _heads(text):
            if head.startswith("[["):
                keys = {}
                self._arrays.setdefault(head[2:-2], []).append((line, keys))
            elif head.startswith("["):
                keys = self._sub_table(head[1:-1], line)
            else:
                keys.setdefault(head.split(".")[0], line)

    def top(self, key: str) -> int:
        """Line of a top-level key, table or array of tables; 1 when it is not there."""
        if key in self._arrays:
            return self._arrays[key][0][0]
        return self._top.get(key, 1)

    def within(self, array: str, index: int, key: str | None = None) -> int:
        """Line of a key in the index-th `[[array]]`; of its header where the key is not there."""
        tables = self._arrays.get(array, [])
        if index >= len(tables):
            return self.top(array)  # written as `array = [{…}, …]`
        line, keys = tables[index]
        return line if key is None else keys.get(key, line)

    def _sub_table(self, name: str, line: int) -> dict[str, int]:
        """`[check.rules]` is the key `rules` of the last `[[check]]`; what it holds is looked up by that key."""
        first, _, rest = name.partition(".")
        if first in self._arrays and rest:
            self._arrays[first][-1][1].setdefault(rest.split(".")[0], line)
        else:
            self._top.setdefault(first, line)
        return {}


def _heads(text: str) -> Iterator[tuple[int, str]]:
    """(line, `key` or `[header]` or `[[header]]`) of each statement, without quotes and spaces."""
    line, begun, depth, head, in_value = 1, 1, 0, "", False
    for match in _TOKEN.finditer(text + "\n"):
        token = match[0]
        if token == "\n" and depth == 0:
            if head:
                yield begun, head
            head, in_value = "", False
        elif in_value:
            depth += (token in ("[", "{")) - (token in ("]", "}"))
        elif token == "=" and not head.startswith("["):
            in_value = True
        elif not token.isspace() and token[0] != "#":
            begun = begun if head else line
            head += token.strip("\"'")
        line += token.count("\n")
