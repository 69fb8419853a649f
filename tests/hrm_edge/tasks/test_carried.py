"""`task.json`: what travels with a model, from a stranger too; and tasks of packages, installed or not."""

import json
from dataclasses import asdict

import pytest
from datasets import write_latin
from stripes import Stripes

from hrm_edge import limits, tasks
from hrm_edge.errors import InputError
from hrm_edge.tasks import carried, get_task, plugins
from hrm_edge.tasks.carried import TASK, read_task, write_task

PACKAGE = """
[hrm_edge.tasks]
stripes = {value}
"""


@pytest.fixture
def latin(tmp_path):
    return get_task(str(write_latin(tmp_path / "latin", n=1)))


@pytest.fixture
def forgetful(monkeypatch):
    """Which packages are installed is asked anew, here and afterwards."""

    def forget():
        plugins.installed.cache_clear()
        get_task.cache_clear()

    monkeypatch.setattr(tasks, "_FAMILIES", list(tasks._FAMILIES))
    forget()
    yield forget
    monkeypatch.undo()
    forget()


@pytest.fixture
def installed(tmp_path, monkeypatch, forgetful):
    """Installs a package whose entry point is ``value``."""

    def install(value, name="striped-things"):
        info = tmp_path / "site" / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(PACKAGE.format(value=value))
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        forgetful()

    return install


def rewritten(folder, latin, **changes):
    """The definition of a task as a stranger would write it."""
    write_task(latin, folder)
    content = json.loads((folder / TASK).read_text())
    content["definition"] |= changes
    (folder / TASK).write_text(json.dumps(content))
    return folder


def test_it_goes_there_and_back(tmp_path, latin):
    write_task(latin, tmp_path)
    assert read_task(tmp_path, "latin") is latin
    assert carried.carried(latin).task("latin") is latin
    for task in ("sudoku-6x6-3x2", "maze-5x8", "arc"):
        (tmp_path / task).mkdir()
        write_task(get_task(task), tmp_path / task)
        assert not list((tmp_path / task).iterdir())
        assert read_task(tmp_path / task, task) is get_task(task)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "other"}, "is of the task 'other', not 'latin'"),
        ({"name": "sudoku-9x9"}, "is of the task 'sudoku-9x9', not 'latin'"),
        ({"name": "x\nx"}, "definition.name must be a name"),
        ({"symbols": [".", "1", "2", "3", "\u001b[31m"]}, "definition.symbols[4] must be"),
        ({"symbols": [".", "1", "2", "3", "x" * 17]}, "definition.symbols[4] must be"),
        ({"rows": 2**40}, "definition 1099511627776 rows of 4 are more than 65536 cells"),
        ({"rows": 1, "cols": 2**16 + 1}, "definition"),
        ({"blank": 9}, "definition"),
        ({"groups": [[0, 1, 2, 99]]}, "definition"),
        ({"colour": 1}, "definition has the unknown field 'colour'"),
        ({"values": [2, 3, 4, True]}, "definition.values[3] must be a whole number"),
    ],
)
def test_a_strangers_is_refused_in_a_line(tmp_path, latin, changes, why):
    with pytest.raises(InputError) as error:
        read_task(rewritten(tmp_path, latin, **changes), "latin")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / TASK}: ")
    assert why in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must be an object"),
        ("{}", "field 'definition' is missing"),
        ('{"definition": null, "provider": null, "format_version": 1}', "names not one of definition and provider"),
        ('{"format_version": 7}', "has format version 7, and this hrm-edge reads up to 1; upgrade hrm-edge"),
        (
            '{"definition": null, "provider": {"package": "a b; rm", "version": "1"}, "format_version": 1}',
            "package",
        ),
        ("[" * 100_000, "is not valid JSON"),
        ("\udcff", "is not valid JSON"),
        (" " * (limits.TASK_BYTES + 1), "and a task at most"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, text, why):
    (tmp_path / TASK).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as error:
        read_task(tmp_path, "latin")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / TASK}: ")
    assert why in message
    assert "\n" not in message


def test_a_name_in_a_file_is_no_path(tmp_path, monkeypatch, latin):
    (tmp_path / "bundle").mkdir()
    for name in (str(tmp_path / "latin"), "latin"):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match=r"unknown task .*; there are sudoku"):
            read_task(tmp_path / "bundle", name)


# -- packages --------------------------------------------------------------------------------------------


def test_an_installed_package_has_tasks(tmp_path, installed):
    with pytest.raises(InputError, match="unknown task 'stripes-2x4'"):
        get_task("stripes-2x4")
    installed("stripes:Stripes")
    task = get_task("stripes-2x4")
    assert isinstance(task, Stripes)
    with pytest.raises(InputError, match=r"there are sudoku .*, stripes-RxC, dyed-RxC$"):
        get_task("nonsense")
    write_task(task, tmp_path)
    content = json.loads((tmp_path / TASK).read_text())
    assert content["provider"] == {"package": "striped-things", "version": "1.2"}
    assert read_task(tmp_path, task.name) is task


def test_built_in_names_ask_no_package(installed, monkeypatch):
    installed("nothing_of_this_name:X")
    monkeypatch.setattr(plugins, "entry_points", lambda **_: pytest.fail("looked for packages"))
    assert get_task("sudoku-4x4").name == "sudoku-4x4"


def test_an_absent_package_is_named(tmp_path, installed, forgetful, monkeypatch):
    installed("stripes:Stripes")
    write_task(get_task("stripes-2x4"), tmp_path)
    monkeypatch.undo()
    forgetful()
    told = f"{tmp_path / TASK}: the task 'stripes-2x4' comes from the package striped-things"
    with pytest.raises(InputError) as error:
        read_task(tmp_path, "stripes-2x4")
    wanted = f"{told}, which is not installed here; if you trust its makers, get 1.2 from them"
    assert str(error.value) == wanted


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("nothing_of_this_name:X", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("stripes:Nothing", "AttributeError: "),
        ("stripes:engine", "TypeError: stripes:engine is no Task class"),
        ("json:dumps", "TypeError: json:dumps is no Task class"),
    ],
)
def test_a_broken_package_is_named_and_breaks_nothing_else(tmp_path, installed, value, why):
    installed(value)
    assert get_task("maze-7x7").name == "maze-7x7"
    with pytest.raises(InputError, match="those of the package striped-things cannot be loaded") as error:
        get_task("stripes-2x4")
    assert why in str(error.value)
    provider = carried.Provider("striped-things", "1.2")
    (tmp_path / TASK).write_text(json.dumps(asdict(carried.CarriedTask(None, provider))))
    with pytest.raises(InputError, match="package striped-things, which cannot be loaded here") as error:
        read_task(tmp_path, "stripes-2x4")
    assert str(error.value).isprintable()


def test_a_package_without_that_task_is_named(tmp_path, installed):
    installed("stripes:Stripes")
    provider = carried.Provider("striped-things", "2.0")
    (tmp_path / TASK).write_text(json.dumps(asdict(carried.CarriedTask(None, provider))))
    with pytest.raises(InputError, match=r"striped-things 2.0, and 1.2, which is installed here, has no such task"):
        read_task(tmp_path, "spots-2x4")
