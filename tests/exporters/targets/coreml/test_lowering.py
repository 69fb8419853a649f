"""Lowered graphs, saved and interpreted: operator by operator against onnxruntime, as a whole against torch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from run_onnx import run
from small_networks import TASK, think
from traced_networks import feeds as segment_feeds

pytest.importorskip("coremltools")

from lowered import at_batch, plainly, program, reroll, saved

from hrm_edge.errors import InputError
from hrm_edge.exporters.graph.loop import wrap_in_loop
from hrm_edge.exporters.graph.trace import exported_form, quiet
from hrm_edge.exporters.quantize.fp16 import convert
from hrm_edge.exporters.targets.coreml.ops import EMIT
from hrm_edge.exporters.targets.coreml.weights import Numbers, packed
from hrm_edge.halting import RULES
from hrm_edge.precision import PRECISIONS

LEARNED, FIXED, VERIFIED = (rule.number for rule in RULES.values())
RNG = np.random.default_rng(0)
INT, FLOAT = TensorProto.INT32, TensorProto.FLOAT


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*shape: int, top: int = 4) -> np.ndarray:
    return RNG.integers(0, top, shape).astype(np.int32)


def long(*values) -> np.ndarray:
    return np.array(values, np.int64)


def node(op: str, inputs: str, output: str = "y", **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def model(nodes: list[onnx.NodeProto], inputs: dict, constants: dict, opset: int = 20) -> onnx.ModelProto:
    """A graph whose output is "y"; inputs of any type that our bindings have."""
    kinds = {np.dtype(np.float32): FLOAT, np.dtype(np.int32): INT}
    given_ = [helper.make_tensor_value_info(name, kinds[x.dtype], x.shape) for name, x in inputs.items()]
    stored = [numpy_helper.from_array(x, name) for name, x in constants.items()]
    graph = helper.make_graph(nodes, "one", given_, [onnx.ValueInfoProto(name="y")], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)


def compare(nodes, inputs, constants=None, atol=2e-6, opset=20, numbers=None) -> None:
    made = model(nodes if isinstance(nodes, list) else [nodes], inputs, constants or {}, opset)
    want = plainly(made, inputs)["y"]
    got = program(made, numbers)(inputs)["y"]
    assert got.dtype == want.dtype
    assert got.shape == (want.shape or (1,))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


def as_number(name: str = "flag") -> onnx.NodeProto:
    return node("Cast", name, to=INT)


X, Y, N = floats(2, 3, 8), floats(2, 3, 8), ints(2, 5)
F = {"f": np.array([[True], [False]])}
CASES = {
    "add": (node("Add", "x z"), {"x": X, "z": Y}, {}),
    "add a number": (node("Add", "x n"), {"x": X}, {"n": np.float32(2.5)}),
    "sub": (node("Sub", "x z"), {"x": X, "z": floats(8)}, {}),
    "mul": (node("Mul", "x z"), {"x": X, "z": floats(3, 1)}, {}),
    "mul by ones": (node("Mul", "n x"), {"x": X}, {"n": np.ones(8, np.float32)}),
    "silu": ([node("Sigmoid", "x", "s"), node("Mul", "x s")], {"x": X}, {}),
    "silu, other order": ([node("Sigmoid", "x", "s"), node("Mul", "s x")], {"x": X}, {}),
    "gate of another": ([node("Sigmoid", "x", "s"), node("Mul", "s z")], {"x": X, "z": Y}, {}),
    "div": (node("Div", "x n"), {"x": X}, {"n": np.float32(3)}),
    "div by a root": ([node("Sqrt", "z", "s"), node("Div", "x s")], {"x": X, "z": np.abs(Y)}, {}),
    "square": (node("Pow", "x n"), {"x": X}, {"n": np.float32(2)}),
    "cube": (node("Pow", "x n"), {"x": X}, {"n": np.float32(3)}),
    "neg": (node("Neg", "x"), {"x": X}, {}),
    "stored product": (node("MatMul", "x w"), {"x": X}, {"w": floats(8, 5)}),
    "computed product": (node("MatMul", "x z"), {"x": X, "z": floats(2, 8, 4)}, {}),
    "gemm": (node("Gemm", "x w b", transB=1), {"x": floats(2, 8)}, {"w": floats(3, 8), "b": floats(3)}),
    "gemm as it is": (node("Gemm", "x w b"), {"x": floats(2, 8)}, {"w": floats(8, 3), "b": floats(3)}),
    "convolution": (
        node("Conv", "x w", kernel_shape=[3, 1], pads=[2, 0, 0, 0]),
        {"x": floats(2, 4, 5, 6)},
        {"w": floats(6, 4, 3, 1)},
    ),
    "convolution by channel": (
        node("Conv", "x w", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=4),
        {"x": floats(2, 4, 5, 6)},
        {"w": floats(4, 1, 3, 3)},
    ),
    "reshape": (node("Reshape", "x s", allowzero=1), {"x": X}, {"s": long(2, -1, 4)}),
    "reshape, 0 keeps": (node("Reshape", "x s"), {"x": X}, {"s": long(0, 6, -1)}),
    "transpose": (node("Transpose", "x", perm=[1, 2, 0]), {"x": X}, {}),
    "transpose of a product": (
        [node("Transpose", "z", "t", perm=[0, 2, 1]), node("MatMul", "x t")],
        {"x": X, "z": Y},
        {},
    ),
    "concat": (node("Concat", "x z x", axis=-1), {"x": X, "z": floats(2, 3, 1)}, {}),
    "concat ints": (node("Concat", "x z", axis=0), {"x": N, "z": ints(1, 5)}, {}),
    "embedding": (node("Gather", "t x", axis=0), {"x": N}, {"t": floats(4, 6)}),
    "one of an axis": (node("Gather", "x i", axis=1), {"x": X}, {"i": np.array(2)}),
    "one from the end": (node("Gather", "x i", axis=-1), {"x": X}, {"i": np.array(-1)}),
    "groups of cells": (node("Gather", "x i", axis=1), {"x": N}, {"i": long([0, 4], [3, 3], [1, 2])}),
    "expand a vector": (node("Expand", "v s"), {"v": floats(8)}, {"s": long(2, 3, 8)}),
    "expand by less": (node("Expand", "v s"), {"v": X}, {"s": long(1, 3, 1)}),
    "expand one": (node("Expand", "v s"), {"v": floats(1)}, {"s": long(4)}),
    "a shape that is computed": (
        [
            node("Shape", "x", "rows", start=0, end=1),
            node("Concat", "rows two", "s", axis=0),
            node("Expand", "n s"),
        ],
        {"x": N},
        {"two": long(3), "n": floats(1, 3)},
    ),
    "unsqueeze": (node("Unsqueeze", "x a"), {"x": X}, {"a": long(1, 3)}),
    "softmax": (node("Softmax", "x", axis=-1), {"x": X * 4}, {}),
    "softmax inside": (node("Softmax", "x", axis=1), {"x": X}, {}),
    "argmax": (
        [node("ArgMax", "x", "a", axis=-1, keepdims=0), node("Cast", "a", to=INT)],
        {"x": X},
        {},
    ),
    "mean": (node("ReduceMean", "x a", keepdims=1), {"x": X}, {"a": long(-1)}),
    "least of all": (node("ReduceMin", "x", keepdims=0), {"x": N}, {}),
    "largest of two axes": (node("ReduceMax", "x a", keepdims=0), {"x": X}, {"a": long(1, 2)}),
    "less of one": ([node("ReduceMin", "x a", keepdims=0)], {"x": X}, {"a": long(2)}),
    "greater": ([node("Greater", "x n", "flag"), as_number()], {"x": X}, {"n": np.float32(0.1)}),
    "larger": (node("Max", "x n"), {"x": N}, {"n": np.int32(2)}),
    "clip ints": (node("Clip", "x low high"), {"x": N}, {"low": np.int32(1), "high": np.int32(2)}),
    "equal": ([node("Equal", "x n", "flag"), as_number()], {"x": N}, {"n": np.array([[1], [2]], np.int32)}),
    "and": (
        [node("Greater", "x n", "a"), node("And", "a f", "flag"), as_number()],
        {"x": floats(2, 5)},
        {"n": np.float32(0), **F},
    ),
    "or": (
        [node("Greater", "x n", "a"), node("Or", "a f", "flag"), as_number()],
        {"x": floats(2, 5)},
        {"n": np.float32(0), **F},
    ),
    "not": (
        [node("Greater", "x n", "a"), node("Not", "a", "flag"), as_number()],
        {"x": X},
        {"n": np.float32(0)},
    ),
    "where": (
        [node("Greater", "c n", "flag"), node("Where", "flag x z")],
        {"x": X, "z": Y, "c": floats(2, 1, 1)},
        {"n": np.float32(0)},
    ),
    "where ints": (
        [node("Greater", "c n", "flag"), node("Where", "flag x z")],
        {"x": N, "z": ints(2, 5), "c": floats(2, 1)},
        {"n": np.float32(0)},
    ),
    "cast to a float": (
        [node("Equal", "x n", "flag"), node("Cast", "flag", to=FLOAT)],
        {"x": N},
        {"n": np.int32(2)},
    ),
    "cast of ints": (node("Cast", "x", to=FLOAT), {"x": N}, {}),
    "identity": (node("Identity", "x"), {"x": X}, {}),
    "the same twice": ([node("Identity", "x", "z"), node("Identity", "z")], {"x": N}, {}),
    **{
        name: (node(op, "x"), {"x": X}, {})
        for name, op in {
            "size": "Abs",
            "cosine": "Cos",
            "sine": "Sin",
            "error function": "Erf",
            "exponential": "Exp",
            "rectifier": "Relu",
            "tangent": "Tanh",
            "gelu": "Gelu",
        }.items()
    },
    "gelu by tanh": (node("Gelu", "x", approximate="tanh"), {"x": X}, {}),
    "reciprocal": (node("Reciprocal", "x"), {"x": np.abs(X) + np.float32(1e-3)}, {}),
    "smaller": (node("Min", "x n"), {"x": N}, {"n": np.int32(2)}),
    "less": ([node("Less", "x n", "flag"), as_number()], {"x": X}, {"n": np.float32(0.1)}),
    "at most": ([node("LessOrEqual", "x n", "flag"), as_number()], {"x": N}, {"n": np.int32(2)}),
    "at least": ([node("GreaterOrEqual", "x n", "flag"), as_number()], {"x": N}, {"n": np.int32(2)}),
    "sum": (node("ReduceSum", "x a", keepdims=0), {"x": X}, {"a": long(1)}),
    "flatten": (node("Flatten", "x", axis=2), {"x": X}, {}),
    "squeeze": (node("Squeeze", "x a"), {"x": floats(2, 1, 3)}, {"a": long(1)}),
    "split": ([node("Split", "x s", "p r", axis=-1), node("Mul", "p r")], {"x": X}, {"s": long(4, 4)}),
    "split evenly": (
        [node("Split", "x", "p r", axis=1, num_outputs=2), node("Concat", "r p", axis=1)],
        {"x": X},
        {},
    ),
    "layer norm": (node("LayerNormalization", "x g b"), {"x": X}, {"g": floats(8), "b": floats(8)}),
    "layer norm of two axes": (
        node("LayerNormalization", "x g", axis=1, epsilon=0.1),
        {"x": X},
        {"g": floats(3, 8)},
    ),
    "product and bias": (
        [node("MatMul", "x w", "p"), node("Add", "p b")],
        {"x": X},
        {"w": floats(8, 5), "b": floats(5)},
    ),
    "product and bias, read twice": (
        [node("MatMul", "x w", "p"), node("Add", "p b", "t"), node("Mul", "p t")],
        {"x": X},
        {"w": floats(8, 5), "b": floats(5)},
    ),
    "convolution of a sequence, with a bias": (
        node("Conv", "x w b", kernel_shape=[3], pads=[1, 1], group=2),
        {"x": floats(2, 4, 7)},
        {"w": floats(6, 2, 3), "b": floats(6)},
    ),
    "a size that is worked with": (
        [
            node("Shape", "x", "rows", start=0, end=1),
            node("Mul", "rows two", "twice"),
            node("Squeeze", "twice zero", "number"),
            node("Unsqueeze", "number zero", "again"),
            node("Concat", "again rest", "s", axis=0),
            node("Reshape", "x s"),
        ],
        {"x": X},
        {"two": long(2), "zero": long(0), "rest": long(-1)},
    ),
    "a norm": (
        [
            node("Pow", "x two", "p"),
            node("ReduceMean", "p a", "m", keepdims=1),
            node("Add", "m eps", "t"),
            node("Sqrt", "t", "r"),
            node("Div", "x r"),
        ],
        {"x": X},
        {"two": np.float32(2), "a": long(-1), "eps": np.float32(0.3)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_onnxruntime_gives(case):
    compare(*CASES[case])


def test_every_operator_that_has_a_form_is_among_the_cases():
    nodes = [n for made, *_ in CASES.values() for n in (made if isinstance(made, list) else [made])]
    elsewhere = {"QuantizeLinear", "DequantizeLinear", "Slice"}
    assert {n.op_type for n in nodes} | elsewhere == set(EMIT)


@settings(max_examples=6)
@given(data=st.data())
def test_slices(data):
    shape = data.draw(st.tuples(*[st.integers(2, 6)] * 3))
    axes = data.draw(st.lists(st.integers(-3, 2), min_size=1, max_size=3, unique_by=lambda a: a % 3))
    starts = [data.draw(st.integers(-shape[a], shape[a] - 1)) for a in axes]
    ends = [data.draw(st.integers(s % shape[a] + 1, shape[a] + 2)) for a, s in zip(axes, starts, strict=True)]
    steps = [data.draw(st.integers(1, 3)) for _ in axes]
    far = data.draw(st.booleans())  # "to the end", as the tracer writes it
    constants = {"s": long(*starts), "e": long(*([2**63 - 1] * len(ends) if far else ends)), "a": long(*axes)}
    compare(node("Slice", "x s e a d"), {"x": floats(*shape)}, {**constants, "d": long(*steps)})


@settings(max_examples=4)
@given(step=st.sampled_from([0.25, 0.01, 1.5]), half=st.booleans())
def test_quantizers_round_and_clip_as_onnxruntime_does(step, half):
    x = np.concatenate([np.arange(-140, 140) / 2, RNG.normal(size=40) * 200]).astype(np.float32) * np.float32(step)
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")]
    constants = {"s": np.float32(step), "z": np.int8(0)}
    if half:  # halves of exact steps are exact
        numbers, step16 = Numbers(half=True), np.float16(step)
        constants["s"] = np.float32(step16)
        x = (np.arange(-250, 250) * np.float32(step16) / 2).astype(np.float16).astype(np.float32)
        compare(nodes, {"x": x}, constants, atol=float(step16) * 0.13, numbers=numbers)
    else:
        compare(nodes, {"x": x}, constants, numbers=Numbers())


@pytest.mark.parametrize("ios", [17, 18])
@pytest.mark.parametrize("per", ["channel", "block"])
def test_products_with_weights_in_few_bits(ios, per):
    K, N = 64, 5
    constants = {"w": RNG.integers(-127, 128, (K, N)).astype(np.int8), "s": np.abs(floats(N)) + 0.1}
    attributes = {"axis": 1}
    if per == "block":
        constants = {
            "w": RNG.integers(-7, 8, (K, N)).astype(ml_dtypes.int4),
            "s": np.abs(floats(2, N)) + np.float32(0.1),
        }
        attributes = {"axis": 0, "block_size": 32}
    constants["z"] = np.zeros(constants["s"].shape, constants["w"].dtype)
    nodes = [node("DequantizeLinear", "w s z", "wide", **attributes), node("MatMul", "x wide")]
    call = lambda: compare(nodes, {"x": floats(2, 3, K)}, constants, 1e-3, 21, Numbers(ios=ios))  # noqa: E731
    if per == "block" and ios == 17:
        with pytest.raises(InputError, match="--precision int4-weights needs --ios 18"):
            call()
    else:
        call()


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("ios", [17, 18])
def test_products_with_weights_from_a_table(ios, bits):
    weight = floats(2**bits - 1)[RNG.integers(0, 2**bits - 1, (24, 7))]
    constants = {"a_proj.weight": weight}
    compare(node("MatMul", "x a_proj.weight"), {"x": floats(2, 24)}, constants, numbers=Numbers(False, ios, bits))


def test_a_table_cannot_name_more_values_than_its_bits():
    made = model([node("MatMul", "x L_level.w")], {"x": floats(2, 24)}, {"L_level.w": floats(24, 7)})
    with pytest.raises(InputError, match="168 different values, which 4 bits cannot name"):
        program(made, Numbers(bits=4))


@given(bits=st.sampled_from([1, 2, 4, 6, 8]), count=st.integers(1, 40), seed=st.integers(0, 99))
def test_packed_indices_are_read_back_by_coremltools(bits, count, seed):
    from coremltools.optimize import _utils

    indices = np.random.default_rng(seed).integers(0, 2**bits, count).astype(np.uint8)
    content = packed(indices, bits)
    assert len(content) == -(-bits * count // 8)
    np.testing.assert_array_equal(_utils.restore_elements_from_packed_bits(content, bits, count), indices)


def test_numbers_beyond_half_precision_are_refused():
    made = model([node("Mul", "x n")], {"x": X}, {"n": np.float32(1e5)})
    with pytest.raises(InputError, match="weight n has values that float16 cannot hold"):
        program(made, Numbers(half=True))


def test_a_norm_in_float16_takes_what_has_no_square_there():
    """Squares beyond 255² are infinite in float16; what is small is still normed."""
    nodes, _, constants = CASES["a norm"]
    constants = {**constants, "eps": np.float32(1e-5)}
    x = np.concatenate([np.float32(600) * X[:1], np.float32(0.05) * X[1:]])
    made = model(nodes, {"x": x}, constants)
    np.testing.assert_allclose(
        program(made, Numbers(half=True))({"x": x})["y"], plainly(made, {"x": x})["y"], rtol=0.02
    )


def test_steps_that_float16_cannot_tell_from_others_are_refused():
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")]
    made = model(nodes, {"x": X}, {"s": np.float32(1e-7), "z": np.int8(0)})
    with pytest.raises(InputError, match="1e-07, which float16 cannot hold"):
        program(made, Numbers(half=True))


def test_an_operator_without_a_form_is_named():
    with pytest.raises(InputError, match=r"has the operator Hardmax .* which has no form in Core ML's MIL"):
        program(model([node("Hardmax", "x")], {"x": X}, {}))


def test_float16_is_what_is_computed_in():
    """1 + 2⁻¹² is 1 there."""
    made = model(
        [node("Add", "x n", "t"), node("Sub", "t x")], {"x": np.ones(1, np.float32)}, {"n": np.float32(2**-12)}
    )
    for half, difference in ((False, 2**-12), (True, 0)):
        result = program(made, Numbers(half=half))({"x": np.ones(1, np.float32)})["y"]
        assert (result.dtype, float(result[0])) == (np.float32, difference)


# -- whole networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows"), [("grid", 1), ("rope", 1), ("learned", 1), ("learned", 4), ("convolution", 1)]
)
def test_six_segments_are_those_of_torch(traced, name, rows):
    network, _, segment = traced(name)
    feeds = segment_feeds(network, rows)
    states = (torch.from_numpy(feeds["z_H"]), torch.from_numpy(feeds["z_L"]))
    for made in reroll(program(at_batch(segment, rows)), feeds, 6):
        with torch.inference_mode():
            *states, logits, q = network.segment(*states, torch.from_numpy(feeds["e"]))
        for name, want in zip(("z_H_next", "z_L_next", "logits", "q"), (*states, logits, q), strict=True):
            np.testing.assert_allclose(made[name], want.numpy(), atol=1e-4)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_puzzle_begins_as_in_torch(each, rows):
    network, start, _ = each
    feeds = {"tokens": TASK.generate(rows, np.random.default_rng(2))[0]}
    if network.config.num_puzzle_identifiers > 1:
        feeds["puzzle_identifiers"] = np.arange(rows, dtype=np.int32)
    made = program(at_batch(start, rows))(feeds)
    with torch.inference_mode():
        e = network.embed(*(torch.from_numpy(value) for value in feeds.values()))
        wanted = {"e": e, **dict(zip(("z_H", "z_L"), network.initial_state(rows), strict=True))}
    for name, want in wanted.items():
        np.testing.assert_allclose(made[name], want.numpy(), atol=1e-5)


def loop_feeds(network, rows: int, steps: int, halt: int) -> dict[str, np.ndarray]:
    values = {
        "tokens": TASK.generate(rows, np.random.default_rng(1))[0],
        "max_think_steps": np.array(steps, np.int32),
        "halt": np.array(halt, np.int32),
    }
    if network.config.num_puzzle_identifiers > 1:
        values["puzzle_identifiers"] = np.arange(rows, dtype=np.int32) % 5
    return values


def test_the_loop_is_that_of_onnxruntime(each):
    """Every way to halt, on 20 puzzles; by learned halting also against the rule written out with torch."""
    network, start, segment = each
    loop = at_batch(wrap_in_loop(start, segment, TASK, network.config.no_ACT_continue), 20)
    lowered = program(loop)
    for halt, steps in ((LEARNED, 6), (FIXED, 3), (VERIFIED, 2), (LEARNED, 1)):
        values = loop_feeds(network, 20, steps, halt)
        want, got = run("onnx", loop, values), lowered(values)
        np.testing.assert_array_equal(got["answer"], want["answer"])
        np.testing.assert_array_equal(got["steps"], want["steps"])
        np.testing.assert_allclose(got["q"], want["q"], atol=1e-4)
        assert {name: value.dtype for name, value in got.items()} == {n: v.dtype for n, v in want.items()}
    values = loop_feeds(network, 20, 6, LEARNED)
    answer, steps, _ = think(network, values["tokens"], 6, values.get("puzzle_identifiers"))
    got = lowered(values)
    np.testing.assert_array_equal(got["answer"], answer)
    np.testing.assert_array_equal(got["steps"], steps)
    assert len(set(steps.tolist())) > 1


@pytest.mark.parametrize("name", ["learned", "convolution", pytest.param("rope", marks=pytest.mark.slow)])
def test_coremltools_own_conversion_of_the_torch_network_agrees(traced, name):
    """Another way to the same program: torch.export, and coremltools' torch frontend."""
    import coremltools

    network, _, segment = traced(name)
    shape = (1, network.config.sequence_len, network.config.hidden_size)
    with quiet(), torch.no_grad():
        exported = torch.export.export(exported_form(network), tuple(torch.zeros(shape) for _ in range(3)))
        theirs = coremltools.convert(
            exported.run_decompositions({}),
            inputs=[coremltools.TensorType(name, shape) for name in ("z_H", "z_L", "e")],
            minimum_deployment_target=coremltools.target.iOS17,
            compute_precision=coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
    feeds = segment_feeds(network, 1)
    other, ours = saved(theirs), program(at_batch(segment, 1))
    got = list(other(feeds).values())
    for name, value in zip(("z_H_next", "z_L_next", "logits", "q"), got, strict=True):
        np.testing.assert_allclose(ours(feeds)[name], value, atol=1e-4)


def test_all_of_it_in_float16_stays_near_float32(traced):
    """As near as the float16 that keeps norms and residual sums in float32 stays, to a small factor."""
    network, _, segment = traced("rope")
    feeds = segment_feeds(network, 1)
    fixed = at_batch(segment, 1)
    exact = reroll(program(fixed), feeds, 3)[-1]
    half = reroll(program(fixed, Numbers(half=True)), feeds, 3)[-1]
    convert(fixed, PRECISIONS["fp16"])
    mixed = reroll(lambda values: run("onnx", fixed, values), feeds, 3)[-1]
    for name in ("z_H_next", "logits"):
        error, usual = (np.abs(other[name] - exact[name]).max() for other in (half, mixed))
        assert 0 < error < 10 * usual
