"""bfloat16 on OpenVINO: what is in the graph is what is compiled, under the one hint; else one line says so."""

import dataclasses

import numpy as np
import pytest
from small_exports import export, refused
from small_networks import checkpoint
from traced_networks import expected_products, traced

pytest.importorskip("openvino")

from hrm_edge.bundle import open_bundle
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.exporters import build
from hrm_edge.exporters.audit import audit, raise_unless_quantized
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.targets import target_named
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import load_engine
from hrm_edge.runtimes.loader import warning
from hrm_edge.runtimes.openvino import BACKEND, OpenVino

pytestmark = pytest.mark.usefixtures("fresh_exports")
needs_units = pytest.mark.skipif(
    not BACKEND.multiplies_bfloat16(), reason="this CPU has no bfloat16 products (AVX-512 BF16 or AMX)"
)


@needs_units
@pytest.mark.parametrize("loop", ["host", "graph"])
def test_every_product_of_the_blocks_is_compiled_in_bfloat16_and_the_heads_are_not(tmp_path, loop):
    made = export(tmp_path / "b", "openvino", "bf16", loop)
    bundle = open_bundle(made.folder)
    files = [bundle.path / name for name in dict.fromkeys(bundle.manifest.graphs.values())]
    expected = expected_products(traced("grid")[0])
    found = audit("openvino", files, "bf16", expected)
    raise_unless_quantized(found, "b", "bf16")
    assert found.found == len(expected)
    compiled = {product.name: product for file in files for product in BACKEND.compiled_products(file)}
    heads = {name for name in compiled if name in ("lm_head/0", "logits", "segment:logits", "q_head", "q")}
    assert heads
    assert {(compiled[name].left, compiled[name].right) for name in heads} == {("float32", "float32")}
    assert bundle.manifest.precision_parts["matrix products"] == "bfloat16"
    assert bundle.manifest.precision_parts["carried state"] == "float32"
    plain = export(tmp_path / "plain", "openvino", "fp32", loop)
    assert bundle.size < open_bundle(plain.folder).size


@needs_units
def test_it_answers_as_the_checkpoint_does(tmp_path):
    made = export(tmp_path / "b", "openvino", "bf16")
    source = checkpoint(traced("grid")[0])
    questions = generate_puzzles(source.task, 16, seed=0).questions
    theirs = TorchEngine(source).solve(questions, 2, "fixed")
    ours = load_engine(made.folder, threads=1).solve(questions, 2, "fixed")
    assert (ours.tokens == theirs.tokens).mean() > 0.9
    assert 0 < np.abs(ours.q - theirs.q).max() < 0.1, "rounded, and near"


@needs_units
def test_a_graph_that_stayed_in_float32_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build.fp16, "convert", lambda segment, precision: None)
    refused(tmp_path / "b", "0 of 14 bf16 products were compiled as such", target="openvino", precision="bf16")


def test_half_precision_that_is_only_stored_is_not_audited():
    target = target_named("openvino")
    from hrm_edge.precision import PRECISIONS

    assert [name for name in target.precisions if target.audits(PRECISIONS[name])] == [
        *("bf16", "int8", "int8-weights", "int4-weights")
    ]


def test_without_units_the_export_is_refused_and_a_bundle_says_so(tmp_path, monkeypatch):
    if BACKEND.multiplies_bfloat16():
        made = export(tmp_path / "b", "openvino", "bf16")
        bundle = open_bundle(made.folder)
        gated = dataclasses.replace(bundle.manifest.gate, ran=True, passed=True, reason=None)
        bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, gate=gated))
        assert warning(bundle) is None
        monkeypatch.setattr(OpenVino, "multiplies_bfloat16", lambda self: False)
        told = warning(bundle)
        assert "proven in bfloat16, which this CPU does not multiply" in told
        assert "\n" not in told
    monkeypatch.setattr(OpenVino, "multiplies_bfloat16", lambda self: False)
    target = target_named("openvino")
    with pytest.raises(InputError, match="this CPU has no bfloat16 products"):
        target.need(ExportOptions("openvino", "bf16"))
    target.need(ExportOptions("openvino", "fp32"))
    target.need()


@pytest.mark.parametrize("target", ["onnx", "c", "litert", "coreml", "executorch"])
def test_who_has_none_refuses_it_in_one_line(target):
    with pytest.raises(InputError, match=f"--precision bf16: not for {target}; choose fp32") as caught:
        ExportOptions(target, "bf16")
    assert "\n" not in str(caught.value)
