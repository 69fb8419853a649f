"""A file of very many puzzles: the first answer comes at once, and nobody pays for puzzles that nobody wants."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import toys
from commands import exit_code as run

from hrm_edge import progress
from hrm_edge.data import choose
from hrm_edge.data.puzzles import load_puzzles, open_puzzles
from hrm_edge.errors import InputError
from hrm_edge.runtimes import GraphLoop
from hrm_edge.solve import answer

pytest.importorskip("onnxruntime")

TASK = toys.TASK
MANY = 1000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    toys.write_toy_bundle(folder / "toy", loop="graph")
    lines = TASK.format_many(toys.puzzles(MANY))
    (folder / "p.txt").write_text("\n".join(lines))
    (folder / "p.csv").write_text(
        "\n".join(["source,question", *(f"s{i % 3},{line}" for i, line in enumerate(lines))])
    )
    return folder


@pytest.fixture
def worked(monkeypatch):
    """Grows with every puzzle that the exact solver is asked about."""
    asked = []
    real = type(TASK).solve
    monkeypatch.setattr(type(TASK), "solve", lambda task, question: asked.append(1) or real(task, question))
    return asked


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "-"])
def test_no_more_than_a_part_is_looked_at_before_the_first_answer(made, worked, monkeypatch, name):
    at = []
    monkeypatch.setattr("hrm_edge.cli.solve.echo_json", lambda content: at.append(len(worked)))
    if name == "-":
        monkeypatch.setattr("sys.stdin", (made / "p.txt").open())
    source = name if name == "-" else made / name
    assert run("solve", made / "toy", source, "--json", "--check-solvable", "--streams", "1") == 0
    assert len(at) == MANY
    assert at[0] <= 2 * answer._CHECKED
    assert at[-1] == MANY


def test_no_exact_solver_is_asked_unless_one_wants(made, worked):
    assert run("solve", made / "toy", made / "p.txt", "--json", "--streams", "2") == 0
    assert worked == []


def test_a_fixed_batch_is_filled_with_what_was_read(made):
    batch = 48
    questions, calls = answer.read_puzzles([str(made / "p.txt")], TASK), []

    def looped(tokens, *rest):
        calls.append(len(np.unique(tokens, axis=0)))
        return toys.looped(tokens, *rest)

    engine = GraphLoop(TASK, toys.HALT_MAX_STEPS, looped, backend="toy", batch=batch)
    assert len(list(answer.solve_each(engine, questions, warm_up=False))) == MANY
    assert max(calls) > batch / 2  # a few are alike; and the first calls take what has come by then
    assert len(calls) < MANY / 4


def test_what_cannot_be_solved_is_told_when_its_turn_comes(made, tmp_path, capsys):
    lines = (made / "p.txt").read_text().splitlines()
    lines[200] = "11" + "." * 14
    (tmp_path / "wrong.txt").write_text("\n".join(lines))
    assert run("solve", made / "toy", tmp_path / "wrong.txt", "--json") == 2
    out, err = capsys.readouterr()
    answered = [json.loads(line) for line in out.splitlines()]
    assert 0 < len(answered) <= 200
    assert [row["question"] for row in answered] == lines[: len(answered)]
    assert "puzzle 201" in err


def test_answers_that_nobody_sees_have_their_progress(made, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    assert run("solve", made / "toy", made / "p.txt", "--json") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == MANY
    assert f"puzzles: 500 of {MANY}, about " in err


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (["eval", "toy", "--data", "p.txt", "--n", "3"], 3),
        (["eval", "toy", "--data", "p.csv", "--n", "3", "--seed", "1"], 3),
        (["data", "show", "p.txt", "--task", "sudoku-4x4", "--n", "1"], 1),
        (["data", "show", "p.csv", "--task", "sudoku-4x4", "--n", "2"], 2),
        (["analyze", "halting", "toy", "--data", "p.txt", "--n", "3"], 3),
    ],
)
def test_a_few_cost_a_few(made, worked, monkeypatch, capsys, arguments, most):
    monkeypatch.chdir(made)
    assert run(*arguments) == 0
    assert len(worked) == most
    if arguments[0] == "data":
        assert f"{MANY} puzzles: " in capsys.readouterr().out


def test_all_of_them_are_worked_out_with_progress(made, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    assert run("eval", made / "toy", "--data", made / "p.txt") == 0
    assert f"answers worked out: 500 of {MANY}, about " in capsys.readouterr().err


def test_those_drawn_are_those_of_the_whole_set(made):
    for name in ("p.txt", "p.csv"):
        whole, some = load_puzzles(made / name, TASK).take(7, 3), open_puzzles(made / name, TASK).drawn(7, 3)
        assert some.content_hash() == whole.content_hash()
        assert some.sources == whole.sources
    assert len(open_puzzles(made / "p.txt", TASK).drawn(2 * MANY, 0)) == MANY


def test_a_wrong_row_is_named_by_its_place_in_the_file(made, tmp_path):
    lines = (made / "p.csv").read_text().splitlines()
    lines[5] = "s," + "11" + "." * 14
    (tmp_path / "wrong.csv").write_text("\n".join(lines))
    file = open_puzzles(tmp_path / "wrong.csv", TASK)
    assert len(file.checked([0, 7])) == 2
    with pytest.raises(InputError, match=r"wrong\.csv line 6: "):
        file.checked([7, 4, 0])


def test_the_gate_pays_for_those_it_asks(made, worked):
    few, more = (choose.gate_puzzles(SimpleNamespace(task=TASK), made / "p.txt", n) for n in (3, 5))
    assert len(worked) == 3 + 5
    assert (more.questions[:3] == few.questions).all()
