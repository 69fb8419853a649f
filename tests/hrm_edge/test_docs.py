"""What the documentation shows is run: doctests, the README's Python, and the notebook."""

import ast
import asyncio
import doctest
import importlib
import inspect
import json
import re
import shutil
import warnings
from pathlib import Path

import pytest

import hrm_edge as he

ROOT = Path(__file__).parents[2]
PUBLIC = sorted({f"hrm_edge.{home}" for home in he._HOME.values()})
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The shipped model as a bundle, as `make demo` and `hrm-edge export` leave it, but for the gate."""
    from hrm_edge.exporters import build

    folder = tmp_path_factory.mktemp("shipped") / "bundles" / "sudoku-9x9-onnx-fp32-graph"
    with pytest.MonkeyPatch.context() as patch:
        import shared_traces

        for name in ("trace_start", "trace_segment"):
            patch.setattr(build, name, getattr(shared_traces, name))
        he.export("sudoku-9x9", output=folder, gate=False)
    return folder


@pytest.mark.parametrize("name", PUBLIC)
def test_doctests(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_there_are_doctests():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in PUBLIC]
    assert sum(bool(test.examples) for module in modules for test in finder.find(module)) >= 4


def test_every_public_name_is_documented():
    for name in he.__all__:
        assert inspect.getdoc(getattr(he, name)), name


def snippets():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_python_of_the_readme_runs_as_one_session(shipped, tmp_path, monkeypatch, capsys):
    """In a folder that has the bundles that it names, of whatever backend."""
    monkeypatch.chdir(tmp_path)
    parts = snippets()
    assert len(parts) == 1
    for named in set(re.findall(r"bundles/[\w-]+", "".join(parts))):
        shutil.copytree(shipped, named)
    shown = []
    for part in parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are not gated here
            exec(compile(part, "README.md", "exec"), {})
        shown.append(capsys.readouterr().out)
    task = he.get_task("sudoku")
    question = task.parse(re.search(r'"([.\d]{81})"', parts[0])[1])
    answer = task.format(task.solve(question))
    digits = re.sub(r"[^1-9]", "", shown[0].partition("└")[0])
    assert digits == answer
    assert "\nverified, " in shown[0]


def cells():
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def run_cell(source, names):
    """What a notebook does: top-level `await` is allowed, and the last expression's value is shown."""
    body = ast.parse(source)
    last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for tree in (body, None if last is None else ast.Expression(last.value)):
        if tree is None:
            return None
        mode = "eval" if isinstance(tree, ast.Expression) else "exec"
        value = eval(compile(tree, NOTEBOOK.name, mode, flags), names)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
    return value


def test_the_notebook_runs(tmp_path, monkeypatch, one_trace, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    shown = []
    for cell in cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            shown.append(run_cell("".join(cell["source"]), names))
        assert [str(each.message) for each in told if "never checked" not in str(each.message)] == []
    boards = [value for value in shown if isinstance(value, he.Solutions)]
    assert len(boards) >= 2
    assert all(value.verified.all() for value in boards)
    for value in shown:
        rich = getattr(value, "_repr_html_", None)
        assert (rich() if rich else repr(value)).strip()
    assert "2 of 2 verified" in capsys.readouterr().out
    assert names["made"].to_dict()["bundle"] == "bundles/quickstart"
    agreement = shown[-1].to_dict()["results"][1]["agreement"]
    assert agreement["answers_differ"] == 0


def test_an_onnx_bundle_carries_what_javascript_needs(shipped):
    from hrm_edge.portable import FACTS
    from hrm_edge.portable.javascript import web_files

    for name, content in web_files().items():
        assert (shipped / name).read_bytes() == content
        if name.endswith((".js", ".html")):
            assert f"`{Path(name).name}`" in web_files()["web/README.md"].decode()
    assert {FACTS, "web/task.js", "web/ort.js"} <= set(he.open_bundle(shipped).manifest.files)
