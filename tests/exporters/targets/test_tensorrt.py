"""Target tensorrt on a machine without a GPU: real engines by tensorrt-rtx, and what its builder says of them."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_networks import TASK, checkpoint, network
from traced_networks import CONFIGS, expected_products, traced

from hrm_edge.bundle import open_bundle
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.graph.edit import all_graphs, array_of, initializers, replace_nodes, tensor_of
from hrm_edge.exporters.graph.trace import trace_segment
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.quantize.fp16 import convert
from hrm_edge.exporters.search.decide import Quantizing, stored_bytes
from hrm_edge.exporters.targets.onnx import serialized
from hrm_edge.exporters.targets.tensorrt import TARGET
from hrm_edge.precision import PRECISIONS
from hrm_edge.runtimes import backend, load_engine
from hrm_edge.runtimes.tensorrt import audit as trt_audit
from hrm_edge.runtimes.tensorrt import build as trt_build
from hrm_edge.runtimes.tensorrt.flavours import flavour

pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("untrained")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    for i, name in enumerate(("trace_start", "trace_segment")):
        monkeypatch.setattr(build, name, lambda model, i=i: traced("grid")[1 + i])
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))


def export(folder, precision="fp32", loop="host", puzzles=None, **options):
    quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
    wanted = ExportOptions("tensorrt", precision, loop, **options)
    return export_bundle(checkpoint(traced("grid")[0]), wanted, folder, GateOptions(puzzles, 100.0), quick)


def built(model: onnx.ModelProto) -> trt_build.SerializedEngine:
    return trt_build.build(flavour(), serialized(model), compute_capabilities=(86,), rows=(1, 2, 4))


@pytest.mark.parametrize("loop", ["graph", "host"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_a_bundle_holds_onnx_engines_and_an_audit(tmp_path, precision, loop):
    made = export(tmp_path / "b", precision, loop)
    bundle = open_bundle(tmp_path / "b")
    stems = {"model"} if loop == "graph" else {"start", "segment"}
    assert bundle.manifest.graphs == {stem: f"{stem}.onnx" for stem in stems}
    record = json.loads((tmp_path / "b" / "tensorrt.json").read_text())
    assert {engine["graph"] for engine in record["engines"]} == stems
    for engine in record["engines"]:
        assert engine["compute_capabilities"] == [86, 89, 120]
        assert (tmp_path / "b" / engine["file"]).stat().st_size > 1000
        audit = record["audit"][engine["graph"]]
        assert set(audit["bindings"].values()) <= {"float32", "int32"}
        assert audit["weights_bytes"] <= 1.1 * audit["stored_bytes"]
        assert audit["loops"] == (1 if loop == "graph" else 0)
    products = made.products
    assert (products.found, products.missing) == (len(expected_products(traced("grid")[0])), ())
    kind = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}[precision]
    assert products.kinds[f"{kind} × {kind}"] >= products.found
    assert "unverified" in record["numerics"]


def test_what_the_log_says_is_what_the_network_computes(each):
    """Every product is found once, under its name, and no other."""
    model, _, segment = each
    found = trt_audit.products(built(segment))
    names = [product.name for product in found]
    assert len(names) == len(set(names))
    assert set(expected_products(model)) <= set(names)
    assert {(p.left, p.right) for p in found} == {("float32", "float32")}


def test_gated_through_its_onnx_and_the_bundle_says_so(tmp_path, monkeypatch):
    puzzles = generate_puzzles(TASK, 24, 5, "ordinary")
    made = export(tmp_path / "b", "fp32", "graph", puzzles)
    assert made.gate.passed
    assert made.gate.answers_differ == 0
    assert "onnxruntime" in made.gate.bundle.engine
    assert "not on a GPU" in made.manifest.gate.reason


def test_a_bundle_does_not_run_without_a_gpu(tmp_path):
    if backend("tensorrt").available()[0]:
        pytest.skip("there is a GPU that runs it")
    export(tmp_path / "b")
    with pytest.raises(InputError, match=r"needs tensorrt, which is not usable here \(.*\)"):
        load_engine(tmp_path / "b")


def test_fixed_rows_need_no_profile(tmp_path):
    export(tmp_path / "b", batch=2)
    record = json.loads((tmp_path / "b" / "tensorrt.json").read_text())
    assert [engine["rows"] for engine in record["engines"]] == [None, None]


def test_compute_capabilities_it_can_not_build_for(tmp_path):
    with pytest.raises(InputError, match=r"can not build for compute capability 9\.0, only for .*8\.6"):
        export(tmp_path / "b", compute_capabilities=(86, 90))
    assert not (tmp_path / "b").exists()


# -- sabotage --------------------------------------------------------------------------------------------


def refused(folder, reason, error=GateFailed, **options) -> None:
    with pytest.raises(error, match=reason) as caught:
        export(folder, **options)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def spoiling(monkeypatch, spoil) -> None:
    """Change each graph between quantization and the target."""
    write = TARGET.write

    def changed(models, context):
        for model in models.values():
            spoil(model)
        return write(models, context)

    monkeypatch.setattr(TARGET, "write", changed)


def test_asymmetric_quantization_is_refused(tmp_path, monkeypatch):
    def spoil(model):
        for tensor in model.graph.initializer:
            if tensor.name == "zero_point":
                tensor.CopyFrom(tensor_of(np.array(3, np.int8), tensor.name))

    spoiling(monkeypatch, spoil)
    refused(tmp_path / "b", r"can not read the graph: .*zero point", InputError, precision="int8")


def test_an_int64_binding_is_refused(tmp_path, monkeypatch):
    def spoil(model):
        for value in model.graph.input:
            if value.name == "tokens":
                value.type.tensor_type.elem_type = TensorProto.INT64
        for node in model.graph.node:  # the bounds of its values, which must be of its type
            if node.op_type == "Clip":
                node.op_type = "Identity"
                del node.input[1:]

    spoiling(monkeypatch, spoil)
    refused(tmp_path / "b", r"'tokens' is int64, which its engines do not take; declare it int32", InputError)


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_one_product_left_in_float32_is_found(tmp_path, monkeypatch, loop):
    """Its quantizer is bypassed: the graph still holds as many pairs, and TensorRT builds it without a word."""
    name = "H_level.layers.0.mlp.down_proj/0"

    def spoil(model):
        for graph in all_graphs(model.graph):
            made = {node.output[0]: node for node in graph.node}
            for node in graph.node:
                if node.name == name:
                    quantize = made[made[node.input[0]].input[0]]
                    node.input[0] = quantize.input[0]

    spoiling(monkeypatch, spoil)
    reason = rf"of \d+ int8 products were compiled as such; not {re.escape(name)}; nothing was published"
    refused(tmp_path / "b", reason, precision="int8", loop=loop)


def test_weights_that_were_widened_are_found(monkeypatch):
    """Stored in half, widened before the product: the same answers, twice the memory."""
    _, _, segment = traced("grid")
    nodes, tensors = [], initializers(segment.graph)
    for tensor in list(segment.graph.initializer):
        if tensor.name.endswith("_proj.weight"):
            tensors[tensor.name].CopyFrom(tensor_of(array_of(tensor).astype(np.float16), tensor.name))
            nodes.append(helper.make_node("Cast", [tensor.name], [f"{tensor.name} wide"], to=TensorProto.FLOAT))
    for node in segment.graph.node:
        for i, name in enumerate(node.input):
            if name.endswith("_proj.weight"):
                node.input[i] = f"{name} wide"
    replace_nodes(segment.graph, [*nodes, *segment.graph.node])
    with pytest.raises(GateFailed, match=r"they were widened, or copied for every cycle"):
        trt_audit.raise_unless_sound(built(segment), "segment.onnx", stored_bytes([segment]), wants_loop=False)


def test_a_residual_fused_with_a_product_is_not_taken_for_its_operand():
    """It may stand first among the inputs, as TensorRT compiles a half-precision mixer whose S' is odd."""
    model = network(**{**CONFIGS["mixer"], "puzzle_emb_ndim": 32})
    assert model.config.sequence_len == 17
    segment = trace_segment(model)
    convert(segment, PRECISIONS["fp16"])
    made = built(segment)
    kinds = {p.name: (p.left, p.right) for p in trt_audit.products(made)}
    assert {kinds[name] for name in expected_products(model)} == {("float16", "float16")}


def test_a_loop_that_was_lost_is_found():
    _, _, segment = traced("grid")
    with pytest.raises(GateFailed, match=r"segment\.onnx: TensorRT's network has no loop"):
        trt_audit.raise_unless_sound(built(segment), "segment.onnx", stored_bytes([segment]), wants_loop=True)


def test_a_truncated_engine_does_not_open(tmp_path):
    export(tmp_path / "b")
    engine = next((tmp_path / "b").glob("segment.*.engine"))
    engine.write_bytes(engine.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{re.escape(engine.name)}: has \d+ bytes instead of \d+") as caught:
        open_bundle(tmp_path / "b")
    assert "\n" not in str(caught.value)
