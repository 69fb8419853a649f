"""A new precision is at most four files: its record, its name in a target, its algorithm, a line in the README.

Here they are for weights of -1, 0 and 1 times a scale for each output channel. A precision of a family that is
there already needs no algorithm of its own.
"""

import sys

import pytest
from commands import exit_code as command
from traced_networks import expected_products

import hrm_edge.exporters.quantize
from hrm_edge.bundle import open_bundle
from hrm_edge.bundle.quantization import read_quantization
from hrm_edge.cli.export import _precisions
from hrm_edge.exporters.targets import target_named
from hrm_edge.models import load_checkpoint
from hrm_edge.precision import PRECISIONS, Precision

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("untrained")

# hrm_edge/precision.py: one record more.
RECORD = Precision(
    name="ternary-weights",
    family="ternary",
    stored="ternary",
    bits=2,
    left=None,
    right=frozenset({"int8"}),
    gate_puzzles=1000,
    instead="export --precision int4-weights",
)

# exporters/targets/openvino.py: its name among the target's precisions.
TARGET = "openvino"

# exporters/quantize/ternary.py: a new file.
ALGORITHM = '''
"""Ternary weights: -1, 0 or 1 times a scale for each output channel, stored as int8."""

import numpy as np
from onnx import helper

from ..graph.edit import array_of, initializers, replace_initializers, replace_nodes, tensor_of
from ..graph.layers import products
from ..graph.passes import finish
from .base import Algorithm


def steps_and_scale(weight):
    scale = np.abs(weight).mean(axis=0, dtype=np.float32) + np.float32(1e-8)
    return np.clip(np.rint(weight / scale), -1, 1).astype(np.int8), scale


def apply(segment, plan, target):
    graph, chosen = segment.graph, products(segment)
    tensors, nodes = initializers(graph), []
    for name in dict.fromkeys(product.weight for product in chosen):
        steps, scale = steps_and_scale(array_of(tensors[name]))
        for kind, array in {"": steps, "_scale": scale, "_zero_point": np.zeros(len(scale), np.int8)}.items():
            tensors[name + kind] = tensor_of(array, name + kind)
        inputs = [name, f"{name}_scale", f"{name}_zero_point"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], axis=1))
    weights, calls = {product.weight for product in chosen}, {product.name for product in chosen}
    for node in graph.node:
        if node.name in calls and node.input[1] in weights:
            node.input[1] += ".dequantized"
    replace_nodes(graph, [*nodes, *graph.node])
    replace_initializers(graph, list(tensors.values()))
    finish(segment)
    return [product.name for product in chosen]


def stored(weight, gram, plan, target):
    steps, scale = steps_and_scale(weight)
    return steps * scale


ALGORITHM = Algorithm("ternary", apply, stored)
'''


@pytest.fixture
def ternary(tmp_path, monkeypatch):
    package = hrm_edge.exporters.quantize
    monkeypatch.setitem(PRECISIONS, RECORD.name, RECORD)
    target = target_named(TARGET)
    monkeypatch.setattr(target, "precisions", (*target.precisions, RECORD.name))
    (tmp_path / "quantize").mkdir()
    (tmp_path / "quantize" / "ternary.py").write_text(ALGORITHM)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "quantize")])
    yield RECORD
    sys.modules.pop(f"{package.__name__}.ternary", None)
    vars(package).pop("ternary", None)


def test_a_new_precision_is_exported_audited_gated_and_told_of(ternary, patient, patient_exports, capsys):
    flags = ["--target", TARGET, "--precision", ternary.name, "--loop", "host", "--calibration", 8]
    flags += ["--gate-puzzles", 8, "--max-drop", 100, "--threads", 1, "--no-report", "-o", "b"]
    assert command("export", patient, *flags) == 0
    out = capsys.readouterr().out
    products = len(expected_products(load_checkpoint(patient).model))
    assert f"{products} of {products} ternary-weights products compiled as such" in out
    bundle = open_bundle("b")
    assert bundle.manifest.gate.passed
    assert bundle.manifest.precision_parts["weights"] == "ternary"
    layers = read_quantization(bundle).layers
    assert {layer.dtype for layer in layers} == {"ternary"}
    assert all(0.1 < layer.error < 1 for layer in layers)


def test_what_lists_precisions_lists_it(ternary, tmp_path, capsys):
    assert _precisions().endswith("palette6-weights, palette4-weights (coreml); ternary-weights (openvino).")
    assert command("export", "sudoku-9x9", "--precision", "ternary-weights", "-o", tmp_path / "b") == 2
    assert "not for onnx; choose fp32 or fp16 or int8" in capsys.readouterr().err
    assert command("export", "sudoku-9x9", "--precision", "int2", "-o", tmp_path / "b") == 2
    known = "choose fp32 or fp16 or int8 or int8-weights or int4-weights or bf16 or ternary-weights"
    assert known in capsys.readouterr().err


def test_the_help_says_what_each_precision_is_and_where():
    assert _precisions() == (
        "fp32; fp16 (not for c); bf16 (openvino, tensorrt; in openvino on CPUs with AVX-512 BF16 or AMX); "
        "int8 (weights and matrix products); int8-weights, int4-weights "
        "(stored small, computed in float; not for tensorrt, c, executorch; int4 in coreml needs --ios 18); "
        "palette6-weights, palette4-weights (coreml)."
    )
