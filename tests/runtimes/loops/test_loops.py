"""Both halting loops on a toy network: stopping, freezing, refilling, and rows that never touch each other."""

import threading
import time

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.errors import ArtifactError, InputError
from hrm_edge.runtimes import HALT_MODES, Answers, Engine, GraphLoop, HostLoop
from hrm_edge.tasks import get_task

PUZZLES = toys.puzzles(30)
ENGINES = {"host": toys.host_engine, "graph": toys.graph_engine}


def same(one: Answers, two: Answers) -> bool:
    fields = ("tokens", "steps", "halted", "q")
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in fields)


def rows_of(answers: Answers, rows: np.ndarray) -> Answers:
    return Answers(answers.tokens[rows], answers.steps[rows], answers.halted[rows], answers.q[rows])


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("halt", HALT_MODES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_row_does_not_depend_on_its_neighbours(kind, halt, data):
    chosen = np.array(data.draw(st.lists(st.integers(0, len(PUZZLES) - 1), min_size=1, max_size=12)))
    limit = data.draw(st.integers(1, 6))
    room = data.draw(st.integers(1, 9))
    option = {"batch": room} if data.draw(st.booleans()) else {"slots" if kind == "host" else "rows": room}
    engine = ENGINES[kind](**option)
    together = engine.solve(PUZZLES[chosen], limit, halt)
    alone = ENGINES[kind](batch=1).solve(PUZZLES, limit, halt)
    assert same(together, rows_of(alone, chosen))


@pytest.mark.parametrize("halt", HALT_MODES)
def test_both_loops_agree(halt):
    host = toys.host_engine().solve(PUZZLES, halt=halt, trace=True)
    graph = toys.graph_engine().solve(PUZZLES, halt=halt, trace=True)
    assert same(host, graph)
    assert np.array_equal(host.trace, graph.trace)


@pytest.mark.parametrize("kind", ENGINES)
def test_shapes_and_dtypes(kind):
    answers = ENGINES[kind]().solve(PUZZLES[:5], trace=True)
    assert answers.tokens.shape == (5, 16)
    assert answers.q.shape == (5, 2)
    assert answers.trace.shape == (answers.steps.max(), 5, 16)
    types = [array.dtype for array in (answers.tokens, answers.steps, answers.halted, answers.q, answers.trace)]
    assert types == [np.int32, np.int32, bool, np.float32, np.int32]


@pytest.mark.parametrize("kind", ENGINES)
def test_fixed_runs_exactly_as_long_as_asked(kind):
    answers = ENGINES[kind]().solve(PUZZLES, max_think_steps=11, halt="fixed")
    assert (answers.steps == 11).all()
    assert not answers.halted.any()


@pytest.mark.parametrize("kind", ENGINES)
def test_learned_stops_where_the_halting_head_first_says_so(kind):
    learned = ENGINES[kind]().solve(PUZZLES)
    head = np.stack(
        [ENGINES[kind]().solve(PUZZLES, count, "fixed").q for count in range(1, toys.HALT_MAX_STEPS + 1)]
    )
    wants = head[:, :, 0] > head[:, :, 1]
    expected = np.where(wants.any(axis=0), wants.argmax(axis=0) + 1, toys.HALT_MAX_STEPS)
    assert np.array_equal(learned.steps, expected)
    assert np.array_equal(learned.halted, wants.any(axis=0))


@pytest.mark.parametrize("kind", ENGINES)
def test_verified_never_stops_on_a_wrong_board(kind):
    answers = ENGINES[kind]().solve(PUZZLES, halt="verified", trace=True)
    right = toys.TASK.verify(PUZZLES, answers.tokens)
    assert np.array_equal(answers.halted, right)
    assert (answers.steps[~right] == toys.HALT_MAX_STEPS).all()
    for row, steps in enumerate(answers.steps):  # and it stops on the first right one
        earlier = answers.trace[: steps - 1, row]
        assert not toys.TASK.verify(np.repeat(PUZZLES[row : row + 1], len(earlier), axis=0), earlier).any()


@pytest.mark.parametrize("kind", ENGINES)
def test_trace_ends_in_the_answer_and_repeats_it(kind):
    answers = ENGINES[kind]().solve(PUZZLES, trace=True)
    assert np.array_equal(answers.trace[-1], answers.tokens)
    for row, steps in enumerate(answers.steps):
        assert (answers.trace[steps - 1 :, row] == answers.tokens[row]).all()


class Drifting(HostLoop):
    """A network whose guess changes with every segment, to see that halted rows are left alone."""

    def __init__(self, stop_at: np.ndarray, **options):
        self.rows_seen: list[int] = []

        def start(tokens):
            state = np.zeros((len(tokens), 16, 2), np.float32)
            state[:, :, 1] = tokens[:, :1]
            return [state, state, state]

        def segment(z_H, z_L, e):
            self.rows_seen.append(len(z_H))
            age = z_H[:, :, :1] + 1
            logits = (np.arange(6) == age % 6).astype(np.float32) * np.ones((1, 16, 1), np.float32)
            wanted = stop_at[e[:, 0, 1].astype(int)]
            q = np.stack([age[:, 0, 0], wanted - 0.5], axis=1).astype(np.float32)
            return [np.concatenate([age, z_H[:, :, 1:]], axis=2), z_L, logits, q]

        super().__init__(toys.TASK, 8, start, segment, backend="drifting", **options)


def test_finished_rows_leave_and_waiting_ones_take_their_place():
    tokens = np.ones((6, 16), np.int32) * np.array([[1], [2], [3], [1], [1], [2]], np.int32)
    engine = Drifting(np.array([0, 1, 3, 5]), slots=2)
    answers = engine.solve(tokens)
    assert answers.steps.tolist() == [1, 3, 5, 1, 1, 3]
    assert (answers.tokens[:, 0] == answers.steps % 6).all()
    # 14 segments of one row each are needed in all; two slots are full until the last puzzle is begun.
    assert engine.rows_seen == [2, 2, 2, 2, 2, 2, 1, 1]


def test_a_fixed_batch_always_gets_its_rows():
    tokens = np.ones((5, 16), np.int32)
    engine = Drifting(np.array([0, 2]), batch=4)
    assert engine.solve(tokens).steps.tolist() == [2] * 5
    assert set(engine.rows_seen) == {4}


@pytest.mark.parametrize("kind", ENGINES)
def test_no_puzzles_no_answers(kind):
    answers = ENGINES[kind]().solve(np.zeros((0, 16), np.int32), trace=True)
    assert answers.tokens.shape == (0, 16)
    assert answers.trace.shape == (0, 0, 16)


BAD = {
    "one puzzle without its batch axis": ((PUZZLES[0],), "shape [B, 16]"),
    "too long": ((np.ones((2, 17), np.int32),), "shape [B, 16]"),
    "ragged": (([[1, 2], [3]],), "[B, 16]"),
    "floats": ((PUZZLES.astype(np.float32),), "integers"),
    "text": (([["a"] * 16],), "integers"),
    "unknown token": ((np.full((1, 16), 6),), "token 6 of puzzle 0, cell 0"),
    "negative token": ((np.full((1, 16), -1),), "token -1"),
    "no segments": ((PUZZLES, 0), "at least 1"),
    "half a segment": ((PUZZLES, 1.5), "at least 1"),
    "true segments": ((PUZZLES, True), "at least 1"),
    "endless": ((PUZZLES, 2**40), "at least 1"),
    "unknown halting": ((PUZZLES, 3, "never"), "learned, fixed, verified"),
    "unhashable halting": ((PUZZLES, 3, ["learned"]), "learned, fixed, verified"),
    "identifiers out of range": ((PUZZLES, 3, "fixed", False, np.ones(30, np.int32)), "between 0 and 0"),
    "too few identifiers": ((PUZZLES, 3, "fixed", False, np.zeros(2, np.int32)), "shape (30,)"),
}


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("case", BAD)
def test_wrong_arguments_give_one_line(kind, case):
    arguments, expected = BAD[case]
    with pytest.raises(InputError) as caught:
        ENGINES[kind]().solve(*arguments)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_integers_of_any_width_are_welcome():
    wanted = toys.host_engine().solve(PUZZLES)
    for dtype in (np.uint8, np.int64):
        assert same(toys.host_engine().solve(PUZZLES.astype(dtype), np.int64(8)), wanted)
    assert same(toys.host_engine().solve(PUZZLES.tolist()), wanted)


def test_identifiers_reach_the_network():
    seen = []

    def start(tokens, identifiers):
        seen.append(identifiers.tolist())
        return toys.start(tokens)

    engine = HostLoop(toys.TASK, 8, start, toys.segment, backend="toy", batch=2, num_puzzle_identifiers=4)
    engine.solve(PUZZLES[:3], 1, puzzle_identifiers=np.array([3, 1, 2]))
    engine.solve(PUZZLES[:1], 1)
    assert seen == [[3, 1], [2, 2], [0, 0]]

    def model(tokens, limit, halt, identifiers):
        seen.append(identifiers.tolist())
        return toys.looped(tokens, limit, halt)

    graph = GraphLoop(toys.TASK, 8, model, backend="toy", rows=2, num_puzzle_identifiers=4)
    graph.solve(PUZZLES[:3], 1, puzzle_identifiers=np.array([3, 1, 2]))
    assert seen[3:] == [[3, 1], [2]]


@pytest.mark.parametrize(
    ("options", "alone", "together"), [({}, [1] * 9, [8, 1]), ({"batch": 4}, [4] * 3, [4] * 3)]
)
def test_a_row_waits_for_no_other_unless_several_are_asked_for(options, alone, together):
    seen = []

    def model(tokens, limit, halt):
        seen.append(len(tokens))
        return toys.looped(tokens, limit, halt)

    engine = GraphLoop(toys.TASK, 8, model, backend="toy", **options)
    wanted = engine.solve(PUZZLES[:9])
    assert seen == alone
    seen.clear()
    assert same(engine.in_whole_calls().solve(PUZZLES[:9]), wanted)
    assert seen == together


def test_verified_in_a_graph_needs_a_rule_it_can_hold():
    class Ungrouped(type(toys.TASK)):
        def __init__(self):
            super().__init__(2, 2)
            self.groups = None

    engine = GraphLoop(Ungrouped(), 8, toys.looped, backend="toy")
    with pytest.raises(InputError, match="--loop host"):
        engine.solve(PUZZLES, halt="verified")
    assert len(engine.solve(PUZZLES).tokens) == 30


def test_no_ACT_continue_halts_on_the_sign_of_one_value():
    engine = toys.host_engine(no_ACT_continue=True)
    assert engine.halts(np.array([[0.5, 9], [-0.5, -9]])).tolist() == [True, False]
    assert toys.host_engine().halts(np.array([[0.5, 9], [-0.5, -9]])).tolist() == [False, True]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("halt", HALT_MODES)
@pytest.mark.parametrize("kind", ENGINES)
def test_no_answer_is_told_of_a_network_that_computes_no_numbers(kind, halt, value):
    def spoiled(outputs):
        outputs[-1][-1, 1] = value  # of the last row alone
        return outputs

    if kind == "host":
        engine = HostLoop(toys.TASK, 8, toys.start, lambda *state: spoiled(toys.segment(*state)), backend="toy")
    else:
        engine = GraphLoop(toys.TASK, 8, lambda *asked: spoiled(toys.looped(*asked)), backend="toy")
    with pytest.raises(ArtifactError, match=rf"halting head's values are \[.*{value}\], as toy .*; export"):
        engine.solve(PUZZLES[:3], halt=halt)


def test_a_logit_may_forbid_a_token_but_must_be_a_number():
    def engine(value):
        def segment(*state):
            z_H, z_L, logits, q = toys.segment(*state)
            logits[..., 0] = value  # padding
            return z_H, z_L, logits, q

        return HostLoop(toys.TASK, 8, toys.start, segment, backend="toy")

    assert same(engine(-np.inf).solve(PUZZLES), toys.host_engine().solve(PUZZLES))
    with pytest.raises(ArtifactError, match="logits that are no numbers"):
        engine(np.nan).solve(PUZZLES)


@pytest.mark.parametrize("kind", ENGINES)
def test_many_threads_one_engine(kind):
    engine: Engine = ENGINES[kind](**{"slots" if kind == "host" else "rows": 3})
    wanted = engine.solve(PUZZLES)
    results: dict[int, Answers] = {}

    def work(number: int) -> None:
        time.sleep(0.001 * (number % 3))
        results[number] = engine.solve(np.roll(PUZZLES, number, axis=0))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, answers in results.items():
        assert same(rows_of(answers, np.roll(np.arange(30), -number)), wanted)
    assert len(results) == 8


@pytest.mark.parametrize("kind", ENGINES)
def test_digits_that_are_passed_as_tokens_are_told_from_tokens(kind):
    """Their blanks are 0, which is padding: whoever passes them gets the wrong answer to another question."""
    engine = ENGINES[kind]()
    digits = np.where(PUZZLES[:3] == toys.TASK.blank, 0, PUZZLES[:3] - 1)
    with pytest.raises(InputError) as caught:
        engine.solve(digits)
    said = str(caught.value)
    assert "of puzzle 0, cell" in said
    assert (
        "is padding, which no question of sudoku-4x4 holds; its tokens are 1 for '.', 2 for '1' … 5 for '4'" in said
    )
    assert said.endswith("use task.parse(text)")


def test_a_task_says_which_tokens_a_question_may_have():
    assert get_task("sudoku").question_tokens.tolist() == list(range(1, 11))
    assert get_task("maze-30x30").question_tokens.tolist() == [1, 2, 3, 4]  # a path is what is asked for
    assert get_task("arc").question_tokens.tolist() == list(range(12))  # a grid stands in padding
    for name in ("sudoku-4x4", "maze-6x6"):
        task = get_task(name)
        questions, _ = task.generate(5, np.random.default_rng(0))
        assert np.isin(questions, task.question_tokens).all()


# What a stranger's graph may give in place of one output: tokens of no symbol, other shapes, other kinds.
SPOILED_MODEL = {
    "answers": (lambda answer: answer + 1000, "tokens from 100"),
    "negative": (lambda answer: answer - 1000, "tokens from -"),
    "fewer cells": (lambda answer: answer[:, :2], "int32 of shape"),
    "floats": (lambda answer: answer.astype(np.float32), "float32 of shape"),
}


@pytest.mark.parametrize("spoil", SPOILED_MODEL)
def test_a_graph_loop_that_gives_what_is_no_answer_is_refused_in_one_line(spoil):
    change, said = SPOILED_MODEL[spoil]

    def model(*inputs):
        answer, steps, q = toys.looped(*inputs)
        return [change(answer), steps, q]

    with pytest.raises(InputError, match=said) as refused:
        GraphLoop(toys.TASK, 8, model, backend="toy").solve(PUZZLES[:3])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("output", range(4))
@pytest.mark.parametrize("change", [lambda x: x[..., :1], lambda x: x[:1], lambda x: x.astype(np.int32)])
def test_a_segment_that_gives_something_else_is_refused_in_one_line(output, change):
    def segment(*states):
        outputs = toys.segment(*states)
        outputs[output] = change(outputs[output])
        return outputs

    with pytest.raises(InputError, match="the artifact gives"):
        HostLoop(toys.TASK, 8, toys.start, segment, backend="toy").solve(PUZZLES[:3])


def test_a_start_whose_states_change_their_shape_is_refused_in_one_line():
    calls = []

    def start(tokens):
        calls.append(tokens)
        return [state[..., : 4 - (len(calls) > 1)] for state in toys.start(tokens)]

    def segment(z_H, z_L, e):
        return toys.segment(z_H, z_L, e)

    with pytest.raises(InputError, match="the artifact gives e as"):
        HostLoop(toys.TASK, 8, start, segment, backend="toy", slots=2).solve(PUZZLES)


@pytest.mark.parametrize("took", [0, -3, 5, 2**31 - 1])
@pytest.mark.parametrize("rows", [1, 3])
def test_steps_that_no_loop_took_are_refused_in_one_line(took, rows):
    """Else they are told as what was thought, and a trace asks for each of them."""
    asked = []

    def model(tokens, limit, halt):
        asked.append(int(limit))
        answer, steps, q = toys.looped(tokens, limit, halt)
        return [answer, np.append(steps[:-1], np.int32(took)), q]

    with pytest.raises(InputError, match=f"it took .*{took} .*segments, and at most 4 were asked for"):
        GraphLoop(toys.TASK, 8, model, backend="toy").solve(PUZZLES[:rows], 4, trace=True)
    assert asked == [4]
