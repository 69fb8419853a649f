"""The Python API: the commands' names, defaults and errors; every way to ask; what is ambiguous is refused."""

import asyncio
import inspect
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import toys

import hrm_edge as he
from hrm_edge.bundle import Gate
from hrm_edge.cli import check as cli_check
from hrm_edge.cli import evaluate as cli_evaluate
from hrm_edge.cli import export as cli_export
from hrm_edge.cli import main
from hrm_edge.cli import solve as cli_solve
from hrm_edge.cli import train as cli_train
from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles, save_puzzles
from hrm_edge.runtimes import GraphLoop
from hrm_edge.solve.model import Model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASK = toys.TASK
PUZZLES = np.stack([row for row in toys.puzzles(20) if TASK.count_solutions(row) == 1])[:4]
LINES = [TASK.format(row) for row in PUZZLES]
ANSWERS = [TASK.format(TASK.solve(row)) for row in PUZZLES]
DIGITS = PUZZLES - 1  # a Sudoku's blank is token 1 and digit 0, its 1 token 2


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    unchecked = Gate(False, None, "asked for with --no-gate")
    return {
        "host": toys.write_toy_bundle(folder / "host"),
        "graph": toys.write_toy_bundle(folder / "graph", loop="graph"),
        "three": toys.write_toy_bundle(folder / "three", batch=3),
        "unchecked": toys.write_toy_bundle(folder / "unchecked", gate=unchecked),
    }


@pytest.fixture(scope="module")
def model(bundles):
    return he.load(bundles["host"])


# -- names, defaults, errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "command", "printing"),
    [
        (he.solve, cli_solve.command, {"as_json"}),
        (he.evaluate, cli_evaluate.command, {"json_"}),
        (he.check, cli_check.command, {"json_"}),
        (he.train, cli_train.command, set()),
        (he.export, cli_export.command, {"as_json"}),
    ],
    ids=["solve", "eval", "check", "train", "export"],
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


# -- asking ----------------------------------------------------------------------------------------------

BOARDS = DIGITS.reshape(-1, 4, 4)
ONE = {
    "text": LINES[0],
    "drawn": TASK.render(PUZZLES[0]),
    "a list of one text": [LINES[0]],
    "rows of text": [LINES[0][row : row + 4] for row in range(0, 16, 4)],
    "cells of text": list(LINES[0]),
    "digits": DIGITS[0].tolist(),
    "rows of digits": BOARDS[0].tolist(),
    "tuples": tuple(map(tuple, BOARDS[0].tolist())),
    "an array": DIGITS[0],
    "an array of rows": BOARDS[0].astype(np.uint8),
    "a batch of one": DIGITS[:1],
    "None for a blank": [[None if cell == 0 else cell for cell in row] for row in BOARDS[0].tolist()],
    "an array of symbols": np.array(list(LINES[0])).reshape(4, 4),
    "an array of objects": np.array([[None if cell == 0 else int(cell) for cell in row] for row in BOARDS[0]]),
}


@pytest.mark.parametrize("way", ONE)
def test_one_puzzle_in_every_way(model, way):
    assert model.solve(ONE[way]).text == ANSWERS[:1]
    assert model.trace(ONE[way]).text[-1] == ANSWERS[0]


MANY = {
    "texts": LINES,
    "a text of lines": "\n".join(LINES),
    "an array of texts": np.array(LINES),
    "a column of a table": np.array(LINES, object),
    "lists": DIGITS.tolist(),
    "lists of rows": BOARDS.tolist(),
    "an array": DIGITS,
    "arrays": list(BOARDS),
    "an array of rows": BOARDS.astype(np.int64),
    "rows of text": [[line[row : row + 4] for row in range(0, 16, 4)] for line in LINES],
    "a puzzle set": PuzzleSet(TASK, PUZZLES, None, ["made"] * len(PUZZLES), "made"),
}


@pytest.mark.parametrize("way", MANY)
@pytest.mark.parametrize("kind", ["host", "graph", "three"])
def test_many_are_answered_as_each_alone(bundles, way, kind):
    solved = he.solve(bundles[kind], MANY[way])
    assert solved.text == ANSWERS
    assert [one.number for one in solved] == [1, 2, 3, 4]


def test_tokens_are_tokens_when_they_are_said_to_be(model):
    for way in (PUZZLES, PUZZLES.reshape(-1, 4, 4), PUZZLES.tolist()):
        solved = model.solve(way, tokens=True)
        assert solved.text == ANSWERS
        assert np.array_equal(solved.questions, PUZZLES)


def test_files_and_texts_and_data(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("\n".join(LINES[1:3]))
    assert model.solve("p.txt").text == ANSWERS[1:3]
    assert model.solve(tmp_path / "p.txt").text == ANSWERS[1:3]
    assert model.solve(["p.txt", LINES[0]]).text == [*ANSWERS[1:3], ANSWERS[0]]
    assert model.solve(LINES[0], data="p.txt").text == ANSWERS[:3]
    assert model.solve(DIGITS[:1], data="p.txt").text == ANSWERS[:3]
    assert model.solve(data="p.txt").text == ANSWERS[1:3]


FULL = DIGITS[0].copy()
FULL[FULL == 0] = 1
REFUSED = {
    "nothing": (None, {}, "no puzzle given"),
    "no puzzles": ([], {}, "no puzzle given"),
    "tokens not said to be": (
        PUZZLES,
        {},
        "is no digit of sudoku-4x4 (0 to 4); if these are tokens, say tokens=True",
    ),
    "either": (
        TASK.solve(PUZZLES[0]) - 1,
        {},
        "can be read in two ways: as tokens (say tokens=True), or as digits",
    ),
    "one of them either": ([DIGITS[0], FULL], {}, "puzzle 2 can be read in two ways"),
    "padding": (DIGITS, {"tokens": True}, "token 0 of puzzle 0, cell"),
    "text as tokens": (LINES[0], {"tokens": True}, "a text has no tokens"),
    "floats": (DIGITS.astype(float), {}, "puzzles can not be float64"),
    "truths": (DIGITS > 0, {}, "puzzles can not be bool"),
    "a negative": (DIGITS - 5, {}, "is no digit"),
    "too short": (DIGITS[:, :15], {}, "not [4, 15]"),
    "a number": (7, {}, "not []"),
    "unlike rows": ([[1, 2], [3]], {}, "puzzles can not be list"),
    "a dictionary": ({"puzzle": LINES[0]}, {}, "puzzles can not be dict"),
    "bytes": (LINES[0].encode(), {}, "puzzles can not be bytes"),
    "a text and an array": ([LINES[0], DIGITS[0]], {}, "a list of texts and of something else"),
    "no solution": ("12..3..4........", {}, "the puzzle has no solution"),
    "two of a kind": ([LINES[0], "11.............."], {}, "puzzle 2: not a sudoku-4x4 puzzle: two 1s in row 1"),
    "a wrong symbol": ([["1", "x", None, None], *[[None] * 4] * 3], {}, "puzzle 1: "),
    "another task's": (generate_puzzles(he.get_task("sudoku-6x6"), 1, seed=0), {}, "holds sudoku-6x6 puzzles"),
    "identifiers of a text": (LINES[0], {"puzzle_identifiers": [0]}, "files have their own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_read_or_be_read_in_two_ways_is_refused(model, case):
    puzzles, options, said = REFUSED[case]
    with pytest.raises(he.InputError) as raised:
        model.solve(puzzles, **options)
    assert said in str(raised.value)
    with pytest.raises(he.InputError):
        model.trace(puzzles, **options)


def test_a_board_without_a_blank_is_read_as_it_is_said(model):
    whole = TASK.solve(PUZZLES[0])
    assert model.solve(whole - 1, tokens=False).text == [TASK.format(whole)]
    assert model.solve(whole, tokens=True).text == [TASK.format(whole)]


def test_digits_above_nine_and_symbols_that_are_no_digits():
    from hrm_edge.solve.questions import questions_of

    def read(puzzles, task, **options):
        return np.concatenate([rows.questions for rows in questions_of(puzzles, task, **options)])

    large = he.get_task("sudoku-16x16")
    board = large.parse("G" + "." * 255)
    assert np.array_equal(read([16] + [0] * 255, large), board[None])
    maze = he.get_task("maze-5x5")
    question = maze.parse("S...G" + "." * 20)
    assert np.array_equal(read(question, maze), question[None])  # numbers are tokens where no digits are
    with pytest.raises(he.InputError, match="has no digits"):
        read(question, maze, tokens=False)
    with pytest.raises(he.InputError, match="padding"):
        read([0] * 25, maze)


def test_what_is_asked_by_example_must_say_that_it_is_tokens():
    """A grid of colours 0 to 9 could be taken for tokens."""
    from hrm_edge.solve.questions import questions_of

    task = he.get_task("arc-6x6")
    grid = np.arange(36).reshape(6, 6) % 10
    for asked in (grid, grid.tolist(), [[1, None], [2, 3]]):
        with pytest.raises(he.InputError, match=r"asked by example: pass task.encode\(grid\) with tokens=True"):
            questions_of(asked, task)
    (rows,) = questions_of(task.encode(grid), task, tokens=True, puzzle_identifiers=3)
    assert np.array_equal(task.decode(rows.questions[0]), grid)
    assert rows.identifiers.tolist() == [3]


# -- answers ---------------------------------------------------------------------------------------------


def test_answers_come_in_every_form(model):
    solved = model.solve(DIGITS)
    assert len(solved) == 4
    assert solved.tokens.dtype == np.int32
    assert np.array_equal(solved.digits, solved.tokens.reshape(-1, 4, 4) - 1)
    assert [TASK.format(row) for row in solved.tokens] == ANSWERS == solved.text
    assert solved.verified.all()
    assert solved.steps.tolist() == [one.steps for one in solved]
    assert isinstance(solved[1:], he.Solutions)
    assert solved[1:].text == ANSWERS[1:]
    assert model.solve(solved.digits, tokens=False).text == ANSWERS
    row = json.loads(json.dumps(solved.to_dict()))
    assert (row["task"], row["n"], row["right"], row["wrong"]) == ("sudoku-4x4", 4, 4, 0)
    assert [each["answer"] for each in row["results"]] == ANSWERS


def test_one_result_is_the_object_of_the_command_line(model, bundles, capsys):
    with pytest.raises(SystemExit):
        main(["solve", str(bundles["host"]), LINES[0], "--json", "--trace"])
    theirs = json.loads(capsys.readouterr().out)
    (ours,) = model.solve(LINES[0], trace=True).to_dict()["results"]
    assert {**ours, "ms": 0} == {**theirs, "ms": 0}


def test_results_print_as_the_command_line_prints_them(model, bundles, capsys):
    with pytest.raises(SystemExit):
        main(["solve", str(bundles["host"]), LINES[0]])
    printed = capsys.readouterr().out
    solved = model.solve(LINES[0])
    for shown in (str(solved), repr(solved), str(solved[0]), repr(solved[0])):
        assert shown.splitlines()[:-1] == printed.splitlines()[:-1]
        assert shown.splitlines()[-1].startswith("verified, ")
    assert model.solve(shown).text == ANSWERS[:1]  # what was printed can be asked


def test_of_many_some_are_printed_and_all_are_counted(model):
    shown = str(model.solve(np.repeat(DIGITS[:1], 14, axis=0)))
    assert shown.count("verified, ") == 12
    assert shown.endswith("2 more; 14 of 14 verified")
    assert str(model.solve("1...............")).count("NOT verified") == 1


def test_a_notebook_shows_text_as_text(model, monkeypatch):
    """A vocabulary may hold anything, and so may what a file says of itself."""
    solved, trace = model.solve(LINES[0]), model.trace(LINES[0])
    monkeypatch.setitem(vars(TASK), "vocabulary", ("<pad>", *["<b>&\x1b"] * 5))
    for shown in (solved._repr_html_(), solved[0]._repr_html_(), trace._repr_html_()):
        assert shown.startswith("<pre ")
        assert shown.endswith("</pre>")
        assert "&lt;b&gt;&amp;" in shown
        assert "<b>" not in shown
        assert "\x1b" not in shown


def test_a_folders_name_commands_no_terminal(tmp_path, csv):
    folder = toys.write_toy_bundle(tmp_path / "\x1b[31mred")
    for shown in (repr(he.load(folder)), str(he.evaluate(folder, csv))):
        assert "\x1b" not in shown
        assert "\\x1b[31mred" in shown


def test_async(model):
    async def both():
        return await asyncio.gather(model.solve_async(LINES[0]), model.solve_async(DIGITS, halt="verified"))

    one, many = asyncio.run(both())
    assert one.text == ANSWERS[:1]
    assert many.text == ANSWERS


def test_options_are_passed_on(model):
    fixed = model.solve(LINES[0], halt="fixed", max_think_steps=5, trace=True)[0]
    assert (fixed.steps, fixed.halted, len(fixed.trace)) == (5, False, 5)
    hard = model.solve("1...............", retries=2, seed=3)[0]
    assert hard.segments == 3 * toys.HALT_MAX_STEPS


def test_an_unchecked_bundle_is_warned_of(bundles):
    with pytest.warns(UserWarning, match="never checked"):
        he.load(bundles["unchecked"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        he.load(bundles["host"])


# -- traces ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["host", "graph", "three"])
@pytest.mark.parametrize("options", [{}, {"halt": "verified"}, {"halt": "fixed", "max_think_steps": 4}])
def test_a_trace_is_what_solve_traces(bundles, kind, options):
    model = he.load(bundles[kind])
    for line in LINES:
        trace = model.trace(line, **options)
        answers = model.engine.solve(TASK.parse(line)[None], trace=True, **options)
        assert np.array_equal(trace.guesses, answers.trace[:, 0])
        assert np.array_equal(trace.q[-1], answers.q[0])
        assert (trace.steps, trace.halted) == (answers.steps[0], answers.halted[0])


def test_states_of_a_host_loop_and_of_a_graph(bundles):
    """The toy's own numpy twin, one segment after the other."""
    trace = he.load(bundles["three"]).trace(LINES[0])
    e, *state = toys.start(PUZZLES[:1])
    for step in range(trace.steps):
        *state, logits, q = toys.segment(*state, e)
        assert np.array_equal(trace.logits[step], logits[0])
        assert np.array_equal(trace.q[step], q[0])
        for name, expected in zip(("z_H", "z_L"), state, strict=True):
            assert np.array_equal(trace.states[name][step], expected[0])
    graph = he.load(bundles["graph"]).trace(LINES[0])
    assert np.array_equal(graph.guesses, trace.guesses)
    for what in ("logits", "states"):
        with pytest.raises(he.InputError, match=f"shows no {what} of its segments; .* --loop host"):
            getattr(graph, what)


def test_a_trace_of_the_network_itself():
    """Against the plain torch loop, segment by segment."""
    torch = pytest.importorskip("torch")
    from pathlib import Path

    import small_networks

    from hrm_edge.models.engine import TorchEngine

    checkpoint = small_networks.checkpoint()
    model = Model(TorchEngine(checkpoint), Path("small"), "small")
    trace = model.trace(LINES[0], halt="fixed", max_think_steps=3)
    network, tokens = checkpoint.model, torch.from_numpy(PUZZLES[:1])
    e, (z_H, z_L) = network.embed(tokens), network.initial_state(1)
    for step in range(3):
        z_H, z_L, logits, q = network.segment(z_H, z_L, e)
        for ours, theirs in (
            (trace.states["z_H"][step], z_H),
            (trace.states["z_L"][step], z_L),
            (trace.logits[step], logits),
            (trace.q[step], q),
        ):
            assert np.array_equal(ours, theirs[0].numpy())
        assert np.array_equal(trace.guesses[step], logits[0].argmax(-1).numpy())


def test_a_trace_over_slots_gives_them_back():
    from hrm_edge.runtimes import SlotLoop

    made = []

    class Slots:
        def put(self, slots, tokens, identifiers):
            self.e, *self.state = toys.start(np.repeat(tokens[:1], 3, axis=0))

        def think(self):
            *self.state, logits, q = toys.segment(*self.state, self.e)
            return logits, q

    def make():
        made.append(Slots())
        return made[-1]

    engine = SlotLoop(TASK, toys.HALT_MAX_STEPS, make, backend="toy", batch=3)
    model = Model(engine, None, "toy")
    expected = Model(toys.host_engine(), None, "toy").trace(LINES[0])
    for _ in range(3):
        trace = model.trace(LINES[0])
        assert np.array_equal(trace.guesses, expected.guesses)
        assert np.array_equal(trace.logits, expected.logits)
        with pytest.raises(he.InputError, match="shows no states"):
            _ = trace.states
    assert len(made) == 1


def test_a_trace_prints_and_is_one_puzzles(model):
    trace = model.trace(LINES[0])
    assert str(trace).startswith("segment 1: ")
    row = json.loads(json.dumps(trace.to_dict()))
    assert len(row["segments"]) == row["steps"] == trace.steps
    assert row["segments"][-1]["guess"] == row["answer"] == ANSWERS[0]
    with pytest.raises(he.InputError, match="a trace is of one puzzle, not of 4"):
        model.trace(DIGITS)
    assert isinstance(he.load(model.path).engine, type(model.engine))
    assert not isinstance(model.engine, GraphLoop)


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
