"""The toy network of toys.py written node by node as ONNX, plain and wrapped in a halting Loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from toys import PEERS, N, S, V

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.BOOL


class Net:
    """A growing list of nodes with values named by the caller, and the constants they use."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, op: str, inputs: str, output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs.split(), [output], **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name


def models(loop: str, batch: int | str) -> dict[str, onnx.ModelProto]:
    rows = "batch" if batch == "dynamic" else batch
    return {"start": _start(rows), "segment": _segment(rows)} if loop == "host" else {"model": _looped(rows)}


def save(model: onnx.ModelProto, stem: Path, target: str) -> None:
    if target == "onnx":
        onnx.save(model, stem.with_suffix(".onnx"))
        return
    from hrm_edge.runtimes.openvino import imported

    openvino, scratch = imported(), stem.with_suffix(".scratch.onnx")
    onnx.save(model, scratch)
    openvino.save_model(openvino.convert_model(scratch), stem.with_suffix(".xml"), compress_to_fp16=False)
    scratch.unlink()


def _embed(net: Net) -> str:
    net.constant("eye", np.eye(V)[:, 2:])
    return net.add("Gather", "eye tokens", "embedded")


def _think(net: Net, z_H: str, z_L: str) -> tuple[str, str, str, str]:
    """One segment → names of (z_H, z_L, logits, q)."""
    net.constant("one", 1.0)
    net.constant("ten", 10.0)
    net.constant("last", [-1], np.int64)
    net.constant("board", [1, 2], np.int64)
    candidates = _candidates(net, z_H, "before")
    total = net.add("ReduceSum", f"{candidates} last", "choices")
    single = net.add("Cast", net.add("Equal", f"{total} one", "is_single"), "single", to=FLOAT)
    filled = net.add("Mul", f"{candidates} {single}", "filled_now")
    known = net.add("Add", f"{z_H} {filled}", "known")
    thought = net.add("Add", f"{z_L} one", "thought")
    ranked = net.add(
        "Add", f"{net.add('Mul', f'{known} ten', 'sure')} {_candidates(net, known, 'after')}", "ranked"
    )
    net.constant("from", [0], np.int64)
    net.constant("to", [2], np.int64)
    net.constant("zero", 0.0)
    slim = net.add("Mul", f"{net.add('Slice', f'{z_L} from to last', 'slim')} zero", "nothing")
    logits = net.add("Concat", f"{net.add('Sub', f'{slim} one', 'never')} {ranked}", "scores", axis=-1)
    count = net.add("ReduceSum", f"{known} board", "count", keepdims=0)
    column = net.add("Unsqueeze", f"{count} last", "column")
    net.constant("threshold", S - 0.5)
    flat = net.add("Mul", f"{column} zero", "flat")
    q = net.add("Concat", f"{column} {net.add('Add', f'{flat} threshold', 'line')}", "halting", axis=1)
    return known, thought, logits, q


def _right(net: Net, guess: str) -> str:
    """float[b]: 16 for a guess that breaks no rule, less for any other (it keeps the givens by itself)."""
    net.constant("guess_eye", np.eye(V)[:, 2:])
    shown = net.add("Gather", f"guess_eye {guess}", "shown")
    clash = net.add("Mul", f"{shown} {net.add('MatMul', f'peers {shown}', 'neighbours')}", "clash")
    return net.add("ReduceSum", f"{net.add('Sub', f'{shown} {clash}', 'clean')} board", "right", keepdims=0)


def _candidates(net: Net, known: str, tag: str) -> str:
    net.constant("peers", PEERS)
    seen = net.add("Min", f"{net.add('MatMul', f'peers {known}', f'seen_{tag}')} one", f"capped_{tag}")
    free = net.add("Sub", f"one {seen}", f"free_{tag}")
    taken = net.add("ReduceSum", f"{known} last", f"taken_{tag}")
    return net.add("Mul", f"{free} {net.add('Sub', f'one {taken}', f'open_{tag}')}", f"candidates_{tag}")


def _model(net: Net, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(net.nodes, "toy", inputs, outputs, list(net.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _tensor(name: str, dtype: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def _start(rows: Any) -> onnx.ModelProto:
    net = Net()
    e = _embed(net)
    net.constant("nought", 0.0)
    net.add("Identity", e, "e")
    net.add("Identity", e, "z_H")
    net.add("Mul", f"{e} nought", "z_L")
    outputs = [_tensor(name, FLOAT, rows, S, N) for name in ("e", "z_H", "z_L")]
    return _model(net, [_tensor("tokens", INT, rows, S)], outputs)


def _segment(rows: Any) -> onnx.ModelProto:
    net = Net()
    names = _think(net, "z_H", "z_L")
    # e is an input of the contract; using it to no effect keeps it one.
    net.add("Mul", "e zero", "ignored")
    net.add("Add", f"{names[0]} ignored", "z_H_next")
    for name, output in zip(names[1:], ("z_L_next", "logits", "q"), strict=True):
        net.add("Identity", name, output)
    inputs = [_tensor(name, FLOAT, rows, S, N) for name in ("z_H", "z_L", "e")]
    outputs = [_tensor(name, FLOAT, rows, S, N) for name in ("z_H_next", "z_L_next")]
    return _model(net, inputs, [*outputs, _tensor("logits", FLOAT, rows, S, V), _tensor("q", FLOAT, rows, 2)])


def _looped(rows: Any) -> onnx.ModelProto:
    net = Net()
    e = _embed(net)
    net.constant("nought", 0.0)
    net.constant("nought_int", 0, np.int32)
    net.constant("row_axis", [1, 2], np.int64)
    net.constant("pair", np.zeros((1, 2)))
    net.add("Mul", f"{e} nought", "z_L0")
    net.add("Mul", "tokens nought_int", "answer0")
    net.add("ReduceSum", "z_L0 row_axis", "zero_rows", keepdims=0)
    net.add("Cast", "zero_rows", "steps0", to=INT)
    net.add("Cast", "zero_rows", "halted0", to=BOOL)
    net.add("MatMul", f"{net.add('Unsqueeze', 'zero_rows one_axis', 'rows_column')} pair", "q0")
    net.constant("one_axis", [1], np.int64)
    net.add("Cast", "max_think_steps", "trips", to=TensorProto.INT64)
    net.constant("go", True, bool)
    carried = f"{e} z_L0 answer0 steps0 halted0 q0"
    net.nodes.append(
        helper.make_node(
            "Loop",
            ["trips", "go", *carried.split()],
            ["z_H_end", "z_L_end", "answer", "steps", "halted_end", "q"],
            body=_body(rows),
        )
    )
    inputs = [_tensor("tokens", INT, rows, S), _tensor("max_think_steps", INT), _tensor("halt", INT)]
    outputs = [_tensor("answer", INT, rows, S), _tensor("steps", INT, rows), _tensor("q", FLOAT, rows, 2)]
    return _model(net, inputs, outputs)


def _body(rows: Any) -> Any:
    net = Net()
    known, thought, logits, q = _think(net, "in_H", "in_L")
    guess = net.add("Cast", net.add("ArgMax", logits, "best", axis=-1, keepdims=0), "guess", to=INT)
    net.constant("axis1", [1], np.int64)
    net.constant("one_step", 1, np.int32)
    mask = net.add("Unsqueeze", "in_halted axis1", "mask")
    net.add("Where", f"{mask} in_answer {guess}", "out_answer")
    net.add("Where", f"{mask} in_q {q}", "out_q")
    net.add("Add", "in_steps one_step", "more")
    net.add("Where", "in_halted in_steps more", "out_steps")
    net.add("Identity", known, "out_H")
    net.add("Identity", thought, "out_L")
    net.constant("fixed", 1, np.int32)
    net.constant("verified", 2, np.int32)
    may = net.add("Not", net.add("Equal", "halt fixed", "is_fixed"), "may_stop")
    net.constant("edge", S - 0.5)
    net.add("Where", f"{net.add('Equal', 'halt verified', 'is_verified')} {_right(net, guess)} count", "score")
    full = net.add("Greater", "score edge", "full")
    net.add("Or", f"in_halted {net.add('And', f'{full} {may}', 'fires')}", "out_halted")
    net.add("Cast", net.add("Not", "out_halted", "thinking"), "thinking_int", to=INT)
    net.add("ReduceMax", "thinking_int", "any_int", keepdims=0)
    net.add("Cast", "any_int", "out_go", to=BOOL)
    state = [("H", FLOAT, (rows, S, N)), ("L", FLOAT, (rows, S, N)), ("answer", INT, (rows, S))]
    state += [("steps", INT, (rows,)), ("halted", BOOL, (rows,)), ("q", FLOAT, (rows, 2))]
    inputs = [_tensor("i", TensorProto.INT64), _tensor("in_go", BOOL)]
    inputs += [_tensor(f"in_{name}", dtype, *shape) for name, dtype, shape in state]
    outputs = [_tensor("out_go", BOOL), *(_tensor(f"out_{name}", dtype, *shape) for name, dtype, shape in state)]
    return helper.make_graph(net.nodes, "body", inputs, outputs, list(net.constants.values()))
