"""`hrm-edge solve` end to end on toy bundles: every way in, both ways out, and one line for what is wrong."""

import io
import json
import os
import subprocess
import sys

import commands
import numpy as np
import pytest
import toys

from hrm_edge.bundle import Gate
from hrm_edge.data.formats import Rows
from hrm_edge.errors import InputError
from hrm_edge.solve.answer import Questions, read_puzzles, solve_each

TASK = toys.TASK
PUZZLES = np.stack([row for row in toys.puzzles(20) if TASK.count_solutions(row) == 1])
LINES = [TASK.format(row) for row in PUZZLES]
HARD = "1..............."  # many solutions, none of which the toy finds
FIELDS = ["question", "answer", "verified", "steps", "halted", "ms", "variant", "segments"]


def rows(questions):
    return Rows(questions, np.zeros_like(questions), lambda row: f"row {row}")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("bundles")
    ungated = Gate(False, None, "asked for with --no-gate")
    return {
        "host": str(toys.write_toy_bundle(folder / "host")),
        "graph": str(toys.write_toy_bundle(folder / "graph", loop="graph")),
        "three": str(toys.write_toy_bundle(folder / "three", batch=3)),
        "ungated": str(toys.write_toy_bundle(folder / "ungated", gate=ungated)),
    }


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line → (exit code, stdout, stderr)."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return commands.run(capsys, "solve", *arguments)

    return run


def test_a_board_and_its_verdict(run, bundles):
    code, out, err = run(bundles["host"], LINES[0])
    assert code == 0
    assert err == ""
    assert "verified, " in out
    assert " ms" in out
    assert "·" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("kind", ["host", "graph", "three"])
def test_json_is_one_object_per_puzzle_and_nothing_else(run, bundles, kind):
    code, out, err = run(bundles[kind], "--json", *LINES[:4])
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["question"] for row in rows] == LINES[:4]
    for row, question in zip(rows, PUZZLES, strict=False):
        assert list(row) == FIELDS
        assert row["verified"] is True
        assert row["halted"] is True
        assert row["answer"] == TASK.format(TASK.solve(question))
        assert row["segments"] == row["steps"] >= 1
        assert row["ms"] > 0


def test_all_ways_in_give_the_same(run, bundles, tmp_path):
    text = "\n".join(LINES[:3]) + "\n"
    (tmp_path / "p.txt").write_text(text)
    (tmp_path / "p.csv").write_text("question\n" + text)
    grids = "\n\n".join(TASK.render(row) for row in PUZZLES[:3])
    answers = [
        run(bundles["host"], "--json", *LINES[:3])[1],
        run(bundles["host"], "--json", str(tmp_path / "p.txt"))[1],
        run(bundles["host"], "--json", str(tmp_path / "p.csv"))[1],
        run(bundles["host"], "--json", stdin=text.encode())[1],
        run(bundles["host"], "--json", "-", stdin=grids.encode())[1],
        run(bundles["host"], "--json", LINES[0], "-", LINES[2], stdin=LINES[1].encode())[1],
    ]
    without_ms = [[{**json.loads(line), "ms": 0} for line in out.splitlines()] for out in answers]
    assert without_ms[0]
    assert all(rows == without_ms[0] for rows in without_ms)


def test_what_does_not_verify_is_said_and_counted(run, bundles):
    code, out, err = run(bundles["host"], HARD, LINES[0])
    assert code == 0
    assert "NOT verified: " in out
    assert "several solutions" in out
    assert "!" in out
    assert err == "hrm-edge: 1 of 2 not verified; --retries 8 thinks again on symmetric variants\n"
    code, out, err = run(bundles["host"], HARD, "--retries", "2", "--json")
    row = json.loads(out)
    assert (row["verified"], row["halted"], row["variant"]) == (False, False, 0)
    assert row["segments"] == 3 * toys.HALT_MAX_STEPS
    assert err == "hrm-edge: 1 of 1 not verified\n"


def test_trace(run, bundles):
    _, out, _ = run(bundles["host"], "--trace", LINES[0])
    assert "segment 1: " in out
    assert "*" in out
    row = json.loads(run(bundles["graph"], "--trace", "--json", LINES[0])[1])
    assert len(row["trace"]) == row["steps"]
    assert row["trace"][-1] == row["answer"]


def test_halting_options(run, bundles):
    fixed = json.loads(run(bundles["host"], "--json", "--halt", "fixed", "--max-think-steps", "5", LINES[0])[1])
    assert (fixed["steps"], fixed["halted"], fixed["verified"]) == (5, False, True)
    verified = json.loads(run(bundles["graph"], "--json", "--halt", "verified", "--threads", "1", LINES[0])[1])
    assert verified["halted"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_ungated_bundle_is_named_each_time(run, bundles, options):
    code, out, err = run(bundles["ungated"], LINES[0], *options)
    assert code == 0
    assert err.startswith("hrm-edge: warning: ")
    assert "never checked (asked for with --no-gate)" in err
    if options:
        json.loads(out)


BAD_INPUT = {
    "too short": (["1" * 15], "puzzle has 15 characters, expected 16"),
    "nothing": ([""], "an empty text is no puzzle"),
    "the second is nothing": ([HARD, "  "], "puzzle 2: an empty text is no puzzle"),
    "a letter": (["1...x..........."], "'x' at position 5 (row 2, column 1)"),
    "two of a kind": (["11.............."], "two 1s in row 1 (columns 1 and 2)"),
    "no solution": (["12..3..4........"], "the puzzle has no solution"),
    "the second is wrong": ([HARD, "11.............."], "puzzle 2: not a sudoku-4x4 puzzle: two 1s"),
    "no such file": (["puzzles.csv"], "puzzles.csv"),
    "unknown halting": ([HARD, "--halt", "never"], "halt must be one of learned, fixed, verified"),
    "no segments": ([HARD, "--max-think-steps", "0"], "max_think_steps must be"),
    "negative retries": ([HARD, "--retries=-1"], "retries must be"),
    "no threads": ([HARD, "--threads", "0"], "Invalid value for '--threads'"),
    "a name with a NUL": (["1\0"], "puzzle has 2 characters"),
    "no UTF-8": (["\udcff\udcfe"], r"hrm-edge: \udcff\udcfe is not text: it has bytes that are not UTF-8"),
    "the second is no UTF-8": ([HARD, "1\udcff"], r"hrm-edge: puzzle 2: 1\udcff is not text"),
    "taken for packed": (["BZh91AY&SY"], "hrm-edge: the text is a damaged bzip2 file"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_2(run, bundles, case):
    arguments, expected = BAD_INPUT[case]
    code, out, err = run(bundles["host"], *arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


BAD_STDIN = {
    "nothing": (b"", "no puzzle given"),
    "blank lines": (b"\n\n", "no puzzle given"),
    "not text": (b"\xff\xfe\x00", "not UTF-8"),
    "one bad line": (f"{LINES[0]}\n12x\n".encode(), "line 2"),
}


@pytest.mark.parametrize("case", BAD_STDIN)
def test_bad_standard_input(run, bundles, case):
    content, expected = BAD_STDIN[case]
    code, out, err = run(bundles["host"], stdin=content)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


def test_what_has_no_solution_is_refused_first_where_asked_and_else_told(run, bundles):
    content = f"{LINES[0]}\n12..3..4........\n".encode()
    code, out, err = run(bundles["host"], "--check-solvable", stdin=content)
    assert (code, out) == (2, "")
    assert "puzzle 2: the puzzle has no solution" in err
    code, out, err = run(bundles["host"], stdin=content)
    assert code == 0
    assert "NOT verified: the puzzle has no solution; check its givens" in out
    assert "1 of 2 not verified" in err


def test_bad_bundles(run, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    for path, expected in [(tmp_path / "none", "no such bundle"), (tmp_path / "checkpoint", "hrm-edge export")]:
        code, _, err = run(str(path), HARD)
        assert code == 2
        assert expected in err
        assert err.count("\n") == 1


def test_puzzles_are_answered_one_at_a_time_unless_the_batch_is_fixed():
    sizes = []

    def start(tokens):
        sizes.append(len(tokens))
        return toys.start(tokens)

    for engine in (toys.host_engine(), toys.host_engine(batch=2)):
        engine.start = start
        solved = list(solve_each(engine, Questions([rows(PUZZLES[:3])])))
        assert [row.number for row in solved] == [1, 2, 3]
    assert sizes[:4] == [1, 1, 1, 1]
    assert set(sizes[4:]) == {2}


def test_reading_keeps_the_order_and_refuses_what_cannot_be_solved():
    asked = [part.questions for part in read_puzzles([LINES[1], LINES[0]], TASK)]
    assert np.array_equal(np.concatenate(asked), PUZZLES[[1, 0]])
    with pytest.raises(InputError, match="puzzle 3: "):
        list(solve_each(toys.host_engine(), read_puzzles([LINES[0], LINES[1], "4" * 16], TASK)))


def test_a_changed_given_is_named():
    solved = next(solve_each(toys.host_engine(), Questions([rows(PUZZLES[:1])])))
    broken = solved.answer.copy()
    cell = np.flatnonzero(PUZZLES[0] != TASK.blank)[0]
    broken[cell] = 0
    changed = type(solved)(**{**vars(solved), "answer": broken, "verified": False})
    assert changed.why.startswith("it changes the given ")


def test_a_terminal_without_unicode(bundles):
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from hrm_edge.cli import main; main()",
            "solve",
            bundles["host"],
            LINES[0],
            "--trace",
        ],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert result.returncode == 0, result.stderr
    assert b"+------+------+" in result.stdout


def test_a_device_without_torch(bundles):
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'safetensors', 'onnxscript'): sys.modules[name] = None\n"
        "from hrm_edge.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "solve", bundles["graph"], LINES[0], "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["verified"]
