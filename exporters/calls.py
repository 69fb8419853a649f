"""How a bundle is called without hrm-edge, in a few lines of each language: `targets/calls/`.

A new language, or one for a new target, is a file ``TARGET/LOOP.EXTENSION.j2`` there. A template is filled in with
the bundle's facts, the names of :func:`_values` and what files it ``holds``; "any" in place of a loop is for both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ..portable.readme import Snippet
from ..text import printable

# Extension → the language, and what Markdown calls it.
_LANGUAGES = {
    "py": ("Python", "python"),
    "js": ("JavaScript", "js"),
    "kt": ("Kotlin", "kotlin"),
    "swift": ("Swift", "swift"),
    "c": ("C", "c"),
    "sh": ("Shell", "sh"),
}


def snippets(target: str, facts: Mapping[str, Any], holds: Collection[str] = ()) -> list[Snippet]:
    """Those of a target, for the loop that a bundle has, and for the files that it ``holds``."""
    found = []
    folder = files("hrm_edge.exporters.targets") / "calls" / target
    for extension, (language, fence) in _LANGUAGES.items():
        for loop in (facts["loop"], "any"):
            if (folder / f"{loop}.{extension}.j2").is_file():
                template = _templates().get_template(f"{target}/{loop}.{extension}.j2")
                found.append(Snippet(language, fence, template.render(_values(facts), holds=holds)))
    return found


def _values(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a template may use beside the facts' own names: a question, the loop's names, its limits and rule."""
    example = next(iter(facts["examples"]), None)
    size, identifiers = facts["seq_len"], facts["puzzle_identifiers"]
    blank = facts["question_tokens"][0] if facts["blank"] is None else facts["blank"]
    tokens = example["question_tokens"] if example else [blank] * size
    separator = facts["separator"]
    shown = [facts["padding"], *facts["vocabulary"][1:]]
    text = None if separator is None else separator.join(shown[token] for token in tokens)
    separator = separator or ""
    rows = facts["batch"] if isinstance(facts["batch"], int) else 1
    # A table of one byte a symbol, where that is what they are; else the tokens' numbers.
    in_bytes = not separator and all(len(symbol) == 1 and symbol.isascii() for symbol in shown)
    in_bytes = in_bytes and "\\u" not in literal("".join(shown)) + literal(text or "")
    return {
        **facts,
        "files": {graph: json.dumps(each["file"]) for graph, each in facts["graphs"].items()},
        "states": list(facts["next"]),
        "nexts": list(facts["next"].values()),
        "halt_max_steps": facts["halting"]["max_think_steps"],
        "rule": lambda halt, go_on: facts["halting"]["rule"].replace("q_halt", halt).replace("q_continue", go_on),
        "rows": rows,
        "identifiers": identifiers is not None,
        "kind": example["puzzle_row"] if example else 0,
        "identifier": example["puzzle_identifier"] if example else 0,
        "text": text,
        "separator": separator,
        "tokens": tokens,
        "joined": f"{literal(separator, 'python')}.join(symbols[token] for token in answer)",
        "providers": "",
        "c_tools": _c_tools(size, shown, text if in_bytes else None),
        "c_fill": _c_fill(rows, tokens, in_bytes),
        "c_print": lambda token: f"putchar(symbols[{token}])" if in_bytes else f'printf("%d ", {token})',
    }


def _c_tools(size: int, shown: list[str], text: str | None) -> str:
    lines = ["#include <string.h>"] if text is not None else []
    lines.append(f"enum {{ S = {size}, V = {len(shown)} }};")
    if text is not None:
        symbols, question = literal("".join(shown), "c"), literal(text, "c")
        lines.append(f"static const char symbols[] = {symbols}, text[] = {question};")
    return "\n".join(lines)


def _c_fill(rows: int, tokens: list[int], in_bytes: bool) -> str:
    count, cell = ("S", "i") if rows == 1 else (f"{rows} * S", "i % S")
    value = f"(int32_t)(strchr(symbols, text[{cell}]) - symbols)" if in_bytes else f"question[{cell}]"
    fill = f"  for (int i = 0; i < {count}; i++) tokens[i] = {value};"
    if in_bytes:
        return fill
    return f"  static const int32_t question[S] = {{{', '.join(map(str, tokens))}}};\n{fill}"


def literal(text: str, language: str = "js") -> str:
    """A text as a program has it, in ASCII, so that nothing in it is markup or a log's command."""
    written = "".join(_written(character, language) for character in text)
    if printable(written) != written:
        hidden = {"##": "#" + _escape(ord("#"), language), "::": ":" + _escape(ord(":"), language)}
        written = re.sub("##|::", lambda found: hidden[found[0]], written)
    return f'"{written}"'


def _written(character: str, language: str) -> str:
    # C reads "??-" as "~", wherever it stands.
    if character in '"\\' or (language, character) in (("kotlin", "$"), ("c", "?")):
        return "\\" + character
    return character if " " <= character <= "~" else _escape(ord(character), language)


def _escape(code: int, language: str) -> str:
    if language == "swift":
        return f"\\u{{{code:x}}}"
    if language == "python":
        return f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"
    units = chr(code).encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


@cache
def _templates() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrm_edge.exporters.targets", "calls"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["literal"] = literal
    environment.filters["quoted"] = lambda names: ", ".join(json.dumps(name) for name in names)
    return environment
