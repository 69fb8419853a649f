"""A fact has one home: nothing outside a target's own room compares with its name, or has a table of targets.

What reports on its users as it is imported is imported in one place, which sees to it that it does not.

What is true of a target stands in `exporters/targets/NAME` and `runtimes/NAME`; everything else asks the objects
there (`exporters.targets.target_named`, `runtimes.backend`). Names in messages, help texts and defaults are fine.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrm_edge.exporters.targets import all_targets
from hrm_edge.runtimes import backends

ROOT = Path(__file__).parents[1]
NAMES = frozenset(all_targets())
# "folder/file.py: the code" → why it must stand there.
ALLOWED = {
    "exporters/calls.py: {'py': ('Python', 'python'), 'js': ('JavaScript', 'js'), 'kt': ('Kotlin', 'kotlin'), "
    "'swift': ('Swift', 'swift'), 'c': ('C', 'c'), 'sh': ('Shell', 'sh')}": "C the language",
    "exporters/calls.py: (language, character) in (('kotlin', '$'), ('c', '?'))": "C the language",
}


def offences(code: str) -> Iterator[tuple[int, str]]:
    """(line, code) of every comparison with a target's name, and of every table of them."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if (
            (isinstance(node, ast.Compare) and any(map(_names_one, [node.left, *node.comparators])))
            or (isinstance(node, ast.Dict) and any(map(_is_name, node.keys)))
            or (isinstance(node, ast.Tuple | ast.List | ast.Set) and node.elts and all(map(_is_name, node.elts)))
            or (isinstance(node, ast.Subscript) and _is_name(node.slice))
            or (isinstance(node, ast.MatchValue) and _is_name(node.value))
            or (isinstance(node, ast.Call) and _looks_up(node))
        ):
            yield getattr(node, "lineno", 0), ast.unparse(node)


def _is_name(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value in NAMES


def _names_one(node: ast.AST) -> bool:
    """A name, or a display or call on one with a name in it."""
    return any(_is_name(each) for each in ast.walk(node)) and isinstance(
        node, ast.Constant | ast.Tuple | ast.List | ast.Set | ast.Dict | ast.Call
    )


def _looks_up(node: ast.Call) -> bool:
    """`table.get("coreml")`, `name.startswith("coreml")`."""
    methods = ("get", "startswith", "endswith", "removeprefix", "pop", "setdefault")
    return isinstance(node.func, ast.Attribute) and node.func.attr in methods and any(map(_is_name, node.args))


def own_room(path: Path) -> bool:
    """Whether a file is a target's own: in `exporters/targets`, or its backend in `runtimes`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:2] == ("exporters", "targets") or (parts[0] == "runtimes" and parts[1] in NAMES)


FILES = sorted(
    file
    for room in ("hrm_edge", "models", "trainer", "exporters", "runtimes")
    for file in (ROOT / room).rglob("*.py")  # links are not followed: each file is read in its own place
    if not own_room(file)
)


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_what_reports_on_its_users_is_imported_in_one_place(package):
    rooms = ("hrm_edge", "models", "trainer", "exporters", "runtimes")
    found = [
        f"{file.relative_to(ROOT)}: {function}"
        for room in rooms
        for file in (ROOT / room).rglob("*.py")
        for function in importing(file.read_text("utf-8"), package)
    ]
    assert found == [f"runtimes/{'onnx' if package == 'onnxruntime' else package}.py: imported"]


def test_openvino_has_one_core():
    """Of several, one that is freed may leave a thread without its stack for signals."""
    found = [
        str(file.relative_to(ROOT))
        for room in ("hrm_edge", "models", "trainer", "exporters", "runtimes")
        for file in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Core"
    ]
    assert found == ["runtimes/openvino.py"]


def importing(code: str, package: str) -> Iterator[str]:
    """The innermost function around each import of a package or of a part of it, in whatever form."""

    def within(node: ast.AST, function: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            names = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom) and not child.level:
                names = [child.module or ""]
            elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(("import_module", "__import__")):
                names = [part.value for part in child.args if isinstance(part, ast.Constant)]
            if any(str(name).split(".")[0] == package for name in names):
                yield function
            inside = child.name if isinstance(child, ast.FunctionDef) else function
            yield from within(child, inside)

    return within(ast.parse(code), "the module")


def test_every_target_has_a_backend_of_its_name_and_the_other_way_round():
    assert list(all_targets()) == list(backends())


def test_nothing_outside_its_room_compares_with_the_name_of_a_target():
    assert len(FILES) > 100
    found = {
        f"{file.relative_to(ROOT)}: {text}": line
        for file in FILES
        for line, text in offences(file.read_text("utf-8"))
    }
    unknown = {text: line for text, line in found.items() if text not in ALLOWED}
    assert not unknown, "\n".join(f"line {line} of {text}" for text, line in unknown.items())
    assert not set(ALLOWED) - set(found), "no longer there"


@pytest.mark.parametrize(
    "code",
    [
        'target == "coreml"',
        '"onnx" != options.target',
        'target in ("tensorrt", "coreml")',
        'target in {"onnx"}',
        '(target, precision) == ("onnx", "fp16")',
        '{"openvino": 1}',
        'KNOWN = ["onnx", "openvino"]',
        'ONLY = ("onnx",)',
        'table["tensorrt"]',
        'table.get("tensorrt")',
        'name.startswith("coreml")',
        'match target:\n case "onnx": pass',
    ],
)
def test_what_would_be_found(code):
    assert list(offences(code))


@pytest.mark.parametrize(
    "code",
    [
        'def f(target: str = "onnx"): pass',
        'raise InputError("target openvino is not installed")',
        'PACKAGES = ("onnx", "onnxscript", "jinja2")',
        'find_spec("onnx")',
        'target_named("onnx").write(graphs, context)',
        "import onnx",
    ],
)
def test_what_is_fine(code):
    assert not list(offences(code))
