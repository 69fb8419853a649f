"""A bundle's `README.md`: how it is called, how puzzles become tokens and back, and how far it was proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..bundle import Manifest
from ..errors import InputError
from ..files import files_in, write_atomically
from ..halting import RULES
from ..packages import install
from ..tasks import Task
from ..text import code, markdown
from .meaning import GRAPHS, meanings

README = "README.md"
_SYMBOLS = 100  # of the vocabulary; a longer one is in facts.json

# What stands in a bundle beside its graphs → what it is.
_FILES = {
    "facts.json": "vocabulary, rules, variants, halting, graphs and examples, for programs in any language",
    "examples.json": "puzzles with this bundle's own answers, segments and q",
    "accuracy.json": "what the gate measured",
    "quantization.json": "how each layer is quantized, and how it was proven",
    "report.html": "the accuracy report",
    "report.md": "the report as Markdown",
    "report.json": "the figures of the report",
    "task.json": "the task itself, as it is none that ships with hrm-edge",
    "manifest.json": "every file with its size and SHA-256, and what a runtime needs to know",
    "hrm.c": "the network: its weights, and the functions that `hrm.h` declares",
    "hrm.h": "sizes, the state and the functions, for a program in C to include",
    "weights.bin": "the weights, little-endian, for a program to map and hand to `hrm_take_weights`",
    "tensorrt.json": "which engine is for which GPU, and what the builder made of it",
}
_FOLDERS = {
    "web": "plain ES modules for a page or Node.js",
    "android": "Kotlin for an Android app",
    "swift": "a Swift package",
}


@dataclass(frozen=True)
class Snippet:
    """How the bundle is called in one language; ``fence``: what Markdown calls that."""

    language: str
    fence: str
    code: str


@dataclass(frozen=True)
class Interface:
    """How a bundle is called that has no graphs for its callers: Markdown that tells it, and what has the loop.

    ``halt``: what the argument is called that says when to stop.
    """

    text: str
    loop: str
    halt: str


def write_readme(
    folder: Path,
    manifest: Manifest,
    task: Task,
    facts: Mapping[str, Any],
    *,
    accuracy: Mapping[str, Any] | None,
    snippets: Sequence[Snippet],
    interface: Interface | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write `README.md` into a bundle that is being made, once all else stands there.

    ``accuracy``: what the gate measured, as in `accuracy.json`; ``interface``: in place of its graphs' tensors;
    ``notes``: what its target has to say besides. The same arguments and files give the same bytes.
    """
    architecture = manifest.architecture
    names = sorted({*files_in(folder), "manifest.json"} - {README})
    told = meanings(
        task,
        halt_max_steps=architecture["halt_max_steps"],
        no_ACT_continue=architecture["no_ACT_continue"],
        num_puzzle_identifiers=architecture["num_puzzle_identifiers"],
        state=tuple(facts["next"]),
    )
    content = _template().render(
        version=__version__,
        manifest=manifest,
        architecture=architecture,
        facts=facts,
        accuracy=accuracy,
        files=_files(manifest, names),
        folders=[(name, _FOLDERS[name]) for name in _FOLDERS if any(file.startswith(f"{name}/") for file in names)],
        graphs=GRAPHS,
        interface=interface,
        loop=interface.loop if interface else "the graph" if facts["loop"] == "graph" else None,
        halt=interface.halt if interface else "halt",
        meanings=told,
        rows=_rows(facts),
        rules={name: RULES[name].when for name in facts["halting"]["modes"]},
        symbols=_symbols(task, facts),
        left_out=max(0, len(facts["vocabulary"]) - _SYMBOLS),
        aliases={symbol: token for symbol, token in task.aliases.items() if symbol not in task.vocabulary},
        has_rules=facts["rules"] is not None,
        snippets=snippets,
        notes=notes,
    )
    write_atomically(folder / README, content.rstrip("\n") + "\n")


def _files(manifest: Manifest, names: Sequence[str]) -> list[tuple[str, str]]:
    """(file, what it is), the graphs first, and each once: one file may hold several graphs."""
    graphs: dict[str, list[str]] = {}
    for graph, file in manifest.graphs.items():
        graphs.setdefault(file, []).append(f"the graph that {GRAPHS[graph]}")
    found = {file: _FILES.get(file, ", and ".join(told)) for file, told in graphs.items()}
    return list((found | {name: _FILES[name] for name in names if name in _FILES}).items())


def _rows(facts: Mapping[str, Any]) -> int | None:
    """Of every call; None: any number."""
    inputs = [tensor for each in facts["graphs"].values() for tensor in each["inputs"]]
    rows = {tensor["shape"][0] for tensor in inputs if tensor["shape"]}
    return rows.pop() if len(rows) == 1 and all(isinstance(count, int) for count in rows) else None


def _symbols(task: Task, facts: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    """(token, symbol, what it is) of the first tokens."""
    blank = facts["blank"]
    rows = []
    for token, symbol in enumerate(facts["vocabulary"][:_SYMBOLS]):
        name = "padding" if token == 0 else "blank" if token == blank else task.drawing.names.get(symbol, "")
        rows.append((token, facts["padding"] if token == 0 else symbol, name))
    return rows


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            f"a bundle's README needs jinja2, which is not installed; run: {install('export')}"
        ) from error
    return _compiled(jinja2)


@cache
def _compiled(jinja2: Any) -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrm_edge.portable", "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"md": markdown, "code": code}
    return environment.get_template("README.md.j2")
