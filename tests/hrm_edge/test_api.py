"""The Python API has the commands' names, defaults and errors, whatever was imported before."""

import copy
import importlib
import inspect
import json
import pickle
import subprocess
import sys
import warnings

import pytest
import toys

import hrm_edge as he
from hrm_edge.bundle import Gate
from hrm_edge.cli import benchmark as cli_benchmark
from hrm_edge.cli import check as cli_check
from hrm_edge.cli import evaluate as cli_evaluate
from hrm_edge.cli import export as cli_export
from hrm_edge.cli import main
from hrm_edge.cli import solve as cli_solve
from hrm_edge.cli import train as cli_train
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.errors import InputError
from hrm_edge.solve.model import Model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASK = toys.TASK
PUZZLES = toys.unique_puzzles()
LINES = [TASK.format(row) for row in PUZZLES]
ANSWERS = [TASK.format(TASK.solve(row)) for row in PUZZLES]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    unchecked = Gate(False, None, "asked for with --no-gate")
    return {
        "host": toys.write_toy_bundle(folder / "host"),
        "graph": toys.write_toy_bundle(folder / "graph", loop="graph"),
        "unchecked": toys.write_toy_bundle(folder / "unchecked", gate=unchecked),
    }


# -- names, defaults, errors -----------------------------------------------------------------------------


# Of `solve`, what goes with -o alone, which is a function of its own.
INTO_A_FILE = ("output", "workers", "distributed", "address", "on_error", "force")


def test_solving_into_a_file_has_the_flags_of_the_command():
    theirs = inspect.signature(cli_solve.command).parameters
    ours = inspect.signature(he.solve_file).parameters
    asked = ("halt", "max_think_steps", "retries", "seed", *INTO_A_FILE[1:])
    assert {name: ours[name].default for name in asked} == {name: theirs[name].default for name in asked}
    given = [name for name, each in ours.items() if each.kind is not each.KEYWORD_ONLY]
    assert set(given) == {"bundle", "puzzles", "output", *asked}


@pytest.mark.parametrize(
    ("function", "command", "printing"),
    [
        (he.solve, cli_solve.command, {"as_json", "watch", *INTO_A_FILE}),
        (he.evaluate, cli_evaluate.command, {"json_"}),
        (he.check, cli_check.command, {"json_"}),
        (he.train, cli_train.command, set()),
        (he.export, cli_export.command, {"as_json", "context"}),
        (he.benchmark, cli_benchmark.command, {"json_"}),
    ],
    ids=["solve", "eval", "check", "train", "export", "benchmark"],
)
def test_names_and_defaults_are_those_of_the_command(function, command, printing):
    """In the same order; what Python has besides comes after a star."""
    ours = inspect.signature(function).parameters.values()
    theirs = inspect.signature(command).parameters.values()
    expected = [(each.name, each.default) for each in theirs if each.name not in printing]
    assert [(each.name, each.default) for each in ours if each.kind is not each.KEYWORD_ONLY] == expected


def test_the_model_solves_with_the_options_of_the_function():
    function = inspect.signature(he.solve).parameters
    for name, each in inspect.signature(Model.solve).parameters.items():
        assert name == "self" or each.default == function[name].default, name


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ["solve.answer", "check.run", "export", "api"])
def test_functions_are_called_whatever_was_imported_before(bundles, room):
    """Importing a room of the same name puts the room where the function stood."""
    code = f"""
import sys, importlib, inspect
importlib.import_module("hrm_edge.{room}")
import hrm_edge as he
for _ in range(2):
    assert he.solve(sys.argv[1], sys.argv[2]).text == [sys.argv[3]]
    for call in (lambda: he.check("nowhere.toml"), lambda: he.export(gate_puzzles="nowhere")):
        try:
            call()
            raise SystemExit("nothing was raised")
        except he.InputError as error:
            assert "nowhere" in str(error), error
    assert "bundle" in inspect.signature(he.solve).parameters
from hrm_edge import check, evaluate, export, load, solve, train
import hrm_edge.solve.retries, hrm_edge.check.rules
assert solve(sys.argv[1], sys.argv[2]).text == [sys.argv[3]]
assert hrm_edge.solve.retries.solve_with_retries is he.solve_with_retries
"""
    run(code, bundles["host"], LINES[0], ANSWERS[0])


def test_importing_is_instant_and_a_device_needs_no_torch(bundles):
    code = """
import sys
for name in ("torch", "onnx", "safetensors", "onnxscript"): sys.modules[name] = None
import hrm_edge as he
assert "numpy" not in sys.modules and "typer" not in sys.modules
model = he.load(sys.argv[1])
print(model.solve(sys.argv[2]).text[0], model.trace(sys.argv[2]).steps)
for call in (lambda: he.load("sudoku-9x9"), lambda: he.export("sudoku-9x9"), lambda: he.train("run")):
    try:
        call()
    except he.InputError as error:
        print(error)
"""
    first, *refused = run(code, bundles["graph"], LINES[0]).splitlines()
    assert first.split()[0] == ANSWERS[0]
    assert len(refused) == 3
    assert all("pip install" in line for line in refused)


@pytest.mark.parametrize(
    ("call", "command"),
    [
        (lambda: he.load("nowhere"), ["eval", "nowhere"]),
        (lambda: he.evaluate("nowhere", by="colour"), ["eval", "nowhere", "--by", "colour"]),
        (lambda: he.check("nowhere.toml"), ["check", "nowhere.toml"]),
        (lambda: he.export("nowhere"), ["export", "nowhere"]),
        (lambda: he.export("sudoku-9x9", precision="int3"), ["export", "sudoku-9x9", "--precision", "int3"]),
        (lambda: he.export("sudoku-9x9", smooth=0.5), ["export", "sudoku-9x9", "--smooth", "0.5"]),
        (lambda: he.export("sudoku-9x9", key="x"), ["export", "sudoku-9x9", "--key", "x"]),
        (lambda: he.export(), ["export"]),
        (lambda: he.train("run", qat_scales="learned"), ["train", "-o", "run", "--qat-scales", "learned"]),
        (lambda: he.train("run", preset="none"), ["train", "-o", "run", "--preset", "none"]),
        (lambda: he.train("run", task="chess"), ["train", "-o", "run", "--task", "chess"]),
    ],
)
def test_errors_are_those_of_the_command(call, command, capsys, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(he.InputError) as raised:
        call()
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == raised.value.exit_code == 2
    assert capsys.readouterr().err == f"hrm-edge: {raised.value}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda path: he.load(path, threads=0),
        lambda path: he.solve(path, LINES, seed=-1),
        lambda path: he.solve(path, LINES, retries=-1),
        lambda path: he.solve(path, LINES, halt="soon"),
        lambda path: he.solve(path, LINES, max_think_steps=0),
        lambda path: he.evaluate(path, n=0),
        lambda path: he.evaluate(path, seed=1.5),
        lambda path: he.evaluate([]),
        lambda path: he.export(path, gate_puzzles=0),
        lambda path: he.export(path, threads=True),
        lambda path: he.train(path, seed=-1),
    ],
)
def test_numbers_that_the_command_line_refuses_are_refused(call, bundles):
    with pytest.raises(he.InputError):
        call(bundles["host"])


# -- measuring and judging -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "puzzles.csv"
    save_puzzles(generate_puzzles(TASK, 12, seed=0), path)
    return path


def test_evaluate_is_eval(bundles, csv, capsys):
    def printed(*arguments):
        with pytest.raises(SystemExit):
            main(["eval", *map(str, arguments), "--json"])
        return json.loads(capsys.readouterr().out)

    one = he.evaluate(bundles["host"], csv, by="source,segments")
    assert one.to_dict() == printed(bundles["host"], "--data", csv, "--by", "source,segments")
    assert one.exact == one[0].exact == one.to_dict()["exact"]
    assert "solved of 12 puzzles" in str(one)
    both = he.evaluate([he.load(bundles["host"]), bundles["graph"]], data=str(csv), n=5, seed=1)
    assert both.to_dict() == printed(bundles["host"], bundles["graph"], "--data", csv, "--n", 5, "--seed", 1)
    assert both[1].agreement["answers_differ"] == 0


def test_check_raises_what_fails_with_all_verdicts(bundles, csv, tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    rules = 'bundle = "{}"\ndata = "{}"\nmin_exact = {}\nmax_size_mb = 5\n'
    head = 'when_unsure = "estimate"\n[[check]]\nname = "toy"\n'
    spec.write_text(head + rules.format(bundles["host"], csv, 0.01))
    passed = he.check(spec, markdown=tmp_path / "summary.md")
    assert not passed.failed
    assert "2 of 2 rules hold" in (tmp_path / "summary.md").read_text()
    spec.write_text(head + rules.format(bundles["host"], csv, 0.01).replace("mb = 5", "mb = 0"))
    with pytest.raises(he.GateFailed, match="max_size_mb") as raised:
        he.check(spec, junit=tmp_path / "junit.xml")
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(spec), "--json"])
    assert stopped.value.code == 1
    assert json.loads(capsys.readouterr().out) == raised.value.report.to_dict()
    with pytest.raises(he.InputError, match="is a folder"):
        he.check(spec, markdown=tmp_path)


def test_an_unchecked_bundle_is_warned_of(bundles):
    with pytest.warns(UserWarning, match="never checked"):
        he.load(bundles["unchecked"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        he.load(bundles["host"])


def test_a_folders_name_commands_no_terminal(tmp_path, csv):
    folder = toys.write_toy_bundle(tmp_path / "\x1b[31mred")
    for shown in (repr(he.load(folder)), str(he.evaluate(folder, csv))):
        assert "\x1b" not in shown
        assert "\\x1b[31mred" in shown


def test_a_script_without_a_guard_is_run_once(tmp_path):
    """Processes that draw puzzles beside it do not run it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('run')\n"
        "from hrm_edge.tasks import get_task, parallel\n"
        "parallel._SERIAL_SECONDS = 0\n"
        "print(len(parallel.generate_distinct(get_task('sudoku-4x4'), 40, 1, processes=2)[0]))\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "run\n40\n"), ended.stderr


def test_functions_that_are_rooms_are_copied_and_pickled():
    importlib.import_module("hrm_edge.solve")
    assert pickle.loads(pickle.dumps(he.solve)) is he.solve is copy.deepcopy(he.solve)


@pytest.mark.parametrize("what", [5, None, ["a"], b"x"])
def test_what_is_no_path_is_refused_in_a_line(what):
    with pytest.raises(InputError, match="load: takes the path of a bundle or a checkpoint, or the name"):
        he.load(what)
