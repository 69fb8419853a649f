"""Text gets out in one way: printed by `hrm_edge.text`, or drawn by the Console that goes through it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {"hrm_edge/text.py", "hrm_edge/console.py"}
FILES = sorted(
    file
    for room in ("hrm_edge", "models", "trainer", "exporters", "runtimes")
    for file in (ROOT / room).rglob("*.py")  # links are not followed: each file is read in its own place
    if str(file.relative_to(ROOT)) not in HOMES
)
_CALLS = {"print", "typer.echo", "typer.secho", "click.echo", "warnings.warn", "rich.print", "os.write"}
_CALLS |= {"faulthandler.enable", "faulthandler.dump_traceback"}
_STREAMS = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
_NAMES = {"rich.console.Console", "rich.print", "rich.get_console", "sys.stdout", "sys.stderr"}
_FLAGS = ("markup", "emoji", "highlight")
# What a stream may be asked, and who hands one on: nothing of these writes text of ours.
_ASKED = {"sys.stderr.isatty", "sys.stdout.isatty"}
ALLOWED = {
    "hrm_edge/api.py: warnings.warn": "load: as Python warns, of what printable has cleaned",
    "hrm_edge/progress.py: sys.stderr": "say: by write_lines",
    "hrm_edge/cli/__init__.py: sys.stdout": "abandoned where the reader had enough",
    "hrm_edge/cli/serve.py: faulthandler.enable": "a crash of a library: files and functions, in ASCII",
    "hrm_edge/serve/mcp.py: os.write": "into its own pipe, what came in",
    "hrm_edge/workspace.py: os.write": "into its own file, whose it is",
}


def ways(code: str) -> Iterator[tuple[int, str]]:
    """(line, code) of all that prints, or could."""
    tree = ast.parse(code)
    asked = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _name(node) in _ASKED}
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in _CALLS:
            yield node.lineno, _name(node.func)
        elif isinstance(node, ast.Attribute) and _name(node) in _STREAMS and id(node) not in asked:
            yield node.lineno, _name(node)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and id(node) not in typing:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in _NAMES:
                    yield node.lineno, whole
        elif isinstance(node, ast.keyword) and node.arg in _FLAGS and _is_true(node.value):
            yield node.value.lineno, node.arg


def _is_true(node: ast.AST) -> bool:
    return not (isinstance(node, ast.Constant) and node.value is False)


def _name(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def test_nothing_prints_but_by_the_one_way():
    assert len(FILES) > 100
    found = {
        f"{file.relative_to(ROOT)}: {text}": line for file in FILES for line, text in ways(file.read_text("utf-8"))
    }
    assert not {text: line for text, line in found.items() if text not in ALLOWED}
    assert not set(ALLOWED) - set(found), "no longer there"


@pytest.mark.parametrize(
    "code",
    [
        "print(name)",
        "sys.stderr.write(name)",
        "print(name, file=sys.stderr)",
        "typer.echo(name)",
        "from rich.console import Console",
        "from rich import print",
        "from sys import stdout",
        "warnings.warn(name)",
        "console.print(name, markup=True)",
        "TextColumn(name, markup=wanted)",
        "write = sys.stdout.write",
    ],
)
def test_what_would_be_found(code):
    assert list(ways(code))


@pytest.mark.parametrize(
    "code",
    [
        "echo(name)",
        "if TYPE_CHECKING:\n    from rich.console import Console",
        "from ..console import Console",
        "sys.stderr.isatty()",
        "TextColumn(name, markup=False)",
        "model.print_summary",
    ],
)
def test_what_is_fine(code):
    assert not list(ways(code))


# Readers of the system's own texts, and of what a file holds whatever bytes are in it.
READERS = {
    "hrm_edge/measure/arithmetic.py: Path('/proc/cpuinfo').read_text": "the system's",
    "runtimes/openvino.py: (Path.home() / 'intel' / 'openvino_telemetry').read_text": "that package's own",
    "hrm_edge/measure/clock.py: Path(f'/proc/self/task/{thread}/schedstat').read_text": "the system's",
    "hrm_edge/measure/cold.py: Path('/proc/self/status').read_text": "the system's",
    "models/checkpoint.py: (path / CARD).read_text": "shown as far as it can be",
}


def test_texts_are_read_in_one_way():
    """With a byte-order mark or without: by `read_text` of `hrm_edge.files`, or by `decoded`."""
    found = {
        f"{file.relative_to(ROOT)}: {ast.unparse(node.func)}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "read_text"
    }
    assert found == set(READERS)
