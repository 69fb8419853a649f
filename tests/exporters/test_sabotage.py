"""Whatever is broken on purpose between checkpoint and bundle is caught, with the right reason, before it ships.

Each of these is silent by itself: the export, the library or the backend goes on in float32, or in wrong int8.
"""

import dataclasses
import functools

import numpy as np
import onnx
import pytest
from onnx import helper
from small_exports import SITE, export, refused, scaled
from small_networks import TASK, checkpoint
from traced_networks import calibration, expected_products, plan, traced

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import GateFailed
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.audit import audit, raise_unless_quantized
from hrm_edge.exporters.build import ExportOptions
from hrm_edge.exporters.graph.edit import PassFailed, all_nodes, array_of, initializers, replace_nodes, tensor_of
from hrm_edge.exporters.graph.loop import wrap_in_loop
from hrm_edge.exporters.quantize import int8
from hrm_edge.exporters.quantize.plan import wrong_scales
from hrm_edge.exporters.targets.onnx import serialized, write_graph

pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("fresh_exports")


def test_nothing_is_refused_when_nothing_is_broken(tmp_path):
    for target in ("onnx", "openvino"):
        made = export(tmp_path / target, target)
        assert made.quantization.products.missing == ()
        assert made.quantization.products.found == len(expected_products(traced("grid")[0]))


def audited(model: onnx.ModelProto, folder, expected, precision="int8", target="onnx"):
    """Write one graph and audit it: GateFailed unless all that is expected was compiled."""
    folder.mkdir(exist_ok=True)
    products = audit(target, [folder / write_graph(model, folder, "segment")], precision, expected)
    raise_unless_quantized(products, "b", precision)
    return products


# -- a. transposes left on the weights -----------------------------------------------------------------


def with_transposes(segment: onnx.ModelProto, only: str = "") -> onnx.ModelProto:
    """As the tracer leaves it: weights stored as the checkpoint has them, turned anew for every use."""
    nodes = []
    stored = initializers(segment.graph)
    turned = {name for name in stored if name.endswith("_proj.weight") and only in name}
    for node in segment.graph.node:
        if node.op_type == "MatMul" and node.input[1] in turned:
            value = f"{node.name}.T"
            nodes.append(helper.make_node("Transpose", [node.input[1]], [value], perm=[1, 0], name=value))
            node.input[1] = value
        nodes.append(node)
    for tensor in segment.graph.initializer:
        if tensor.name in turned:
            tensor.CopyFrom(tensor_of(array_of(tensor).T, tensor.name))
    replace_nodes(segment.graph, nodes)
    return segment


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4-weights"])
def test_transposes_on_all_weights(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(build, "trace_segment", lambda model: with_transposes(traced("grid")[2]))
    refused(tmp_path / "b", "no product with a stored weight", PassFailed, precision=precision)


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4-weights"])
def test_transposes_on_one_weight_alone(tmp_path, monkeypatch, precision):
    """The other layers are quantized as asked: what is there to be found must not come from what was found."""
    one = "H_level.layers.0.mlp.down_proj"
    monkeypatch.setattr(build, "trace_segment", lambda model: with_transposes(traced("grid")[2], one))
    refused(tmp_path / "b", one.replace(".", r"\."), (GateFailed, PassFailed), precision=precision)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_library_that_is_blinded_by_transposes_is_found_out(tmp_path, target):
    """Nothing is quantized, and nothing raised, when no product shows a stored weight."""
    model, _, segment = traced("grid")
    expected = expected_products(model)
    blind = with_transposes(segment)
    folder = tmp_path / "b"
    folder.mkdir()
    module = pytest.importorskip(f"hrm_edge.exporters.targets.{target}")
    products = audit(target, [folder / module.write_graph(blind, folder, "segment")], "int8", expected)
    assert (products.found, list(products.missing)) == (0, expected)
    with pytest.raises(GateFailed, match=rf"0 of {len(expected)} int8 products .* not {expected[0]}, "):
        raise_unless_quantized(products, "b", "int8")


# -- b. a body quantized after it was wrapped ----------------------------------------------------------


def looped(segment: onnx.ModelProto) -> onnx.ModelProto:
    model, start, _ = traced("grid")
    return wrap_in_loop(start, segment, TASK, model.config.no_ACT_continue)


def test_a_library_does_nothing_inside_a_loop_and_says_nothing(tmp_path):
    ort_quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(ort_quantization.CalibrationDataReader):
        def __init__(self):
            scalars = {"max_think_steps": np.array(2, np.int32), "halt": np.array(0, np.int32)}
            self.left = [{"tokens": calibration().questions[:4], **scalars}]

        def get_next(self):
            return self.left.pop() if self.left else None

    float_, quantized = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    float_.write_bytes(serialized(looped(traced("grid")[2])))
    ort_quantization.quantize_static(
        str(float_),
        str(quantized),
        Reader(),
        op_types_to_quantize=["MatMul"],
        extra_options={"EnableSubgraph": True},
    )
    model = onnx.load(quantized)
    (body,) = (a.g for n in model.graph.node if n.op_type == "Loop" for a in n.attribute if a.name == "body")
    assert not [node for node in all_nodes(body) if "Quantize" in node.op_type]
    expected = expected_products(traced("grid")[0])
    products = audit("onnx", [quantized], "int8", expected)
    assert products.found == 0
    with pytest.raises(GateFailed, match=f"0 of {len(expected)} int8 products"):
        raise_unless_quantized(products, "b", "int8")


def test_our_own_pass_refuses_a_loop():
    with pytest.raises(PassFailed, match="no product with a stored weight"):
        plan("grid").apply(looped(traced("grid")[2]), "onnx")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_float_segment_that_was_wrapped_is_found_out(tmp_path, monkeypatch, target):
    """The plan is applied, but it is the float segment that goes into the loop."""
    real = build.wrap_in_loop
    monkeypatch.setattr(
        build, "wrap_in_loop", lambda start, segment, *facts: real(start, traced("grid")[2], *facts)
    )
    names = expected_products(traced("grid")[0])
    line = refused(tmp_path / "b", f"0 of {len(names)} int8 products", target=target, loop="graph")
    assert any(name in line for name in names)


# -- c, d. scales --------------------------------------------------------------------------------------


def breaking(monkeypatch, change):
    """Let the graph that is quantized be changed afterwards."""
    real = int8.quantize

    def quantize(segment, *rest, **named):
        names = real(segment, *rest, **named)
        change(segment)
        return names

    monkeypatch.setattr(int8, "quantize", quantize)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("factor", [4, 0.25])
def test_one_scale_that_is_off_in_the_graph(tmp_path, monkeypatch, factor, target):
    breaking(monkeypatch, functools.partial(scaled, factor, SITE))
    line = refused(tmp_path / "b", "calibrated", target=target)
    assert f"the input scale of {SITE} is {factor:.2f} × the calibrated one" in line


def test_scales_of_a_whole_layer_that_saturate(tmp_path, monkeypatch):
    breaking(monkeypatch, functools.partial(scaled, 1 / 20, "down_proj"))
    assert "down_proj/0 is 0.05 ×" in refused(tmp_path / "b", "calibrated")


def test_scales_that_saturate_because_the_plan_says_so(tmp_path, monkeypatch):
    from hrm_edge.exporters.quantize.plan import Calibrator

    real = Calibrator.plan

    def narrow(self, recipe, precision):
        made = real(self, recipe, precision)
        return dataclasses.replace(made, scales={**made.scales, SITE: made.scales[SITE] / 20})

    monkeypatch.setattr(Calibrator, "plan", narrow)
    assert SITE in refused(tmp_path / "b", r"saturates: \d+\.\d% of the calibration values lie beyond 127 steps")


def test_every_site_of_a_saturated_layer_is_named():
    made = plan("rope")
    layer = "L_level.layers.0.self_attn.o_proj"
    scales = {site: scale / 20 if site.startswith(layer) else scale for site, scale in made.scales.items()}
    narrow = dataclasses.replace(made, scales=scales)
    lines = wrong_scales(narrow, narrow.apply(traced("rope")[2], "onnx")[0])
    assert len(lines) == 4
    assert all("saturates" in line and f"{layer}/" in line for line in lines)


# -- e. what a backend silently computes in float ------------------------------------------------------


def test_signed_int8_is_nothing_to_onnxruntime(tmp_path):
    model, _, segment = traced("grid")
    expected = expected_products(model)
    signed, names = plan("grid").apply(segment, "openvino")
    assert sorted(names) == sorted(expected)
    # Some fuse all the same; what counts is that one is enough to be refused, and that they are named.
    with pytest.raises(GateFailed, match=rf"\d of {len(expected)} int8 products were compiled as such; not \S+/0"):
        audited(signed, tmp_path / "signed", names)
    unsigned, names = plan("grid").apply(segment, "onnx")
    assert audited(unsigned, tmp_path / "unsigned", names).found == len(expected)


def test_one_product_that_is_left_in_float_is_named(tmp_path, monkeypatch):
    """Its quantizer taken out of the finished graph, everything else as it was."""

    def unquantize(segment):
        made = {node.output[0]: node for node in segment.graph.node}
        product = next(node for node in segment.graph.node if node.name == SITE)
        quantized = made[product.input[0]]  # dequantize ← quantize ← the value itself
        product.input[0] = made[quantized.input[0]].input[0]

    breaking(monkeypatch, unquantize)
    total = len(expected_products(traced("grid")[0]))
    refused(tmp_path / "b", rf"{total - 1} of {total} int8 products were compiled as such; not {SITE};")


def other_for_one_row(monkeypatch, other):
    """OpenVINO compiles a graph for single rows of its own: let that be another file's."""
    from hrm_edge.runtimes import openvino

    real = openvino._for_rows

    def for_rows(read, rows):
        return real(openvino.core().read_model(str(other)) if rows == 1 else read, rows)

    monkeypatch.setattr(openvino, "_for_rows", for_rows)


def test_a_graph_that_is_in_float_for_single_rows_alone(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    export(tmp_path / "float", "openvino", "fp32")
    other_for_one_row(monkeypatch, tmp_path / "float" / "segment.xml")
    total = len(expected_products(traced("grid")[0]))
    refused(tmp_path / "b", rf"0 of {total} int8 products were compiled as such", target="openvino")


# -- f. a loop that answers only as the gate used to ask -----------------------------------------------


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_trip_count_that_is_constant(tmp_path, monkeypatch, target):
    """Learned halting with the trained limit, which was all that was asked, is answered right."""
    real = build.wrap_in_loop

    def constant(*arguments):
        model = real(*arguments)
        (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
        model.graph.initializer.append(tensor_of(np.array(6), "always"))
        loop.input[0] = "always"
        return model

    monkeypatch.setattr(build, "wrap_in_loop", constant)
    source = checkpoint(traced("grid")[0])
    gate = GateOptions(generate_puzzles(TASK, 8, 5), max_drop=100, not_judged=True)
    with pytest.raises(GateFailed, match="it took 6 to 6 segments, and at most 1 were asked for"):
        export_bundle(source, ExportOptions(target, "fp32", "graph"), tmp_path / "b", gate)
    assert not (tmp_path / "b").exists()


def test_a_graph_that_is_wrong_for_several_rows_which_the_engine_never_gives_it(tmp_path, monkeypatch):
    """Who runs the graph without this code may give it as many rows as its inputs say."""
    from hrm_edge.runtimes import onnx

    real = onnx.as_graph

    def as_graph(session):
        run = real(session)

        def echoing(feeds):
            outputs = run(feeds)
            return outputs if len(feeds["tokens"]) == 1 else {**outputs, "answer": feeds["tokens"]}

        return echoing

    monkeypatch.setattr(onnx, "as_graph", as_graph)
    gate = GateOptions(generate_puzzles(TASK, 8, 5), max_drop=100, not_judged=True)
    options = ExportOptions("onnx", "fp32", "graph")
    with pytest.raises(GateFailed, match="boards with the question itself"):
        export_bundle(checkpoint(traced("grid")[0]), options, tmp_path / "b", gate)
    assert not (tmp_path / "b").exists()
