"""The halting loop inside the graph: start once, then segments in an ONNX ``Loop`` until every row has halted.

One call answers a batch, from any language, without host code. The loop has a real trip count (TensorRT's
importer wants one) and stops early when no row is left. A row that has halted is frozen: its answer, q and
state never change again, so a row's result does not depend on the rows beside it. The body reads the weights
from the graph around it; they are stored once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...halting import FIXED, LEARNED, VERIFIED, HaltRule, Q, halting_head, numbered
from ...runtimes.loops import NEXT, state_tensors
from ...tasks import Task
from .edit import all_nodes, copied, ensure, rename, subgraphs, tensor_of
from .passes import BATCH, drop_unused, finish, keeps_name, merge_equal_initializers

# The rules that `_halting_decision` knows: to it `FIXED` is whatever neither of the others asks for.
_IN_GRAPHS = (LEARNED, FIXED, VERIFIED)
_FLOAT, _INT32, _BOOL, _INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.BOOL, TensorProto.INT64


class _Builder:
    """Collects nodes and constants, giving each value the name it is asked for; a name is one constant."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, array: np.ndarray, name: str) -> str:
        if all(tensor.name != name for tensor in self.constants):
            self.constants.append(tensor_of(array, name))
        return name


def wrap_in_loop(
    start: onnx.ModelProto, segment: onnx.ModelProto, task: Task, no_ACT_continue: bool
) -> onnx.ModelProto:
    """Join a start and a (possibly converted or quantized) segment graph into one with a halting loop.

    ``tokens int32[batch, S], max_think_steps int32[], halt int32[] (, puzzle_identifiers int32[batch])
    → answer int32[batch, S], steps int32[batch], q float32[batch, 2]``; it can verify where ``task`` has groups.
    """
    start, segment = _prefixed(start, "start", keep={"tokens", "puzzle_identifiers"}), _prefixed(segment, "segment")
    outer = _Builder()
    outer.nodes.extend(start.graph.node)
    outer.constants.extend([*start.graph.initializer, *segment.graph.initializer])
    shapes = {v.name.removeprefix("segment:"): v.type.tensor_type.shape for v in segment.graph.input}
    given = [v.name.removeprefix("segment:") for v in segment.graph.output]
    state = {name: shapes[name] for name in state_tensors(given)}
    width = task.seq_len

    _add_initial_values(outer)
    body = _body(outer, segment.graph, state, task, no_ACT_continue)
    # Without a first segment there is no answer, and OpenVINO takes a negative count for "without end".
    fewest = outer.constant(np.array(1, np.int32), "fewest_segments")
    outer.add("Cast", [outer.add("Max", ["max_think_steps", fewest], "most_segments")], "trip_count", to=_INT64)
    carried = [*(f"start:{name}" for name in state), "nobody_halted", "no_steps", "tokens", "no_q"]
    loop = helper.make_node(
        "Loop",
        ["trip_count", outer.constant(np.array(True), "begin"), *carried],
        [*(f"last_{name}" for name in state), "last_halted", "steps", "answer", "q"],
        body=body,
    )
    outer.nodes.append(loop)

    info = helper.make_tensor_value_info
    inputs = [v for v in start.graph.input if v.name == "tokens"]
    inputs += [info(name, _INT32, []) for name in ("max_think_steps", "halt")]
    inputs += [v for v in start.graph.input if v.name == "puzzle_identifiers"]
    outputs = [
        info("answer", _INT32, [BATCH, width]),
        info("steps", _INT32, [BATCH]),
        info("q", _FLOAT, [BATCH, 2]),
    ]
    graph = helper.make_graph(outer.nodes, "hrm", inputs, outputs, outer.constants)
    model = helper.make_model(graph, opset_imports=list(segment.opset_import))
    drop_unused(model)
    merge_equal_initializers(model)
    finish(model)
    _check(model)
    return model


def _prefixed(model: onnx.ModelProto, prefix: str, keep: set[str] | None = None) -> onnx.ModelProto:
    """A copy whose values cannot collide with another graph's; stored weights and `keep` keep their names."""
    copy = copied(model)
    kept = {tensor.name for tensor in copy.graph.initializer if keeps_name(tensor.name)} | (keep or set())
    names = {v.name for v in (*copy.graph.input, *copy.graph.output, *copy.graph.initializer)}
    names |= {name for node in all_nodes(copy.graph) for name in node.output if name}
    rename(copy.graph, {name: f"{prefix}:{name}" for name in names - kept})
    return copy


def _add_initial_values(outer: _Builder) -> None:
    """What rows carry before the first segment: not halted, no steps, the question as the answer, q zero."""
    outer.add("Shape", ["tokens"], "rows", start=0, end=1)
    outer.add("Expand", [outer.constant(np.zeros(1, bool), "false"), "rows"], "nobody_halted")
    outer.add("Expand", [outer.constant(np.zeros(1, np.int32), "zero"), "rows"], "no_steps")
    outer.add("Concat", ["rows", outer.constant(np.array([2]), "two")], "q_shape", axis=0)
    outer.add("Expand", [outer.constant(np.zeros((1, 2), np.float32), "zero_q"), "q_shape"], "no_q")


def _body(
    outer: _Builder,
    segment: onnx.GraphProto,
    state: dict[str, onnx.TensorShapeProto],
    task: Task,
    no_ACT_continue: bool,
) -> onnx.GraphProto:
    """One trip: a segment on every row, then the halting decision; rows that had halted keep what they had."""
    body = _Builder()
    inside = {name: name if name.startswith("z_") else f"state:{name}" for name in state}
    rename(segment, {**{f"segment:{name}": inside[name] for name in state}, "segment:e": "start:e"})
    body.nodes.extend(segment.node)
    body.add("ArgMax", ["segment:logits"], "guess64", axis=-1, keepdims=0)
    body.add("Cast", ["guess64"], "guess", to=_INT32)
    wants_halt = _halting_decision(outer, body, task, no_ACT_continue)

    halted_row = body.add("Unsqueeze", ["halted", _axes(outer, 1)], "halted_row")
    masks = {2: halted_row}  # by rank
    for name, shape in state.items():
        rank = len(shape.dim)
        if rank not in masks:
            called = "halted_grid" if rank == 3 else f"halted_{rank}"
            masks[rank] = body.add("Unsqueeze", ["halted", _axes(outer, *range(1, rank))], called)
        body.add("Where", [masks[rank], inside[name], f"segment:{name}{NEXT}"], f"{inside[name]}_out")
    body.add("Where", [halted_row, "guess_before", "guess"], "guess_out")
    body.add("Where", [halted_row, "q_before", "segment:q"], "q_out")
    body.add("Cast", [body.add("Not", ["halted"], "thinking")], "one_more", to=_INT32)
    body.add("Add", ["steps_before", "one_more"], "steps_out")
    body.add("Or", ["halted", wants_halt], "halted_out")
    # Float and int32 reductions are the ones every target has; booleans are not.
    body.add("Cast", ["halted_out"], "halted_number", to=_INT32)
    body.add("ReduceMin", ["halted_number"], "all_halted_number", keepdims=0)
    body.add("Cast", ["all_halted_number"], "all_halted", to=_BOOL)
    body.add("Not", ["all_halted"], "go_on")

    info = helper.make_tensor_value_info
    kinds = {
        inside[name]: (_FLOAT, [dim.dim_param or dim.dim_value for dim in shape.dim])
        for name, shape in state.items()
    } | {
        "halted": (_BOOL, [BATCH]),
        "steps": (_INT32, [BATCH]),
        "guess": (_INT32, [BATCH, task.seq_len]),
        "q": (_FLOAT, [BATCH, 2]),
    }
    before = {"steps": "steps_before", "guess": "guess_before", "q": "q_before"}
    inputs = [info("trip", _INT64, []), info("going", _BOOL, [])]
    inputs += [info(before.get(name, name), *kind) for name, kind in kinds.items()]
    outputs = [info("go_on", _BOOL, [])] + [info(f"{name}_out", *kind) for name, kind in kinds.items()]
    return helper.make_graph(body.nodes, "segment", inputs, outputs)


def _halting_decision(outer: _Builder, body: _Builder, task: Task, no_ACT_continue: bool) -> str:
    """bool[batch]: the rows that this segment's q, or the task's own rules, tell to stop."""
    unknown = [rule.name for rule in numbered() if rule not in _IN_GRAPHS]
    ensure(not unknown, f"wrap_in_loop: no form in the graph for the halting rules {unknown}")
    is_learned = _asked_for(outer, LEARNED)
    head = halting_head(no_ACT_continue)
    left = _q(outer, body, head.left)
    right = (
        outer.constant(np.array(0, np.float32), "zero_bar") if head.right is None else _q(outer, body, head.right)
    )
    body.add("Greater", [left, right], "q_says")
    learned = body.add("And", ["q_says", is_learned], "learned_halt")
    if task.groups is None:
        return learned
    is_verified = _asked_for(outer, VERIFIED)
    body.add("And", [_verification(outer, body, task), is_verified], "verified_halt")
    return body.add("Or", [learned, "verified_halt"], "wants_halt")


def _asked_for(outer: _Builder, rule: HaltRule) -> str:
    """bool[]: whether the `halt` input asks for a rule."""
    mode = outer.constant(np.array(rule.number, np.int32), f"mode{rule.number}")
    return outer.add("Equal", ["halt", mode], f"is_{rule.name}")


def _q(outer: _Builder, body: _Builder, column: int) -> str:
    """float[batch]: one of the halting head's two values."""
    index = outer.constant(np.array(column), f"index{column}")
    return body.add("Gather", ["segment:q", index], f"q_{Q[column]}", axis=1)


def _verification(outer: _Builder, body: _Builder, task: Task) -> str:
    """bool[batch]: the guess keeps the givens, and every group of cells holds every value.

    As many cells as values stand in a group, so each then stands there exactly once.
    """
    assert task.groups is not None
    assert task.value_tokens is not None
    groups, values = np.asarray(task.groups), np.asarray(task.value_tokens)
    ensure(groups.shape[1] == len(values), f"{task.name}: groups must have as many cells as there are values")
    cells = outer.constant(groups.astype(np.int64), "groups")  # [G, n]
    body.add("Gather", ["guess", cells], "by_group", axis=1)  # [batch, G, n]
    body.add("Unsqueeze", ["by_group", _axes(outer, 3)], "by_group_cell")
    body.add("Equal", ["by_group_cell", outer.constant(values.astype(np.int32), "values")], "is_value")  # …, n, n]
    body.add("Cast", ["is_value"], "is_value_number", to=_FLOAT)
    body.add("ReduceMax", ["is_value_number", _axes(outer, 2)], "value_present", keepdims=0)  # [batch, G, n]
    body.add("ReduceMin", ["value_present", _axes(outer, 1, 2)], "rules_hold_number", keepdims=0)  # [batch]
    body.add("Cast", ["rules_hold_number"], "rules_hold", to=_BOOL)

    blank = outer.constant(np.array(task.blank, np.int32), "blank")
    is_blank = outer.add("Equal", ["tokens", blank], "is_blank")
    body.add("Or", [body.add("Equal", ["guess", "tokens"], "as_given"), is_blank], "kept")
    body.add("Cast", ["kept"], "kept_number", to=_FLOAT)
    body.add("ReduceMin", ["kept_number", _axes(outer, 1)], "givens_kept_number", keepdims=0)
    body.add("Cast", ["givens_kept_number"], "givens_kept", to=_BOOL)
    return body.add("And", ["rules_hold", "givens_kept"], "verified")


def _axes(outer: _Builder, *axes: int) -> str:
    return outer.constant(np.array(axes), f"axes{axes}")


def _check(model: onnx.ModelProto) -> None:
    """One loop, whose body stores nothing itself."""
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    ensure(len(loops) == 1, f"wrap_in_loop: {len(loops)} loops")
    (body,) = subgraphs(loops[0])
    ensure(not body.initializer, "wrap_in_loop: the body stores weights of its own")
    ensure(all(node.op_type != "Constant" for node in body.node), "wrap_in_loop: the body has constants of its own")
