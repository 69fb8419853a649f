"""Core ML bundles from checkpoint to answers, on a machine without Core ML: what was saved is what is run."""

import itertools
import re

import numpy as np
import onnx
import pytest
from shared_traces import trace_segment, trace_start
from small_networks import TASK, checkpoint, think
from traced_networks import expected_products, traced

from hrm_edge.bundle import open_bundle, seal_bundle
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import GateFailed, InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters import build
from hrm_edge.exporters.graph.edit import all_graphs
from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.search.decide import Quantizing
from hrm_edge.exporters.targets.base import Context
from hrm_edge.exporters.targets.coreml import TARGET
from hrm_edge.models.public import import_public
from hrm_edge.runtimes import SlotLoop, backend, load_engine

pytest.importorskip("coremltools")
pytestmark = pytest.mark.usefixtures("untrained")

LOOPS = ("host", "graph")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    for i, name in enumerate(("trace_start", "trace_segment")):
        monkeypatch.setattr(build, name, lambda model, i=i: traced("grid")[1 + i])
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))


def export(folder, precision="fp32", loop="host", puzzles=None, batch=1, **options):
    quick = Quantizing(calibration=8, sensitivity=0, max_drop=None)
    wanted = ExportOptions("coreml", precision, loop, batch, **options)
    gate = GateOptions(puzzles, 100.0, report=False)
    return export_bundle(checkpoint(traced("grid")[0]), wanted, folder, gate, quick)


@pytest.mark.parametrize("loop", LOOPS)
def test_float32_answers_are_those_of_the_network(tmp_path, loop):
    """Rows stop after different segments; a fixed batch of 4 is refilled, or padded."""
    export(tmp_path / "b", loop=loop, batch=4)
    engine = load_engine(tmp_path / "b")
    questions = TASK.generate(9, np.random.default_rng(1))[0]
    answers = engine.solve(questions)
    tokens, steps, q = think(traced("grid")[0], questions, 6)
    np.testing.assert_array_equal(answers.tokens, tokens)
    np.testing.assert_array_equal(answers.steps, steps)
    np.testing.assert_allclose(answers.q, q, atol=1e-4)
    assert len(set(steps.tolist())) > 1
    assert engine.backend.startswith("coreml")


def test_state_that_is_kept_inside_answers_as_state_that_is_handed_over(tmp_path):
    """Slots are refilled while others think on, and a second call finds nothing of the first."""
    for name, ios in (("handed", 17), ("kept", 18)):
        export(tmp_path / name, "fp16", batch=2, ios=ios)
    handed, kept = load_engine(tmp_path / "handed"), load_engine(tmp_path / "kept")
    assert isinstance(kept, SlotLoop)
    assert set(open_bundle(tmp_path / "kept").manifest.graphs) == {"stateful"}
    questions = TASK.generate(7, np.random.default_rng(2))[0]
    first, second = kept.solve(questions), kept.solve(questions[::-1])
    expected = handed.solve(questions)
    # Kept in float16, handed over in float32 that holds float16: the same numbers.
    np.testing.assert_array_equal(first.tokens, expected.tokens)
    np.testing.assert_array_equal(first.steps, expected.steps)
    np.testing.assert_array_equal(second.tokens[::-1], first.tokens)
    assert kept.solve(questions, halt="verified", trace=True).trace.shape[1:] == (7, TASK.seq_len)


KINDS = {
    "fp32": "float32 × float32",
    "fp16": "float16 × float16",
    "int8": "int8 × int8",
    "int8-weights": "float16 × int8",
    "int4-weights": "float16 × int4",
    "palette6-weights": "float16 × palette6",
    "palette4-weights": "float16 × palette4",
}


# Loops take turns, as test_coreml.py looks at the products of most precisions within one; int8 has both.
@pytest.mark.parametrize(("precision", "loop"), [("int8", "graph"), *zip(KINDS, itertools.cycle(LOOPS))])
def test_every_product_is_saved_as_asked_and_the_answers_are_gated(tmp_path, precision, loop):
    # Random weights in 16 values each are another network, which the gate rightly refuses.
    puzzles = None if precision == "palette4-weights" else generate_puzzles(TASK, 8, 5, "ordinary")
    ios = 18 if precision == "int4-weights" else 17
    made = export(tmp_path / "b", precision, loop, puzzles, ios=ios)
    assert made.gate is None if puzzles is None else made.gate.passed
    assert made.products.missing == ()
    assert made.products.found == len(expected_products(traced("grid")[0]))
    assert made.products.kinds[KINDS[precision]] >= made.products.found
    assert (tmp_path / "b" / "swift" / "Package.swift").is_file()
    parts = made.manifest.precision_parts
    assert parts["carried state"] == ("float32" if precision == "fp32" else "float16")


@pytest.fixture(scope="module", params=["hrm-rope", "trm-att"])
def public(request, shared_data):
    """(model, its graphs, what the public code computes); a trace takes long."""
    folder = shared_data / "parity" / request.param
    model, _ = import_public(folder, None, None)
    return model, (trace_start(model), trace_segment(model)), np.load(folder / "expected.npz")


@pytest.mark.parametrize(("precision", "worst"), [("fp32", 1e-4), ("fp16", 0.3)])
def test_parity_with_what_the_public_implementation_computes(public, tmp_path, precision, worst):
    """Six segments of an imported checkpoint, the saved packages against the public code's own outputs."""
    model, traces, expected = public
    options = ExportOptions("coreml", precision, "host", len(expected["inputs"]))
    copies = (onnx.ModelProto.FromString(graph.SerializeToString()) for graph in traces)
    graphs = dict(zip(("start", "segment"), copies, strict=True))
    for graph in graphs.values():
        fix_batch(graph, len(expected["inputs"]))
    files = TARGET.write(graphs, Context(checkpoint(model), options, tmp_path)).graphs
    start, segment = (backend("coreml").load_graph(tmp_path / files[stem], 1) for stem in ("start", "segment"))
    identifiers = expected["puzzle_identifiers"].astype(np.int32)
    state = start({"tokens": expected["inputs"].astype(np.int32), "puzzle_identifiers": identifiers})
    errors = []
    for step in range(6):
        outputs = segment(state)
        state = {"z_H": outputs["z_H_next"], "z_L": outputs["z_L_next"], "e": state["e"]}
        errors.append(max(float(np.abs(outputs[key] - expected[key][step]).max()) for key in ("logits", "q")))
    print(
        f"{model.config.kind}, {precision}: worst of logits and q by segment:",
        ", ".join(f"{error:.2g}" for error in errors),
    )
    assert max(errors) <= worst
    # Half precision that changes nothing was not computed in half precision.
    assert precision == "fp32" or min(errors) > 1e-4


def test_four_bits_in_blocks_need_the_newer_system(tmp_path):
    with pytest.raises(InputError, match="--precision int4-weights needs --ios 18"):
        export(tmp_path / "b", "int4-weights")
    assert not (tmp_path / "b").exists()


# -- sabotage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_one_product_left_in_float_is_found(tmp_path, monkeypatch, loop):
    name = "H_level.layers.0.mlp.down_proj/0"
    write = TARGET.write

    def spoiled(models, context):
        for graph in (g for model in models.values() for g in all_graphs(model.graph)):
            made = {node.output[0]: node for node in graph.node}
            for node in graph.node:
                if node.name == name:
                    node.input[0] = made[made[node.input[0]].input[0]].input[0]
        return write(models, context)

    monkeypatch.setattr(TARGET, "write", spoiled)
    saved = re.sub(r"\W", "_", name)
    with pytest.raises(
        GateFailed, match=rf"int8 products were compiled as such; not {saved}; nothing was"
    ) as caught:
        export(tmp_path / "b", "int8", loop)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_a_flipped_weight_byte_is_found(tmp_path):
    export(tmp_path / "b")
    weights = next((tmp_path / "b").glob("segment.mlpackage/**/weight.bin"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"weight\.bin: its content was changed \(SHA-256 differs\)") as caught:
        load_engine(tmp_path / "b")
    assert "\n" not in str(caught.value)


def test_an_operation_that_nothing_here_runs_is_named(tmp_path):
    """A package that another tool wrote, sealed as a bundle's own."""
    export(tmp_path / "b")
    bundle = open_bundle(tmp_path / "b")
    file = next((tmp_path / "b").glob("segment.mlpackage/**/model.mlmodel"))
    content = file.read_bytes()
    assert b"softmax" in content
    file.write_bytes(content.replace(b"softmax", b"softmix"))
    seal_bundle(tmp_path / "b", bundle.manifest)
    with pytest.raises(InputError, match="softmix") as caught:
        load_engine(tmp_path / "b")
    assert "\n" not in str(caught.value)
