"""Float products in C against numpy: weights in panels and as they stand, every kernel, low and high tiles."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from hrm_edge.exporters.graph.edit import tensor_of
from hrm_edge.exporters.targets.c import schedule
from hrm_edge.exporters.targets.c.source import write_source
from hrm_edge.runtimes.c import compiler
from hrm_edge.runtimes.c.library import STATE, Library, facts_of
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
# Rows and columns that do and do not fill a vector, a panel, or what registers hold.
SHAPES = {"a": (16, 19), "b": (7, 64), "c": (1, 5), "d": (53, 48), "f": (3, 32), "g": (2, 8)}
RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.standard_normal((2, K, K)).astype(np.float32) for name, (_, K) in SHAPES.items()}
GIVEN = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def graphs(read_elsewhere=()):
    """Each state goes through a product, a ReLU, and a product. ``read_elsewhere``: adds a row of its weight."""
    info = helper.make_tensor_value_info
    states = [info(name, TensorProto.FLOAT, [1, *shape]) for name, shape in SHAPES.items()]
    nexts = [info(f"{name}_next", TensorProto.FLOAT, [1, *shape]) for name, shape in SHAPES.items()]
    e = info("e", TensorProto.FLOAT, [1, TASK.seq_len])
    logits = info("logits", TensorProto.FLOAT, [1, TASK.seq_len, TASK.vocab_size])
    outputs = [logits, info("q", TensorProto.FLOAT, [1, 2])]
    zeros = [
        tensor_of(np.zeros([d.dim_value for d in v.type.tensor_type.shape.dim], np.float32), f"no_{v.name}")
        for v in (*states, *outputs)
    ]
    begin = [helper.make_node("Cast", ["tokens"], ["e"], to=TensorProto.FLOAT)]
    begin += [helper.make_node("Identity", [f"no_{name}"], [name]) for name in SHAPES]
    tokens = info("tokens", TensorProto.INT32, [1, TASK.seq_len])
    start = helper.make_graph(begin, "start", [tokens], [e, *states], zeros[: len(SHAPES)])
    nodes = [helper.make_node("Identity", [f"no_{v.name}"], [v.name]) for v in outputs]
    stored = [*zeros[len(SHAPES) :], tensor_of(np.array([1], np.int64), "one")]
    for name in SHAPES:
        stored += [tensor_of(weight, f"{name}.{i}") for i, weight in enumerate(WEIGHTS[name])]
        nodes += [
            helper.make_node("MatMul", [name, f"{name}.0"], [f"{name}.made"], name=f"{name}/0"),
            helper.make_node("Relu", [f"{name}.made"], [f"{name}.positive"]),
        ]
        last = f"{name}.last" if name in read_elsewhere else f"{name}_next"
        nodes.append(helper.make_node("MatMul", [f"{name}.positive", f"{name}.1"], [last], name=f"{name}/1"))
        if name in read_elsewhere:  # the row that the tokens, which are zeros here, name
            nodes += [
                helper.make_node("Cast", ["e"], [f"{name}.rows"], to=TensorProto.INT32),
                helper.make_node("Gather", [f"{name}.1", f"{name}.rows"], [f"{name}.each"]),
                helper.make_node("ReduceMean", [f"{name}.each", "one"], [f"{name}.mean"]),
                helper.make_node("Add", [last, f"{name}.mean"], [f"{name}_next"]),
            ]
    segment = helper.make_graph(nodes, "segment", [*states, e], [*nexts, *outputs], stored)
    opset = [helper.make_opsetid("", 20)]
    return [helper.make_model(graph, opset_imports=opset) for graph in (start, segment)]


def made(**options):
    return write_source(*graphs(**options), TASK, name="floats", max_think_steps=1, no_ACT_continue=True)


def found(source):
    """What each state becomes."""
    built = compiler.compiled(source.header.encode(), source.source.encode(), "the kernels")
    library = Library(built, facts_of(source.header)["fields"])
    with library.states.one() as state:
        for name, values in GIVEN.items():
            begin, size = library.fields[STATE + name]
            state.view(np.float32)[begin : begin + size] = values.ravel()
        library.segment(state.ctypes.data)
        return {name: library.member(state, STATE + name, shape) for name, shape in SHAPES.items()}


def product(name):
    one, two = WEIGHTS[name].astype(np.float64)
    return np.maximum(GIVEN[name] @ one, 0) @ two


def require_close(states, more=()):
    for name, values in states.items():
        wanted = product(name) + (WEIGHTS[name][1, 0] if name in more else 0)
        largest = np.abs(WEIGHTS[name]).sum((0, 1)).max()
        np.testing.assert_allclose(values, wanted, atol=2e-6 * largest, err_msg=name)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path))


@pytest.mark.skipif(not compiler.find()[0], reason="there is no C compiler")
@pytest.mark.parametrize("large", [0, schedule._LARGE])
@pytest.mark.parametrize("options", ["", "-DHRM_PLAIN", "-mno-avx512f", "-mno-avx"])
def test_products_are_numpys(options, large, monkeypatch):
    monkeypatch.setenv("CC", f"{compiler.find()[0][0]} {options}")
    monkeypatch.setattr(schedule, "_LARGE", large)
    source = made()
    assert ("row += 48" in source.source) == (not large)
    try:
        states = found(source)
    except compiler.InputError as error:
        pytest.skip(f"not for this machine: {error}")
    require_close(states)


@pytest.mark.skipif(not compiler.find()[0], reason="there is no C compiler")
def test_a_weight_that_something_else_reads_stands_as_it_is():
    source = made(read_elsewhere=("b",))
    assert source.sizes.weights < made().sizes.weights + 500  # it is stored once
    require_close(found(source), more=("b",))


def test_weights_in_panels_take_no_more_room():
    numbers = sum(weight.size for weight in WEIGHTS.values())
    zeros = TASK.seq_len * TASK.vocab_size + 2 + sum(np.prod(shape) for shape in SHAPES.values())
    assert made().sizes.weights <= 4 * (numbers + zeros)
