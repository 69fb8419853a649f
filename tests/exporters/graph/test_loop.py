"""The loop in the graph: rows halt each by itself and are frozen, and `verified` accepts what the task accepts."""

import functools

import numpy as np
import onnx
import pytest
from lowered import at_batch, program
from onnx import TensorProto, helper, numpy_helper
from run_onnx import run
from small_networks import TASK, think

from hrm_edge.exporters.graph.edit import PassFailed, subgraphs
from hrm_edge.exporters.graph.loop import wrap_in_loop
from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.quantize.fp16 import convert
from hrm_edge.halting import RULES, HaltRule
from hrm_edge.precision import PRECISIONS
from hrm_edge.runtimes import HALT_MODES
from hrm_edge.tasks import get_task

BACKENDS = ("onnx", "openvino")
ROWS, STEPS = 9, 6
LEARNED, FIXED, VERIFIED = (rule.number for rule in RULES.values())


@pytest.fixture
def looped(each):
    model, start, segment = each
    return model, wrap_in_loop(start, segment, TASK, model.config.no_ACT_continue)


def feeds(model, rows=ROWS, steps=STEPS, halt=LEARNED):
    values = {
        "tokens": TASK.generate(rows, np.random.default_rng(1))[0],
        "max_think_steps": np.array(steps, np.int32),
        "halt": np.array(halt, np.int32),
    }
    if model.config.num_puzzle_identifiers > 1:
        values["puzzle_identifiers"] = np.arange(rows, dtype=np.int32) % 5
    return values


def expected(model, values, learned=True):
    return think(model, values["tokens"], int(values["max_think_steps"]), values.get("puzzle_identifiers"), learned)


def assert_same(outputs, answer, steps, q):
    np.testing.assert_array_equal(outputs["steps"], steps)
    np.testing.assert_array_equal(outputs["answer"], answer)
    np.testing.assert_allclose(outputs["q"], q, atol=1e-4)
    assert {name: value.dtype for name, value in outputs.items()} == {
        "answer": np.int32,
        "steps": np.int32,
        "q": np.float32,
    }


def test_modes_have_the_numbers_that_bundles_hold():
    assert {name: HALT_MODES.index(name) for name in HALT_MODES} == {"learned": 0, "fixed": 1, "verified": 2}
    assert [rule.number for rule in RULES.values()] == [0, 1, 2]


def test_a_numbered_rule_without_a_form_in_the_graph_stops_the_export(monkeypatch):
    monkeypatch.setitem(RULES, "once", HaltRule("once", 3, "at once", lambda task, questions, guesses, says: says))
    with pytest.raises(PassFailed, match=r"no form in the graph for the halting rules \['once'\]"):
        wrap_in_loop(*scripted(), TASK, False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_row_halts_by_itself_and_is_frozen(looped, backend):
    """As if alone: q, answer and steps are those of the segment in which the row halted."""
    model, loop = looped
    values = feeds(model)
    answer, steps, q = expected(model, values)
    assert len(set(steps.tolist())) > 1  # otherwise this would show nothing
    assert_same(run(backend, loop, values), answer, steps, q)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", [1, 4])
def test_fixed_runs_exactly_as_many_segments_as_asked(looped, backend, steps):
    model, loop = looped
    values = feeds(model, rows=2, steps=steps, halt=FIXED)
    answer, counted, q = expected(model, values, learned=False)
    assert counted.tolist() == [steps, steps]
    assert_same(run(backend, loop, values), answer, counted, q)


def _in_core_ml(model, values):
    return program(at_batch(model, len(values["tokens"])))(values)


EVERYWHERE = {**{name: functools.partial(run, name) for name in BACKENDS}, "coreml": _in_core_ml}


@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("steps", [-(2**31), -1, 0, 1])
def test_a_call_that_asks_for_no_segment_gets_one(traced, backend, steps):
    """Of the graph itself: callers in other languages have none of our checks before it."""
    model, start, segment = traced("grid")
    loop = wrap_in_loop(start, segment, TASK, model.config.no_ACT_continue)
    values = feeds(model, rows=2, steps=steps, halt=FIXED)
    answer, counted, q = expected(model, {**values, "max_think_steps": 1}, learned=False)
    assert_same(EVERYWHERE[backend](loop, values), answer, counted, q)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_numbers_that_no_table_has_are_the_nearest_it_has(traced, backend):
    """Tokens and puzzle identifiers alike, in every backend alike, single rows too."""
    model, start, segment = traced("learned")
    loop = wrap_in_loop(start, segment, TASK, model.config.no_ACT_continue)
    near = feeds(model, rows=4, steps=2, halt=FIXED)
    far = {name: value.copy() for name, value in near.items()}
    last, lowest, highest = TASK.vocab_size - 1, -(2**31), 2**31 - 1
    for row, (wrong, right) in enumerate([(-1, 0), (lowest, 0), (last + 1, last), (highest, last)]):
        far["tokens"][row, row], near["tokens"][row, row] = wrong, right
    far["puzzle_identifiers"][:] = [-1, lowest, 5, highest]
    near["puzzle_identifiers"][:] = [0, 0, 4, 4]
    answer, counted, q = expected(model, near, learned=False)
    assert_same(EVERYWHERE[backend](loop, far), answer, counted, q)
    single = {name: value[:1] if value.ndim else value for name, value in far.items()}
    assert_same(EVERYWHERE[backend](loop, single), answer[:1], counted[:1], q[:1])


def test_the_loop_ends_with_its_last_row(looped):
    """A trip count no machine could work off: it returns because every row has halted."""
    model, loop = looped
    values = feeds(model)
    steps = expected(model, values)[1]
    if steps.max() == STEPS:
        values = {n: v[steps < STEPS] if v.ndim else v for n, v in values.items()}
    values["max_think_steps"] = np.array(2**31 - 1, np.int32)
    assert run("onnx", loop, values)["steps"].max() < STEPS


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fixed_batch_answers_like_a_free_one(looped, backend):
    model, loop = looped
    values = feeds(model, rows=3)
    fixed = onnx.ModelProto.FromString(loop.SerializeToString())
    fix_batch(fixed, 3)
    free_outputs, fixed_outputs = run(backend, loop, values), run(backend, fixed, values)
    for name in free_outputs:
        np.testing.assert_allclose(fixed_outputs[name], free_outputs[name], atol=1e-4)


def test_weights_are_stored_once_outside_the_body(traced):
    _, start, segment = traced("rope")
    loop = wrap_in_loop(start, segment, TASK, False)
    (node,) = [node for node in loop.graph.node if node.op_type == "Loop"]
    (body,) = subgraphs(node)
    assert not body.initializer
    assert node.input[0] not in ("", node.input[1])  # a real trip count
    alone = len(start.SerializeToString()) + len(segment.SerializeToString())
    assert len(loop.SerializeToString()) < alone + 20_000


def test_a_half_precision_segment_loops_too(traced):
    model, start, segment = traced("grid")
    convert(segment, PRECISIONS["fp16"])
    loop = wrap_in_loop(start, segment, TASK, True)
    values = feeds(model, rows=4)
    steps = [run(backend, loop, values)["steps"] for backend in BACKENDS]
    np.testing.assert_allclose(steps[0], expected(model, values)[1], atol=1)


# -- verified: hand-made graphs whose guesses are known --------------------------------------------------

FIRST_GUESS, OTHER = (board.astype(np.int32) for board in TASK.generate(2, np.random.default_rng(3))[1])


def scripted() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Guesses FIRST_GUESS in two segments, from the third on the question itself; q never asks to halt."""
    V, S = TASK.vocab_size, TASK.seq_len
    info, array = helper.make_tensor_value_info, numpy_helper.from_array
    opset = [helper.make_opsetid("", 20)]
    plane = ["batch", S, V]
    start_state = 2.5 * np.eye(V, dtype=np.float32)[FIRST_GUESS]
    start = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["e"]),
            helper.make_node("Mul", ["e", "nothing"], ["z_L"]),
            helper.make_node("Add", ["z_L", "first"], ["z_H"]),
        ],
        "start",
        [info("tokens", TensorProto.INT32, ["batch", S])],
        [info(name, TensorProto.FLOAT, plane) for name in ("e", "z_H", "z_L")],
        [
            array(np.eye(V, dtype=np.float32), "table"),
            array(np.zeros(1, np.float32), "nothing"),
            array(start_state, "first"),
        ],
    )
    segment = helper.make_graph(
        [
            helper.make_node("Add", ["z_H", "e"], ["z_H_next"]),
            helper.make_node("Identity", ["z_L"], ["z_L_next"]),
            helper.make_node("Identity", ["z_H_next"], ["logits"]),
            helper.make_node("Slice", ["z_L", "zero", "two", "axis"], ["corner"]),
            helper.make_node("ReduceMin", ["corner", "one"], ["zeros"], keepdims=0),
            helper.make_node("Add", ["zeros", "go_on"], ["q"]),
        ],
        "segment",
        [info(name, TensorProto.FLOAT, plane) for name in ("z_H", "z_L", "e")],
        [info(name, TensorProto.FLOAT, plane) for name in ("z_H_next", "z_L_next", "logits")]
        + [info("q", TensorProto.FLOAT, ["batch", 2])],
        [
            array(np.array([0]), "zero"),
            array(np.array([2]), "two"),
            array(np.array([2]), "axis"),
            array(np.array([1]), "one"),
            array(np.array([-1.0, 1.0], np.float32), "go_on"),
        ],
    )
    return tuple(helper.make_model(graph, opset_imports=opset, ir_version=9) for graph in (start, segment))


def questions() -> dict[str, np.ndarray]:
    few_givens = np.where(np.arange(16) % 3 == 0, FIRST_GUESS, TASK.blank).astype(np.int32)
    swapped = FIRST_GUESS.copy()
    swapped[[0, 1]] = swapped[[1, 0]]  # rows still hold every value, columns do not
    doubled = FIRST_GUESS.copy()
    doubled[5] = doubled[4]
    return {
        "first guess is right": few_givens,
        "first guess obeys the rules but not the givens": OTHER,
        "columns are wrong": swapped,
        "a digit stands twice": doubled,
        "no givens": np.full(16, TASK.blank, np.int32),
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_verified_stops_exactly_when_the_task_accepts(backend):
    assert not np.array_equal(FIRST_GUESS, OTHER)
    loop = wrap_in_loop(*scripted(), TASK, False)
    tokens = np.stack(list(questions().values()))
    values = {"tokens": tokens, "max_think_steps": np.array(5, np.int32), "halt": np.array(VERIFIED, np.int32)}
    outputs = run(backend, loop, values)
    accepted = [TASK.verify(tokens, guess) for guess in (np.tile(FIRST_GUESS, (5, 1)), tokens)]
    steps = np.where(accepted[0], 1, np.where(accepted[1], 3, 5))
    assert steps.tolist() == [1, 3, 5, 5, 1]
    np.testing.assert_array_equal(outputs["steps"], steps)
    np.testing.assert_array_equal(outputs["answer"], np.where((steps == 1)[:, None], FIRST_GUESS, tokens))


@pytest.mark.parametrize("name", ["sudoku-6x6", "sudoku"])
def test_verification_in_the_graph_agrees_with_the_task_on_damaged_boards(name):
    """Right boards, and the same with one to three cells changed or givens broken."""
    task, rng = get_task(name), np.random.default_rng(0)
    asked, answers = task.generate(4, rng)
    asked, answers = np.repeat(asked, 30, axis=0), np.repeat(answers, 30, axis=0)
    for row in range(len(answers)):
        for _ in range(row % 4):
            answers[row, rng.integers(task.seq_len)] = rng.integers(0, task.vocab_size)
        if row % 7 == 0:
            asked[row, rng.integers(task.seq_len)] = rng.integers(1, task.vocab_size)
    accepted = task.verify(asked, answers)
    assert 0 < accepted.sum() < len(accepted)
    from hrm_edge.exporters.graph import loop

    outer, body = loop._Builder(), loop._Builder()
    verdict = loop._verification(outer, body, task)
    info = helper.make_tensor_value_info
    nodes = [*outer.nodes, *body.nodes, helper.make_node("Cast", [verdict], ["y"], to=TensorProto.INT32)]
    boards = [info(n, TensorProto.INT32, ["batch", task.seq_len]) for n in ("tokens", "guess")]
    graph = helper.make_graph(nodes, "v", boards, [info("y", TensorProto.INT32, ["batch"])], outer.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    for backend in BACKENDS:
        y = run(backend, model, {"tokens": asked, "guess": answers.astype(np.int32)})["y"]
        np.testing.assert_array_equal(y.astype(bool), accepted)


def test_a_task_without_groups_has_no_verified_mode():
    start, segment = scripted()

    class Nothing:
        groups, value_tokens, seq_len, name, blank = None, None, TASK.seq_len, "none", 1

    loop = wrap_in_loop(start, segment, Nothing(), False)
    tokens = np.stack(list(questions().values()))
    values = {"tokens": tokens, "max_think_steps": np.array(3, np.int32), "halt": np.array(VERIFIED, np.int32)}
    assert run("onnx", loop, values)["steps"].tolist() == [3] * 5
