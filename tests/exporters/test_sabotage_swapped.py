"""What is swapped, leaked or edited around an export is caught too: checkpoints, puzzles, records, bundles.

What breaks the graphs themselves is `test_sabotage.py`'s.
"""

import dataclasses
import json
import re
import shutil

import numpy as np
import onnx
import pytest
from commands import export as command
from small_exports import SITE, export, refused, scaled
from small_networks import TASK, network
from traced_networks import CONFIGS, expected_products, traced

from hrm_edge.bundle import Manifest, open_bundle, seal_bundle
from hrm_edge.bundle.quantization import Products, read_quantization
from hrm_edge.check.run import run_check
from hrm_edge.data.puzzles import generate_puzzles, save_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.audit import audit_bundle
from hrm_edge.exporters.build import ExportOptions
from hrm_edge.exporters.quantize import int8
from hrm_edge.exporters.search.decide import Quantizing
from hrm_edge.exporters.targets.onnx import serialized
from hrm_edge.models import load_checkpoint, quantized_layers, save_checkpoint
from hrm_edge.records import from_json
from hrm_edge.runtimes import backend
from hrm_edge.runtimes.base import Backend

pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("fresh_exports")


# -- a. a checkpoint swapped after calibration ---------------------------------------------------------


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


# -- b. calibration data that leaks --------------------------------------------------------------------


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


# -- c. a record that tells of other graphs ------------------------------------------------------------


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
    passed, text = checked(tmp_path / "int8")
    assert passed
    told = f"{total} of {total} expected low-precision products are compiled as such here; (\\d+) products in all"
    assert int(re.fullmatch(told, text)[1]) >= total + 2  # the heads stay in float
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


# -- d. a bundle edited after export -------------------------------------------------------------------


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
