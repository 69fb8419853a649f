"""Graphs as LiteRT runs them: operator by operator against onnxruntime, whole segments against torch and their QDQ
graphs, and products counted from what the XNNPACK delegate took."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest
from operators import CASES, X, floats, model, node
from run_onnx import run
from small_networks import TASK, checkpoint
from traced_networks import expected_products, feeds, plan, traced, weight_plan
from ungated import write_bundle

pytest.importorskip("ai_edge_litert", reason="LiteRT's runtime (extra `litert`) is not installed")

from litert_models import lowered, write

from hrm_edge.errors import GateFailed, InputError
from hrm_edge.exporters.audit import audit, raise_unless_quantized
from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.quantize.int8 import input_scales
from hrm_edge.exporters.targets.litert.ops import EMIT
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import backend, load_engine

# In TensorFlow Lite itself: no error function, a softmax over the last dimension alone, no groups but one or all.
LACKING = {"error function", "softmax inside", "convolution of a sequence, with a bias"}
NAMES = ("learned", "convolution", "units")
QUESTIONS = TASK.generate(5, np.random.default_rng(1))[0]


def fixed(graph, rows=1):
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    fix_batch(copy, rows)
    return copy


@pytest.mark.parametrize("case", sorted(CASES.keys() - LACKING))
def test_an_operator_gives_what_onnxruntime_gives(case):
    nodes, inputs, constants = CASES[case]
    made = model(nodes if isinstance(nodes, list) else [nodes], inputs, constants)
    want, got = run("onnx", made, inputs)["y"], lowered(made)(inputs)["y"]
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=5e-6)


def test_every_operator_that_has_a_form_is_among_the_cases():
    nodes = [n for case in CASES.keys() - LACKING for n in _listed(CASES[case][0])]
    assert {n.op_type for n in nodes} | {"QuantizeLinear", "DequantizeLinear", "Slice"} == set(EMIT)


def _listed(nodes):
    return nodes if isinstance(nodes, list) else [nodes]


@pytest.mark.parametrize("steps", [1, 2])
def test_slices(steps):
    constants = {"s": [-5, 1], "e": [2**63 - 1, -1], "a": [2, 1], "d": [steps, 1]}
    made = model(
        [node("Slice", "x s e a d")], {"x": X}, {name: np.array(each, np.int64) for name, each in constants.items()}
    )
    np.testing.assert_array_equal(lowered(made)({"x": X})["y"], X[:, 1:-1, -5::steps])


def test_an_operator_without_a_form_is_named():
    with pytest.raises(InputError, match=r"has the operator Hardmax .* no form in TensorFlow Lite here yet"):
        lowered(model([node("Hardmax", "x")], {"x": X}, {}))


# -- whole networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_pytorchs(name, tmp_path):
    network, start, segment = traced(name)
    source = checkpoint(network)
    write_bundle(source, start, segment, ExportOptions.for_target("litert", batch=2), tmp_path, name)
    ids = np.arange(5, dtype=np.int32) if network.config.num_puzzle_identifiers > 1 else None
    ours = load_engine(tmp_path).solve(QUESTIONS, 3, "fixed", puzzle_identifiers=ids)
    theirs = TorchEngine(source).solve(QUESTIONS, 3, "fixed", puzzle_identifiers=ids)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_allclose(ours.q, theirs.q, atol=1e-4)


def test_halves_are_stored_and_widened(tmp_path):
    network, _, segment = traced("rope")
    made, values = fixed(segment), feeds(network, 1)
    sizes = [write(made, tmp_path, half).stat().st_size for half in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]
    want, got = lowered(made)(values), lowered(made, half=True)(values)
    errors = [np.abs(got[name] - want[name]).max() for name in want]
    assert 1e-6 < max(errors) < 0.02


@pytest.mark.parametrize("wide", [False, True])
def test_int8_is_the_quantized_graph(wide):
    """Integers, rounded where the graph says, up to the first scores: a tie that falls the other way moves what
    comes after."""
    network, _, segment = traced("rope")
    chosen = plan("rope")
    if wide:
        chosen = chosen.widening({site.rpartition("/")[0]: "a test" for site in chosen.scales})
    quantized, _ = chosen.apply(segment, "litert")
    values, got, want = feeds(network, 1), [], []
    for graph in (quantized, segment):
        graph = fixed(graph)
        scores = next(node.input[0] for node in graph.graph.node if node.op_type == "Softmax")
        del graph.graph.output[:]
        graph.graph.output.append(onnx.helper.make_tensor_value_info(scores, onnx.TensorProto.FLOAT, None))
        want.append(run("onnx", graph, values)[scores])
        got.append(lowered(graph)(values)[scores])
    # Of 16 bits, all that is lost is lost with the results.
    assert np.abs(want[0] - want[1]).max() > 1e-3
    np.testing.assert_allclose(got[0], want[0], atol=1e-4)


def test_results_have_steps_that_fit_what_calibration_saw():
    """Of each channel, five root mean squares of the results that the float segment has there."""
    network, _, segment = traced("rope")
    quantized, low = plan("rope").apply(segment, "litert")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    values = feeds(network, 64)
    shown = onnx.ModelProto.FromString(quantized.SerializeToString())
    shown.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in low)
    results = run("onnx", shown, values)
    for name in low:
        steps = stored[f"{name.rpartition('/')[0]}.output_scale"]
        measured = np.sqrt((results[name] ** 2).mean(axis=(0, 1)))
        assert steps.shape == measured.shape
        assert 0.4 < np.median(steps * 127 / 5 / measured) < 2.5


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_the_delegate_takes_every_product_as_it_was_asked_for(precision, tmp_path):
    network, _, segment = traced("rope" if precision == "int8" else "grid")
    chosen = plan("rope") if precision == "int8" else weight_plan("grid", precision)
    quantized, low = chosen.apply(segment, "litert")
    assert sorted(low) == sorted(expected_products(network))
    file = write(fixed(quantized), tmp_path)
    products = audit("litert", [file], precision, low)
    assert products.found == products.expected == len(low) > 0
    left = "int8" if precision == "int8" else "float32"
    assert products.kinds == {f"{left} × int8": len(low), "float32 × float32": 2}  # the heads


def test_a_product_that_stayed_in_float_is_named(tmp_path):
    network, _, segment = traced("rope")
    layer = next(iter(sorted({site.rpartition("/")[0] for site in plan("rope").scales})))
    quantized, _ = plan("rope").keeping({layer: "a test"}).apply(segment, "litert")
    products = audit("litert", [write(fixed(quantized), tmp_path)], "int8", expected_products(network))
    assert 0 < len(products.missing) < products.expected
    with pytest.raises(GateFailed, match=r"int8 products were compiled as such; not "):
        raise_unless_quantized(products, "a bundle", "int8")


def test_what_the_delegate_leaves_is_told(tmp_path, monkeypatch):
    """Here it takes nothing, as it is not there."""
    from ai_edge_litert.interpreter import OpResolverType

    from hrm_edge.runtimes import litert

    made = model([node("MatMul", "x w")], {"x": X}, {"w": floats(8, 5)})
    file, plain = write(made, tmp_path), litert._interpreter
    bare = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    monkeypatch.setattr(litert, "_interpreter", lambda *rest, **options: plain(*rest, **options, **bare))
    (product,) = backend("litert").compiled_products(file)
    assert (product.left, product.right) == ("float32 outside XNNPACK", "float32 outside XNNPACK")


def test_trained_scales_are_kept_and_weights_are_rounded_to_nearest():
    _, _, segment = traced("rope")
    chosen = plan("rope")
    nearest, _ = replace(chosen, nearest=True, factors={}).apply(segment, "litert")
    assert set(input_scales(nearest).values()) == {float(np.float32(each)) for each in chosen.scales.values()}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in nearest.graph.initializer}
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in segment.graph.initializer}
    name = "L_level.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(stored[name], np.rint(weights[name] / stored[f"{name}_scale"]))


def test_the_same_graph_gives_the_same_bytes(tmp_path):
    _, _, segment = traced("grid")
    first = write(fixed(segment), tmp_path).read_bytes()
    assert write(fixed(segment), tmp_path).read_bytes() == first


def test_threads_share_one_engine(tmp_path):
    network, start, segment = traced("grid")
    write_bundle(checkpoint(network), start, segment, ExportOptions.for_target("litert"), tmp_path, "grid")
    engine = load_engine(tmp_path, threads=1)
    alone = [engine.solve(QUESTIONS[[i]]).tokens for i in range(5)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: engine.solve(QUESTIONS[[i]]).tokens, list(range(5)) * 4))
    for i, tokens in enumerate(together):
        np.testing.assert_array_equal(tokens, alone[i % 5])


def test_nothing_reaches_the_terminal_and_a_damaged_file_is_one_line(tmp_path, capfd):
    made = model([node("Add", "x x")], {"x": X}, {})
    file = write(made, tmp_path)
    assert backend("litert").load_graph(file, 1)({"x": X})["y"].shape == X.shape
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"LiteRT .* can not load it"):
        backend("litert").load_graph(file, 1)
    assert capfd.readouterr() == ("", "")


def test_a_size_that_a_few_bytes_ask_for_is_refused_before_it_is_taken(tmp_path):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    file = write(model([node("Relu", "x")], {"x": X}, {}), tmp_path)
    changed = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
    for tensor in changed.subgraphs[0].tensors:
        tensor.shape = [1, 2**30, 1]
    builder = flatbuffers.Builder()
    builder.Finish(changed.Pack(builder), b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    with pytest.raises(InputError, match=r"LiteRT .* can not load it \(tensor '.*' has 1,073,741,824 values\)"):
        backend("litert").load_graph(file, 1)


def test_options():
    with pytest.raises(InputError, match="--batch dynamic: LiteRT's models have fixed shapes"):
        ExportOptions.for_target("litert", batch="dynamic")
    with pytest.raises(InputError, match="--loop graph: not for litert"):
        ExportOptions.for_target("litert", loop="graph")
