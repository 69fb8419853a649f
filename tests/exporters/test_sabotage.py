"""Whatever is broken on purpose between checkpoint and bundle is caught, with the right reason, before it ships.

Each of these is silent by itself: the export, the library or the backend goes on in float32, or in wrong int8.
"""

import dataclasses
import functools
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper
from small_networks import TASK, checkpoint, network
from traced_networks import CONFIGS, calibration, expected_products, plan, traced

from hrm_edge.bundle import Manifest, open_bundle, seal_bundle
from hrm_edge.bundle.quantization import Products, read_quantization
from hrm_edge.check.run import run_check
from hrm_edge.cli import main
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.audit import audit, audit_bundle, raise_unless_quantized
from hrm_edge.exporters.build import ExportOptions
from hrm_edge.exporters.graph.edit import PassFailed, all_nodes, array_of, initializers, replace_nodes, tensor_of
from hrm_edge.exporters.graph.loop import wrap_in_loop
from hrm_edge.exporters.quantize import int8
from hrm_edge.exporters.quantize.plan import wrong_scales
from hrm_edge.exporters.search.decide import Quantizing
from hrm_edge.exporters.targets.onnx import serialized, write_graph
from hrm_edge.models import load_checkpoint, quantized_layers, save_checkpoint
from hrm_edge.records import from_json
from hrm_edge.runtimes import backend
from hrm_edge.runtimes.base import Backend

pytest.importorskip("onnxruntime")

SITE = "H_level.layers.0.mlp.down_proj/0"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """The traces of another test, a cache of its own, and a fresh folder to work in."""
    for i, name in enumerate(("trace_start", "trace_segment")):
        monkeypatch.setattr(build, name, lambda model, i=i: traced("grid")[1 + i])
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def export(folder, target="onnx", precision="int8", loop="host", **gate):
    """Export the small network from beginning to end, its accuracy not looked at."""
    source = checkpoint(traced("grid")[0])
    quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
    return export_bundle(source, ExportOptions(target, precision, loop), folder, GateOptions(None, **gate), quick)


def refused(folder, reason: str, error=GateFailed, **arguments) -> str:
    """The export fails in one line that matches, and leaves nothing behind."""
    with pytest.raises(error, match=reason) as caught:
        export(folder, **arguments)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert [entry.name for entry in folder.parent.iterdir() if folder.name in entry.name] == []
    return str(caught.value)


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


def scaled(factor: float, only: str, segment: onnx.ModelProto) -> None:
    for tensor in segment.graph.initializer:
        if tensor.name.endswith(".input_scale") and only in tensor.name:
            tensor.raw_data = np.float32(array_of(tensor) * np.float32(factor)).tobytes()


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


# -- e. a checkpoint swapped after calibration ---------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """A checkpoint folder with scales of quantization-aware training."""
    model = network(**CONFIGS["grid"])
    table = {
        "bits": 8,
        "activations": {layer: float(np.float32(0.04)) for layer in quantized_layers(model)},
        "learned": True,
        "from": "0" * 64,
        "weights": "per-channel minmax",
    }
    metadata = {"quantization": table, "held_out": {"seed": 5, "difficulty": "ordinary", "n": 40}}
    return save_checkpoint(tmp_path / "tuned", model, TASK.name, "card", metadata)


def command(*arguments) -> int:
    try:
        main(["export", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def one_line(capsys) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("hrm-edge: "))
    return line


def test_trained_scales_go_into_the_graph(tmp_path, trained):
    quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
    opened = load_checkpoint(trained)
    options = ExportOptions("onnx", "int8", "host")
    made = export_bundle(opened, options, tmp_path / "b", GateOptions(None), quick)
    assert made.quantization.trained
    assert made.quantization.checkpoint == opened.content_hash
    assert {site.scale for site in made.quantization.sites} == {float(np.float32(0.04))}
    assert set(int8.input_scales(onnx.load(tmp_path / "b" / "segment.onnx")).values()) == {float(np.float32(0.04))}


def test_weights_swapped_after_training(tmp_path, trained, capsys):
    other = save_checkpoint(tmp_path / "other", network(seed=1, **CONFIGS["grid"]), TASK.name, "card")
    shutil.copy(other / "model.safetensors", trained / "model.safetensors")
    assert command(trained, "--precision", "int8", "-o", "b", "--gate-puzzles", 5) == 2
    assert "weights were changed after quantization-aware training" in one_line(capsys)
    assert not (tmp_path / "b").exists()


def test_trained_scales_that_saturate(tmp_path, trained):
    """A scale that the weights in the folder can not have been trained with."""
    opened = load_checkpoint(trained)
    layer = SITE.rpartition("/")[0]
    opened.metadata["quantization"]["activations"][layer] = 1e-4
    quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
    with pytest.raises(GateFailed, match=f"{layer}/0 saturates"):
        export_bundle(opened, ExportOptions("onnx", "int8"), tmp_path / "b", GateOptions(None), quick)
    assert not (tmp_path / "b").exists()


# -- f. calibration data that leaks --------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "int4-weights"])
def test_calibration_on_the_puzzles_that_are_measured(tmp_path, trained, capsys, precision):
    config = load_checkpoint(trained).metadata["held_out"]
    held_out = generate_puzzles(TASK, 5, config["seed"], "ordinary")
    save_puzzles(held_out, tmp_path / "held-out.csv")
    flags = ["--precision", precision, "-o", "b", "--gate-puzzles", 5, "--calibration-data", "held-out.csv"]
    assert command(trained, *flags) == 2
    line = one_line(capsys)
    assert "--calibration-data" in line
    assert "used for calibration" in line
    assert not (tmp_path / "b").exists()


def test_calibration_on_twins_of_the_puzzles_that_are_measured(tmp_path, trained, capsys):
    """Digits renamed and rows and columns changed: not one board is the same."""
    config = load_checkpoint(trained).metadata["held_out"]
    held_out = generate_puzzles(TASK, 5, config["seed"], "ordinary")
    questions, answers = TASK.augment(np.random.default_rng(1), held_out.questions, held_out.answers)
    assert not set(map(bytes, questions)) & set(map(bytes, held_out.questions))
    save_puzzles(dataclasses.replace(held_out, questions=questions, answers=answers), tmp_path / "twins.csv")
    flags = ["--precision", "int8", "-o", "b", "--gate-puzzles", 5, "--calibration-data", "twins.csv"]
    assert command(trained, *flags) == 2
    assert "5 of the 5 puzzles to measure on, or their solutions, were used for calibration" in one_line(capsys)
    assert not (tmp_path / "b").exists()


# -- g. what a backend silently computes in float ------------------------------------------------------


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
        return real(openvino.imported().Core().read_model(str(other)) if rows == 1 else read, rows)

    monkeypatch.setattr(openvino, "_for_rows", for_rows)


def test_a_graph_that_is_in_float_for_single_rows_alone(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    export(tmp_path / "float", "openvino", "fp32")
    other_for_one_row(monkeypatch, tmp_path / "float" / "segment.xml")
    total = len(expected_products(traced("grid")[0]))
    refused(tmp_path / "b", rf"0 of {total} int8 products were compiled as such", target="openvino")


# -- h. a record that tells of other graphs ------------------------------------------------------------


def swapped(into, taken_from) -> None:
    """A bundle whose record, and what its manifest says of it, are another's; whole by every hash."""
    shutil.copy(taken_from / "quantization.json", into / "quantization.json")
    manifest = open_bundle(taken_from).manifest
    seal_bundle(into, dataclasses.replace(open_bundle_unsealed(into), precision=manifest.precision))


def open_bundle_unsealed(folder):
    content = json.loads((folder / "manifest.json").read_text())
    del content["digest"]
    return from_json(Manifest, json.dumps(content), folder)


def checked(folder) -> tuple[bool, str]:
    """What `quantized = true` finds."""
    spec = folder.parent / "spec.toml"
    spec.write_text(f"[[check]]\nname = 'q'\nbundle = '{folder.name}'\nquantized = true\n")
    (only,) = run_check(spec).verdicts
    return only.passed, only.finding.text


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("loop", ["host", "graph"])
def test_a_float_graph_under_an_int8_record(tmp_path, target, loop):
    total = len(expected_products(traced("grid")[0]))
    export(tmp_path / "int8", target, "int8", loop)
    assert checked(tmp_path / "int8") == (
        True,
        f"{total} of {total} expected low-precision products are compiled as such here",
    )
    export(tmp_path / "float", target, "fp32", loop)
    swapped(tmp_path / "float", tmp_path / "int8")
    passed, text = checked(tmp_path / "float")
    assert not passed
    assert text.startswith(f"0 of {total} expected low-precision products are compiled as such here; not ")


def test_weights_alone_under_an_int8_record(tmp_path):
    export(tmp_path / "int8", "openvino", "int8")
    export(tmp_path / "weights", "openvino", "int8-weights")
    swapped(tmp_path / "weights", tmp_path / "int8")
    assert not checked(tmp_path / "weights")[0]


def test_a_record_that_names_one_layer_alone(tmp_path):
    """The others are in float, and the record does not tell of them."""
    export(tmp_path / "int8")
    export(tmp_path / "b")
    record = read_quantization(open_bundle(tmp_path / "int8"))
    one = next(layer for layer in record.layers if SITE.startswith(layer.name))
    less = dataclasses.replace(record, layers=(one,), products=Products(1, 1, {}, ()))
    (tmp_path / "b" / "quantization.json").write_text(less.to_json())
    model = onnx.load(tmp_path / "b" / "segment.onnx")
    made = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name != SITE and "_proj/" in node.name:
            node.input[0] = made[made[node.input[0]].input[0]].input[0]
    (tmp_path / "b" / "segment.onnx").write_bytes(serialized(model))
    seal_bundle(tmp_path / "b", open_bundle_unsealed(tmp_path / "b"))
    passed, text = checked(tmp_path / "b")
    assert not passed
    assert text.startswith("1 of ")


def test_a_backend_that_does_not_tell_proves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(type(backend("onnx")), "compiled_products", Backend.compiled_products)
    refused(tmp_path / "b", "onnx does not tell what it compiled, so nothing shows that it is int8")


def test_an_error_while_it_compiles_is_not_taken_for_silence(tmp_path, monkeypatch):
    export(tmp_path / "b")

    def broken(self, path):
        raise NotImplementedError("an operator")

    monkeypatch.setattr(type(backend("onnx")), "compiled_products", broken)
    opened = open_bundle(tmp_path / "b")
    with pytest.raises(NotImplementedError, match="an operator"):
        audit_bundle(opened, read_quantization(opened))


# -- i. a bundle edited after export -------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["host", "graph"])
def test_a_scale_edited_in_the_bundle(tmp_path, loop):
    export(tmp_path / "b", loop=loop)
    open_bundle(tmp_path / "b")
    file = tmp_path / "b" / ("segment.onnx" if loop == "host" else "model.onnx")
    model = onnx.load(file)
    before = file.stat().st_size
    scaled(4, SITE, model)
    file.write_bytes(serialized(model))
    assert file.stat().st_size == before  # nothing but the number
    with pytest.raises(InputError, match=rf"{file.name}: its content was changed") as caught:
        open_bundle(tmp_path / "b")
    assert "\n" not in str(caught.value)


def test_a_record_edited_in_the_bundle(tmp_path):
    export(tmp_path / "b")
    file = tmp_path / "b" / "quantization.json"
    file.write_text(file.read_text().replace('"missing": []', '"missing": [ ]'))
    with pytest.raises(InputError, match=r"quantization\.json"):
        open_bundle(tmp_path / "b")


# -- j. a loop that answers only as the gate used to ask -----------------------------------------------


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
    with pytest.raises(GateFailed, match=r"fixed, 1 segment: \d+ of \d+ puzzles took 6 segments"):
        export_bundle(source, ExportOptions(target, "fp32", "graph"), tmp_path / "b", gate)
    assert not (tmp_path / "b").exists()
