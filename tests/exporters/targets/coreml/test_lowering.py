"""Lowered graphs, saved and interpreted: operator by operator against onnxruntime, as a whole against torch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import CASES, RNG, X, floats, long, model, node
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


def compare(nodes, inputs, constants=None, atol=2e-6, opset=20, numbers=None) -> None:
    made = model(nodes if isinstance(nodes, list) else [nodes], inputs, constants or {}, opset)
    want = plainly(made, inputs)["y"]
    got = program(made, numbers)(inputs)["y"]
    assert got.dtype == want.dtype
    assert got.shape == (want.shape or (1,))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


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
