"""Graphs as ExecuTorch runs them: operators in torch against onnxruntime, networks from the .pte against torch, and
products counted in the file's XNNPACK delegates.

Making a file takes seconds: these are few, and `make executorch` runs them where its packages are.
"""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from operators import CASES, X, model, node
from run_onnx import run
from small_networks import TASK, checkpoint
from traced_networks import expected_products, feeds, plan, traced
from ungated import write_bundle

from hrm_edge.errors import InputError
from hrm_edge.exporters.audit import audit
from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.targets.executorch.lowering import LoweredModule
from hrm_edge.exporters.targets.executorch.ops import EMIT
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import load_engine

QUESTIONS = TASK.generate(3, np.random.default_rng(1))[0]


@pytest.fixture(scope="module")
def runtime():
    return pytest.importorskip(
        "executorch", reason="ExecuTorch (extra `executorch`) is not installed: make executorch"
    )


def fixed(graph, rows=1):
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    fix_batch(copy, rows)
    return copy


@pytest.mark.parametrize("case", CASES)
def test_an_operator_in_torch_gives_what_onnxruntime_gives(case):
    nodes, inputs, constants = CASES[case]
    made = model(nodes if isinstance(nodes, list) else [nodes], inputs, constants)
    want = run("onnx", made, inputs)["y"]
    with torch.no_grad():
        (got,) = LoweredModule(made)(*(torch.from_numpy(np.asarray(inputs[v.name])) for v in made.graph.input))
    assert tuple(got.shape) == want.shape
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=5e-6)


def test_every_operator_that_has_a_form_is_among_the_cases():
    nodes = [n for made, *_ in CASES.values() for n in (made if isinstance(made, list) else [made])]
    assert {n.op_type for n in nodes} | {"QuantizeLinear", "DequantizeLinear", "Slice"} == set(EMIT)


def test_an_operator_without_a_form_is_named():
    with pytest.raises(InputError, match=r"has the operator Hardmax .* no form in ExecuTorch here yet"):
        LoweredModule(model([node("Hardmax", "x")], {"x": X}, {})).example()


@pytest.mark.parametrize("wide", [False, True])
def test_int8_in_torch_is_the_quantized_graph(wide):
    """Up to the first scores: a tie that falls the other way moves what comes after."""
    network, _, segment = traced("rope")
    chosen = plan("rope")
    if wide:
        chosen = chosen.widening({site.rpartition("/")[0]: "a test" for site in chosen.scales})
    quantized = fixed(chosen.apply(segment, "executorch")[0])
    scores = next(node.input[0] for node in quantized.graph.node if node.op_type == "Softmax")
    del quantized.graph.output[:]
    quantized.graph.output.append(onnx.helper.make_tensor_value_info(scores, onnx.TensorProto.FLOAT, None))
    values = feeds(network, 1)
    with torch.no_grad():
        (got,) = LoweredModule(quantized)(*(torch.from_numpy(values[v.name]) for v in quantized.graph.input))
    np.testing.assert_allclose(got.numpy(), run("onnx", quantized, values)[scores], atol=1e-4)


@pytest.mark.slow
def test_answers_are_pytorchs_and_every_product_is_in_a_delegate(runtime, tmp_path):
    network, start, segment = traced("rope")
    source = checkpoint(network)
    write_bundle(source, start, segment, ExportOptions.for_target("executorch", batch=2), tmp_path, "rope")
    ours = load_engine(tmp_path, threads=1).solve(QUESTIONS, 3, "fixed")
    theirs = TorchEngine(source).solve(QUESTIONS, 3, "fixed")
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_allclose(ours.q, theirs.q, atol=1e-4)
    products = audit("executorch", [tmp_path / "segment.pte"], "fp32", expected_products(network))
    assert products.found == products.expected


@pytest.mark.slow
def test_int8_products_are_counted_in_the_file(runtime, tmp_path):
    from executorch_programs import lowered

    network, _, segment = traced("rope")
    quantized, low = plan("rope").apply(segment, "executorch")
    values = feeds(network, 1)
    got, want = lowered(fixed(quantized), tmp_path)(values), run("onnx", fixed(segment), values)
    assert 1e-3 < np.linalg.norm(got["z_H_next"] - want["z_H_next"]) / np.linalg.norm(want["z_H_next"]) < 0.2
    products = audit("executorch", [tmp_path / "model.pte"], "int8", low)
    assert products.found == products.expected == len(low) > 0
    assert products.kinds["int8 × int8"] == len(low)


@pytest.mark.slow
def test_the_readmes_code_answers_as_the_bundle_does(runtime, tmp_path):
    network, start, segment = traced("grid")
    single = [fixed(graph) for graph in (start, segment)]
    write_bundle(checkpoint(network), *single, ExportOptions.for_target("executorch"), tmp_path, "grid")
    blank = np.full((1, TASK.seq_len), TASK.blank, np.int32)
    wanted = load_engine(tmp_path, threads=1).solve(blank)
    (code,) = re.findall(r"```python\n(.*?)\n```", (tmp_path / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer, steps, *q = done.stdout.splitlines()[-1].replace("[", " ").replace("]", " ").split()
    assert (answer, int(steps)) == (TASK.format(wanted.tokens[0]), wanted.steps[0])
    np.testing.assert_allclose(np.array(q, np.float32), wanted.q[0], atol=1e-4)


def test_a_damaged_file_is_one_line(runtime, tmp_path):
    from hrm_edge.runtimes import backend

    (tmp_path / "model.pte").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"ExecuTorch .* can not load it"):
        backend("executorch").load_graph(tmp_path / "model.pte", 1)


def test_options():
    with pytest.raises(InputError, match="--batch dynamic: ExecuTorch runs fixed shapes"):
        ExportOptions.for_target("executorch", batch="dynamic")
    with pytest.raises(InputError, match="--loop graph: not for executorch"):
        ExportOptions.for_target("executorch", loop="graph")
