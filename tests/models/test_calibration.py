"""Calibration: sites in the exported graph's order, the segments that were asked for, nothing after halting."""

import numpy as np
import pytest
import torch
from small_networks import TASK, network, think

from hrm_edge.errors import InputError
from hrm_edge.models import collect_ranges, quantized_layers

QUESTIONS = TASK.generate(9, np.random.default_rng(1))[0]
FIRST_READ = "L_level.layers.0.self_attn.qkv_proj"  # a segment's first product: reads z_L + z_H + e
# A fused weight of the checkpoint is several in the graph.
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def steps(model):
    """Segments of every row under learned halting, from the loop written out row by row."""
    taken = think(model, QUESTIONS, model.config.halt_max_steps)[1]
    assert len(set(taken)) >= 3  # else the tests below see nothing
    return taken


@torch.inference_mode()
def first_reads(model, row, count):
    """What the first product reads in segments 1..count of one row that thinks alone: [count, S', D]."""
    e, (z_H, z_L) = model.embed(torch.from_numpy(QUESTIONS[row : row + 1])), model.initial_state(1)
    reads = []
    for _ in range(count):
        reads.append((z_L + z_H + e)[0].numpy())
        z_H, z_L, _, _ = model.segment(z_H, z_L, e)
    return np.stack(reads)


def test_layers_are_those_of_the_blocks(model):
    names = quantized_layers(network(H_layers=2))
    assert len(names) == 4 * 3
    assert {name.rsplit(".", 1)[1] for name in names} == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    assert "H_level.layers.1.mlp.down_proj" in names
    assert not {"lm_head", "q_head"} & set(names)


@pytest.mark.parametrize("name", ["2 x 1", "rope", "learned"])  # 2 x 2 with two H layers, 1 x 3
def test_calls_are_numbered_like_the_graphs_products(name):
    """The exported segment, its products' inputs made outputs, reads what each site of the same number saw."""
    onnx = pytest.importorskip("onnx")
    from run_onnx import run
    from shared_traces import trace_segment
    from traced_networks import CONFIGS

    model = network(**CONFIGS.get(name, {"H_cycles": 2, "L_cycles": 1}))
    N, T = model.config.H_cycles, model.config.L_cycles
    ranges = collect_ranges(model, QUESTIONS, segments="first")
    graph = trace_segment(model)
    stored = {tensor.name for tensor in graph.graph.initializer}
    inputs = {
        node.name: node.input[0]
        for node in graph.graph.node
        if node.op_type == "MatMul" and node.input[1] in stored and "_level" in node.name
    }
    present = {value.name for value in (*graph.graph.output, *graph.graph.input)}
    for name in sorted(set(inputs.values()) - present):
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    e, (z_H, z_L) = model.embed(torch.from_numpy(QUESTIONS)), model.initial_state(len(QUESTIONS))
    feeds = {"z_H": z_H.numpy(), "z_L": z_L.numpy(), "e": e.numpy()}
    read = feeds | run("onnx", graph, feeds)
    compared = set()
    for site, histogram in ranges.histograms.items():
        layer, _, call = site.partition("/")
        parent, _, name = layer.rpartition(".")
        for part in PARTS.get(name, (name,)):
            product = f"{parent}.{part}/{call}"
            assert np.abs(read[inputs[product]]).max() == pytest.approx(histogram.absmax, rel=1e-4), product
            compared.add(product)
    assert compared == set(inputs)
    for layer in quantized_layers(model):
        calls = [h.absmax for site, h in ranges.histograms.items() if site.startswith(f"{layer}/")]
        assert len(calls) == (N * T if layer.startswith("L") else N)
        assert len(np.unique(np.round(calls, 3))) == len(calls)  # or the order could not be told


def test_halted_rows_are_not_counted(model, steps):
    ranges = collect_ranges(model, QUESTIONS, segments="all", batch=4)
    assert ranges.samples == steps.sum()
    values = ranges.samples * model.config.sequence_len
    for site, histogram in ranges.histograms.items():
        assert histogram.counts.sum() == values * len(ranges.channel_absmax[site.split("/")[0]])
    reads = np.concatenate([first_reads(model, row, steps[row]) for row in range(9)])
    assert ranges.histograms[f"{FIRST_READ}/0"].absmax == pytest.approx(np.abs(reads).max(), rel=1e-5)


@pytest.mark.parametrize(
    ("segments", "chosen"),
    [
        ("all", {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 3, 4], 5: [1, 2, 3, 4, 5], 6: [1, 2, 3, 4, 5, 6]}),
        ("first", {T: [1] for T in range(1, 7)}),
        ("last", {T: [T] for T in range(1, 7)}),
        ("middle", {1: [1], 2: [1], 3: [2], 4: [2], 5: [3], 6: [3]}),
        ("stratified", {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 4], 5: [1, 2, 3, 5], 6: [1, 2, 3, 6]}),
    ],
)
def test_each_choice_counts_the_segments_it_names(model, steps, segments, chosen):
    """Row by row, as a neighbour's larger value would hide a wrong segment."""
    for row, T in enumerate(steps):
        ranges = collect_ranges(model, QUESTIONS[row : row + 1], segments=segments)
        reads = np.abs(first_reads(model, row, T))[np.array(chosen[T]) - 1]
        histogram = ranges.histograms[f"{FIRST_READ}/0"]
        assert ranges.samples == len(chosen[T])
        assert histogram.absmax == pytest.approx(reads.max(), rel=1e-5)
        mean = (histogram.counts * histogram.centres).sum() / histogram.counts.sum()
        assert mean == pytest.approx(reads.mean(), rel=1e-3)
    together = collect_ranges(model, QUESTIONS, segments=segments)
    assert together.samples == sum(len(chosen[T]) for T in steps)


def test_random_states_are_no_rollout_and_follow_the_seed(model):
    def absmax(**arguments):
        return collect_ranges(model, QUESTIONS, **arguments).histograms[f"{FIRST_READ}/0"].absmax

    assert absmax(segments="random") == absmax(segments="random")
    assert absmax(segments="random") != absmax(segments="random", seed=1)
    assert absmax(segments="random") != absmax(segments="first")
    assert absmax(segments="stratified") == absmax(segments="stratified", seed=1)


def test_smoothing_divides_before_counting(model):
    plain = collect_ranges(model, QUESTIONS)
    layer = "H_level.layers.0.mlp.down_proj"
    factors = np.linspace(0.5, 4, len(plain.channel_absmax[layer]), dtype=np.float32)
    smooth = collect_ranges(model, QUESTIONS, smoothing={layer: factors})
    np.testing.assert_allclose(smooth.channel_absmax[layer], plain.channel_absmax[layer] / factors, rtol=1e-6)
    largest = max(smooth.histograms[f"{layer}/{call}"].absmax for call in range(2))
    assert largest == smooth.channel_absmax[layer].max()
    assert smooth.histograms[f"{FIRST_READ}/0"].absmax == plain.histograms[f"{FIRST_READ}/0"].absmax


def test_calls_may_share_a_site(model):
    apart, shared = (collect_ranges(model, QUESTIONS, per_call=flag) for flag in (True, False))
    assert set(shared.histograms) == set(quantized_layers(model))
    for layer, histogram in shared.histograms.items():
        calls = [h for site, h in apart.histograms.items() if site.startswith(f"{layer}/")]
        assert histogram.absmax == max(call.absmax for call in calls)
        assert histogram.absmax == shared.channel_absmax[layer].max()
        assert histogram.counts.sum() == sum(call.counts.sum() for call in calls)


def test_leaves_the_model_as_it_was(model, monkeypatch):
    def fail(*states):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "segment", fail)
    with pytest.raises(KeyboardInterrupt):
        collect_ranges(model, QUESTIONS)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("questions", "segments", "said"),
    [(QUESTIONS, "some", "choose from all, first"), (QUESTIONS[:0], "all", "at least one puzzle")],
)
def test_mistakes_are_one_line(model, questions, segments, said):
    with pytest.raises(InputError, match=said):
        collect_ranges(model, questions, segments=segments)
