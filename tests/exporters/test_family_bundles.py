"""TRM and the plain transformers through the pipeline that was made for HRM: every precision, target and loop."""

import functools

import numpy as np
import onnx
import pytest
from run_onnx import run
from small_networks import TASK, checkpoint
from traced_networks import CONFIGS, expected_products, feeds, plan, traced
from ungated import write_bundle

from hrm_edge.bundle import open_bundle
from hrm_edge.exporters.build import ExportOptions, quick_plan
from hrm_edge.exporters.quantize.fp16 import convert
from hrm_edge.exporters.quantize.int8 import quantized_products
from hrm_edge.models import collect_ranges
from hrm_edge.models.engine import TorchEngine
from hrm_edge.models.mixers import Attention
from hrm_edge.models.smoothing import smoothed, smoothing_factors
from hrm_edge.precision import PRECISIONS
from hrm_edge.runtimes import load_engine

# All but those that the bundles' own tests run: other levels, other ways to mix tokens.
FAMILY = [name for name, config in CONFIGS.items() if {"kind", "conv_kernel"} & set(config)]
TARGETS, LOOPS = ("onnx", "openvino"), ("graph", "host")
OUTPUTS = ("z_H_next", "z_L_next", "logits", "q")
QUESTIONS = TASK.generate(9, np.random.default_rng(1))[0]


def off_by(outputs, model, values):
    """Largest relative error of any output against PyTorch."""
    from torch import from_numpy

    wanted = model.segment(*(from_numpy(values[name]) for name in ("z_H", "z_L", "e")))
    pairs = [(outputs[name], theirs.numpy()) for name, theirs in zip(OUTPUTS, wanted, strict=True)]
    return max(float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)) for mine, theirs in pairs)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FAMILY)
def test_every_product_is_int8_and_the_segment_stays_near_the_float_one(name, target):
    model, _, segment = traced(name)
    quantized, low = plan(name).apply(segment, target)
    assert sorted(low) == sorted(expected_products(model)) == sorted(quantized_products(quantized))
    values = feeds(model)
    error = off_by(run(target, quantized, values), model, values)
    assert 1e-4 < error < 0.08  # rounded, and no more than that


@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_rounds_products_and_keeps_the_state(name):
    model, _, segment = traced(name)
    convert(segment, PRECISIONS["fp16"])
    values = feeds(model)
    for target in TARGETS:
        assert off_by(run(target, segment, values), model, values) < 0.01
    halves = {t.name for t in segment.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    assert {name.rpartition("/")[0] + ".weight" for name in expected_products(model)} <= halves


@pytest.mark.parametrize("name", FAMILY)
def test_smoothing_changes_nothing_in_float(name):
    """Both ways it is done: on the network and on its graph."""
    model, _, segment = traced(name)
    values = feeds(model)
    ranges = collect_ranges(model, QUESTIONS, segments="first")
    factors = smoothing_factors(model, ranges.channel_absmax, 0.8)
    config = model.config
    mixing = {"self_attn.o_proj"} if config.mixer is Attention else {"mlp_t.down_proj"} if config.mlp_t else set()
    assert {layer.split(".", 3)[3] for layer in factors} == {*mixing, "mlp.down_proj"}
    assert max(np.abs(np.log(s)).max() for s in factors.values()) > 0.1
    from torch import from_numpy

    outputs = smoothed(model, factors).segment(*(from_numpy(values[key]) for key in ("z_H", "z_L", "e")))
    assert off_by(dict(zip(OUTPUTS, (o.numpy() for o in outputs), strict=True)), model, values) < 1e-4
    from hrm_edge.exporters.quantize.smooth import smooth

    smooth(segment, factors)
    assert off_by(run("onnx", segment, values), model, values) < 1e-4


@functools.cache
def quantization(name, target):
    source = checkpoint(traced(name)[0])
    return quick_plan(source, *traced(name)[1:], "int8", target)


@pytest.fixture
def engines(tmp_path):
    """Config, target, precision, loop → (the reference, the engine of a bundle written for it)."""

    def made(name, target, precision, loop):
        source = checkpoint(traced(name)[0])
        options = ExportOptions(target, precision, loop)
        low = quantization(name, target) if precision == "int8" else None
        write_bundle(source, *traced(name)[1:], options, tmp_path, "small", low)
        manifest = open_bundle(tmp_path).manifest
        assert manifest.architecture["kind"] == source.config.kind
        assert manifest.segment_flops == source.model.segment_flops > 0
        return TorchEngine(source), load_engine(tmp_path, threads=1)

    return made


SOME = [("onnx", "host"), ("openvino", "graph")]
REST = [("onnx", "graph"), ("openvino", "host")]
KINDS = [*SOME, *(pytest.param(*kind, marks=pytest.mark.slow) for kind in REST)]


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("target", "loop"), KINDS)
def test_float_bundles_answer_like_pytorch(engines, name, target, loop):
    reference, engine = engines(name, target, "fp32", loop)
    for halt in ("learned", "fixed"):
        wanted = reference.solve(QUESTIONS, max_think_steps=4, halt=halt)
        answers = engine.solve(QUESTIONS, max_think_steps=4, halt=halt)
        for field in ("tokens", "steps", "halted"):
            np.testing.assert_array_equal(getattr(answers, field), getattr(wanted, field))
        np.testing.assert_allclose(answers.q, wanted.q, atol=1e-3)
    assert len(set(reference.solve(QUESTIONS, max_think_steps=6).steps.tolist())) > 1


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("target", "loop"), KINDS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rounded_bundles_answer_nearly_like_pytorch(engines, name, precision, target, loop):
    """After one segment; random weights make more of a rounding error with every further one."""
    reference, engine = engines(name, target, precision, loop)
    wanted = reference.solve(QUESTIONS, max_think_steps=1, halt="fixed")
    answers = engine.solve(QUESTIONS, max_think_steps=1, halt="fixed")
    assert (answers.tokens == wanted.tokens).mean() > {"fp16": 0.98, "int8": 0.9}[precision]
    assert answers.steps.tolist() == [1] * len(QUESTIONS)
