"""Answers and traces of a model: every form of them, printed as the command line prints, computed as torch does."""

import asyncio
import json

import numpy as np
import pytest
import toys

import hrm_edge as he
from hrm_edge.cli import main
from hrm_edge.solve.model import Model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASK = toys.TASK
PUZZLES = toys.unique_puzzles()
LINES = [TASK.format(row) for row in PUZZLES]
ANSWERS = [TASK.format(TASK.solve(row)) for row in PUZZLES]
DIGITS = PUZZLES - 1  # a Sudoku's blank is token 1 and digit 0, its 1 token 2


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "host": toys.write_toy_bundle(folder / "host"),
        "graph": toys.write_toy_bundle(folder / "graph", loop="graph"),
        "three": toys.write_toy_bundle(folder / "three", batch=3),
    }


@pytest.fixture(scope="module")
def model(bundles):
    return he.load(bundles["host"])


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
    monkeypatch.setitem(vars(model.task), "vocabulary", ("<pad>", *["<b>&\x1b"] * 5))
    for shown in (solved._repr_html_(), solved[0]._repr_html_(), trace._repr_html_()):
        assert shown.startswith("<pre ")
        assert shown.endswith("</pre>")
        assert "&lt;b&gt;&amp;" in shown
        assert "<b>" not in shown
        assert "\x1b" not in shown


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
        assert np.array_equal(trace.margin, trace.q[:, 0] - trace.q[:, 1])  # as the toy halts
        if not options:
            assert (trace.margin > 0).tolist() == [False] * (trace.steps - 1) + [trace.halted]


def test_the_margin_is_that_of_the_rule_a_model_was_trained_with():
    pytest.importorskip("torch")
    question = ".2..7..4.8..36...1..65..2........92.48.....63.61........8..57..6...39..5.1..2..9."
    trace = he.load("sudoku-9x9").trace(question, halt="fixed", max_think_steps=2)
    assert np.array_equal(trace.margin, trace.q[:, 0])
    assert (trace.q[:, 1] != 0).any()


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
