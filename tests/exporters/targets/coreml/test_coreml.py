"""Core ML packages as they lie on disk: graphs, bindings, types and sizes of every precision, what Xcode shows."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_networks import TASK, checkpoint, think
from traced_networks import expected_products, feeds, plan, traced, weight_plan

pytest.importorskip("coremltools")

from lowered import at_batch, plainly, program, reroll

from hrm_edge import __version__
from hrm_edge import precision as precisions
from hrm_edge.bundle import TensorSpec
from hrm_edge.errors import InputError
from hrm_edge.exporters.build import build_graphs, quick_plan, trace
from hrm_edge.exporters.graph.edit import initializers
from hrm_edge.exporters.graph.loop import wrap_in_loop
from hrm_edge.exporters.graph.trace import quiet
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.targets.base import Context, Written
from hrm_edge.exporters.targets.coreml import TARGET
from hrm_edge.exporters.targets.coreml.lowering import compiled, lower
from hrm_edge.exporters.targets.coreml.programs import keeps_state, numbers_of
from hrm_edge.exporters.targets.coreml.weights import Numbers
from hrm_edge.models import load_checkpoint
from hrm_edge.packages import install
from hrm_edge.runtimes import backend
from hrm_edge.runtimes.coreml.backend import load_stateful
from hrm_edge.runtimes.coreml.interpreter import load_program
from hrm_edge.runtimes.loops.slots import SlotLoop

PRECISIONS = TARGET.precisions
# Precision, loop and system of packages that are looked at closely: every precision, and every kind of graph.
KINDS_OF_GRAPH = [
    ("fp32", "host", 17),
    ("fp16", "host", 18),
    ("int8", "host", 18),
    ("palette4-weights", "host", 17),
]
KINDS_OF_GRAPH += [("int8", "graph", 17), ("int8-weights", "graph", 17), ("palette6-weights", "graph", 17)]
KINDS_OF_GRAPH += [("int4-weights", "graph", 18)]
# What a product's operands are stored or computed in, left and right.
KINDS = {
    "fp32": ("float32", "float32"),
    "fp16": ("float16", "float16"),
    "int8": ("int8", "int8"),
    "int8-weights": ("float16", "int8"),
    "int4-weights": ("float16", "int4"),
    "palette4-weights": ("float16", "palette4"),
    "palette6-weights": ("float16", "palette6"),
}


@functools.cache
def graphs(name: str, precision: str, loop: str, rows: int) -> dict[str, onnx.ModelProto]:
    """What the pipeline hands to the target."""
    model, start, segment = traced(name)
    if precision == "int8":
        segment, _ = plan(name).apply(segment, "coreml")
    elif precision not in ("fp32", "fp16"):
        segment, _ = weight_plan(name, precision).apply(segment, "coreml")
    made = {"start": start, "segment": segment}
    if loop == "graph":
        made = {"model": wrap_in_loop(start, segment, TASK, model.config.no_ACT_continue)}
    return {stem: at_batch(graph, rows) for stem, graph in made.items()}


def write(folder: Path, name="learned", precision="fp32", loop="host", ios=17, rows=1, **metadata) -> Written:
    options = ExportOptions("coreml", precision, loop, rows, ios=ios)
    of = checkpoint(traced(name)[0], **metadata)
    return TARGET.write(graphs(name, precision, loop, rows), Context(of, options, folder))


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("weight.bin"))


def sha(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """(precision, loop, ios) → (folder, what was written there); made once."""

    @functools.cache
    def make(precision: str, loop: str, ios: int) -> tuple[Path, Written]:
        folder = tmp_path_factory.mktemp("package")
        return folder, write(folder, "learned", precision, loop, ios)

    return make


@pytest.mark.parametrize(("precision", "loop", "ios"), KINDS_OF_GRAPH)
def test_every_product_is_what_the_precision_says(package, precision, loop, ios):
    """Counted in what was saved, loop bodies included; the heads stay floats."""
    folder, written = package(precision, loop, ios)
    stateful = loop == "host" and ios == 18
    assert set(written.graphs) == (
        {"model"} if loop == "graph" else {"stateful"} if stateful else {"start", "segment"}
    )
    found = {
        p.name: (p.left, p.right)
        for file in written.graphs.values()
        for p in backend("coreml").compiled_products(folder / file)
    }
    names = {product.replace(".", "_").replace("/", "_") for product in expected_products(traced("learned")[0])}
    assert names <= found.keys()
    assert {found[name] for name in names} == {KINDS[precision]}
    others = {kinds for name, kinds in found.items() if name not in names}
    assert others == {KINDS["fp32" if precision == "fp32" else "fp16"]}


@pytest.mark.parametrize(
    ("precision", "loop", "ios", "kept"),
    [
        ("fp32", "host", 18, False),
        ("int8", "host", 17, False),
        ("int8", "graph", 18, False),
        ("int8", "host", 18, True),
    ],
)
def test_a_state_is_kept_where_it_can_be(precision, loop, ios, kept):
    """By a host loop, on iOS 18, in float16: Core ML has no other."""
    assert keeps_state(ExportOptions("coreml", precision, loop, 1, ios=ios)) is kept


@pytest.mark.parametrize(("precision", "loop", "ios"), KINDS_OF_GRAPH)
def test_each_weight_is_stored_once_and_as_small_as_promised(package, precision, loop, ios):
    """However often a segment calls it, within the loop too. A tensor may take 192 bytes more: place, bias."""
    folder, _ = package(precision, loop, ios)
    _, start, segment = traced("learned")
    stored = {**initializers(start.graph), **initializers(segment.graph)}
    bits = {"fp32": 32, "fp16": 16, "int4-weights": 4, "palette4-weights": 4, "palette6-weights": 6}
    full = 32 if precision == "fp32" else 16
    size = tensors = 0
    for name, tensor in stored.items():
        count, channels = int(np.prod(tensor.dims)), tensor.dims[-1] if len(tensor.dims) else 1
        more = {"int8": channels, "int8-weights": channels, "int4-weights": count // 32}
        more |= {"palette4-weights": 16, "palette6-weights": 64}
        small = name.endswith("_proj.weight")
        size += count * (bits.get(precision, 8) if small else full) // 8
        size += more.get(precision, 0) * full // 8 if small else 0
        tensors += 2 if small else 1
    assert 0.95 * size < weight_bytes(folder) < 1.05 * size + 192 * tensors


@pytest.mark.parametrize("ios", [17, 18])
@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p not in ("fp32", "fp16")])
def test_a_segment_computes_what_the_quantized_graph_says(precision, ios):
    """Against onnxruntime node by node as written, in float32 so that nothing else is rounded."""
    if (precision, ios) == ("int4-weights", 17):
        return  # does not exist; see above
    segment = graphs("learned", precision, "host", 1)["segment"]
    numbers = dataclasses.replace(numbers_of(ExportOptions("coreml", precision, ios=ios, batch=1)), half=False)
    computed, in_float, rows = program(segment, numbers), at_batch(traced("learned")[2], 1), 6
    every = feeds(traced("learned")[0], rows)
    errors: dict[str, list[float]] = defaultdict(list)
    for row in range(rows):
        values = {name: value[row : row + 1] for name, value in every.items()}
        want, got, float_ = plainly(segment, values), computed(values), plainly(in_float, values)
        for name in ("z_H_next", "z_L_next", "logits", "q"):
            error, change = (np.linalg.norm(x[name] - want[name]) for x in (got, float_))
            errors[name].append(float(error / change))
    for of_rows in errors.values():
        assert np.median(of_rows) < 1e-3
        # In int8 a value on the edge between two steps may fall either way, on another CPU than on this one.
        assert precision == "int8" or max(of_rows) < 1e-2


def test_inputs_of_16_bits_stay_two_int8_products():
    """coremltools must not join the pairs of quantizers that stand apart, nor fold any away."""
    layer = "L_level.layers.0.mlp.down_proj"
    segment = at_batch(plan("learned").widening({layer: "told to"}).apply(traced("learned")[2], "coreml")[0], 1)
    stored = initializers(segment.graph)
    kinds = Counter(n.op_type for n in segment.graph.node if n.input[0] not in stored)
    values, numbers = feeds(traced("learned")[0], 1), Numbers()
    with quiet():
        made = compiled(lower(segment, numbers), numbers)._mil_program.functions["main"].operations
    found = Counter(op.op_type for op in made)
    assert (found["quantize"], found["dequantize"]) == (kinds["QuantizeLinear"], kinds["DequantizeLinear"])
    assert kinds["DequantizeLinear"] > kinds["QuantizeLinear"]  # the first rounding is taken off the input too
    want, got = plainly(segment, values), program(segment, numbers)(values)
    narrow = plainly(graphs("learned", "int8", "host", 1)["segment"], values)
    for name in ("z_L_next", "logits"):
        error, change = (np.linalg.norm(x[name] - want[name]) for x in (got, narrow))
        assert error < 0.1 * change


@pytest.mark.slow
def test_the_model_that_ships(tmp_path, one_trace):
    """Six segments as torch thinks them, and all its 42 products in int8."""
    of = load_checkpoint("sudoku-9x9-attention")
    start, segment = trace(of)
    questions = of.task.generate(2, np.random.default_rng(0))[0]
    begin = program(at_batch(start, 2))({"tokens": questions})
    states, e = of.model.initial_state(2), of.model.embed(torch.from_numpy(questions)).detach()
    for values in reroll(program(at_batch(segment, 2)), begin, 6):
        with torch.inference_mode():
            *states, logits, q = of.model.segment(*states, e)
        np.testing.assert_allclose(values["logits"], logits.numpy(), atol=1e-4)
        np.testing.assert_allclose(values["q"], q.numpy(), atol=1e-4)
    options = ExportOptions("coreml", "int8", "graph", 1)
    built = build_graphs(of, start, segment, options, quick_plan(of, start, segment, "int8", "coreml"))
    TARGET.write(built.graphs, Context(of, options, tmp_path))
    products = backend("coreml").compiled_products(tmp_path / "model.mlpackage")
    quantized = [product.name for product in products if (product.left, product.right) == ("int8", "int8")]
    assert sorted(quantized) == sorted(name.replace(".", "_").replace("/", "_") for name in built.products)
    assert len(quantized) == 42


def test_slots_that_keep_their_state_think_as_a_state_that_is_carried(tmp_path):
    """Three segments in float16 with the state inside and outside, bit by bit; rows begin again one by one."""
    rows, config = 4, traced("learned")[0].config
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder, ios in ((inside, 18), (outside, 17)):
        folder.mkdir()
        write(folder, "learned", "fp16", "host", ios, rows)
    tokens, ids = TASK.generate(rows, np.random.default_rng(3))[0], np.arange(rows, dtype=np.int32)
    begin = backend("coreml").load_graph(outside / "start.mlpackage", None)(
        {"tokens": tokens, "puzzle_identifiers": ids}
    )
    carried = reroll(backend("coreml").load_graph(outside / "segment.mlpackage", None), begin, 3)
    slots = load_stateful(inside / "stateful.mlpackage")()
    slots.put(np.arange(rows), tokens, ids)
    for segment in carried:
        logits, q = slots.think()
        assert (logits.shape, logits.dtype) == ((rows, TASK.seq_len, config.vocab_size), np.float32)
        np.testing.assert_array_equal(logits, segment["logits"])
        np.testing.assert_array_equal(q, segment["q"])
    slots.put(np.array([2]), tokens[2:3], ids[2:3])
    logits, _ = slots.think()
    np.testing.assert_array_equal(logits[2], carried[0]["logits"][2])
    assert (np.abs(logits[[0, 1, 3]] - carried[2]["logits"][[0, 1, 3]]).max(axis=(1, 2)) > 0).all()


def test_an_engine_of_slots_answers_as_torch_does(tmp_path):
    model = traced("grid")[0]
    write(tmp_path, "grid", "fp16", "host", 18, 4)
    make = load_stateful(tmp_path / "stateful.mlpackage")
    engine = SlotLoop(TASK, 6, make, backend="coreml", batch=4, no_ACT_continue=model.config.no_ACT_continue)
    tokens = TASK.generate(9, np.random.default_rng(1))[0]
    answers = engine.solve(tokens)
    answer, steps, _ = think(model, tokens, 6)
    np.testing.assert_array_equal(answers.steps, steps)
    assert (answers.tokens == answer).mean() > 0.99


def test_states_are_float16_and_begin_by_being_put(tmp_path):
    written = write(tmp_path, "learned", "fp16", "host", 18, 2)
    program = load_program(tmp_path / "stateful.mlpackage")
    config = traced("learned")[0].config
    shape = (2, config.sequence_len, config.hidden_size)
    assert {(s.name, s.dtype, tuple(s.shape)) for s in program.states} == {
        (name, "float16", shape) for name in ("z_H", "z_L")
    }
    assert written.inputs["stateful"] == (
        TensorSpec("tokens", "int32", (2, 16)),
        TensorSpec("puzzle_identifiers", "int32", (2,)),
        TensorSpec("fresh", "float32", (2,)),
    )
    assert written.outputs["stateful"] == (
        TensorSpec("logits", "float32", (2, 16, config.vocab_size)),
        TensorSpec("q", "float32", (2, 2)),
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_bindings_are_float32_and_int32_under_their_own_names(tmp_path, precision):
    """Whatever is computed in; a number without dimensions is one long."""
    written = write(tmp_path, "learned", precision, "host", 17, 3)
    config = traced("learned")[0].config
    state = (3, config.sequence_len, config.hidden_size)
    assert written.inputs == {
        "start": (TensorSpec("tokens", "int32", (3, 16)), TensorSpec("puzzle_identifiers", "int32", (3,))),
        "segment": tuple(TensorSpec(name, "float32", state) for name in ("z_H", "z_L", "e")),
    }
    assert [spec.name for spec in written.outputs["segment"]] == ["z_H_next", "z_L_next", "logits", "q"]
    assert {spec.dtype for spec in written.outputs["segment"]} == {"float32"}
    folder = tmp_path / "loop"
    folder.mkdir()
    looped = write(folder, "learned", precision, "graph", 17, 3)
    assert {(spec.name, spec.dtype, spec.shape) for spec in looped.inputs["model"]} == {
        ("tokens", "int32", (3, 16)),
        ("max_think_steps", "int32", (1,)),
        ("halt", "int32", (1,)),
        ("puzzle_identifiers", "int32", (3,)),
    }
    assert {(spec.name, spec.dtype, spec.shape) for spec in looped.outputs["model"]} == {
        ("answer", "int32", (3, 16)),
        ("steps", "int32", (3,)),
        ("q", "float32", (3, 2)),
    }


@pytest.mark.parametrize(("precision", "loop", "ios"), [("int4-weights", "host", 18), ("int8", "graph", 17)])
def test_the_same_model_gives_the_same_bytes(tmp_path, precision, loop, ios):
    """And nothing in them tells of the day, the machine or the folder."""
    written = []
    for name in ("one", "another"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, "grid", precision, loop, ios)
        written.append(sha(folder))
        for file in (file for file in folder.rglob("*") if file.is_file()):
            assert str(tmp_path).encode() not in file.read_bytes()
            assert b"conversion_date" not in file.read_bytes()
    assert written[0] == written[1]
    assert len(written[0]) == 3 * len(list((tmp_path / "one").iterdir()))


def test_what_xcode_shows(tmp_path):
    write(tmp_path, "learned", "int8", "graph", 17, 2, license="CC0-1.0", author="somebody")
    import coremltools

    described = coremltools.models.MLModel(str(tmp_path / "model.mlpackage"), skip_model_load=True)
    assert (described.author, described.license, described.version) == ("somebody", "CC0-1.0", __version__)
    for part in ("sudoku-4x4", "int8", "loop graph", "32 wide", "at most 6 segments"):
        assert part in described.short_description
    shown = described.input_description, described.output_description
    inputs, outputs = ({name: texts[name] for name in texts} for texts in shown)
    assert set(inputs) == {"tokens", "max_think_steps", "halt", "puzzle_identifiers"}
    assert set(outputs) == {"answer", "steps", "q"}
    assert all(text for text in (*inputs.values(), *outputs.values()))
    assert "[2, 16]" in inputs["tokens"]
    assert all(f"{token}={symbol}" in inputs["tokens"] for token, symbol in enumerate(TASK.vocabulary))
    facts = {key.removeprefix("hrm_edge."): value for key, value in described.user_defined_metadata.items()}
    assert json.loads(facts["vocabulary"]) == list(TASK.vocabulary)
    assert json.loads(facts["halt_modes"]) == {"learned": 0, "fixed": 1, "verified": 2}
    wanted = {"task": "sudoku-4x4", "seq_len": "16", "source_hash": "0" * 64, "version": __version__}
    assert wanted.items() <= facts.items()


def test_every_binding_of_every_graph_is_described(package):
    import coremltools

    for precision, ios in (("fp32", 17), ("fp16", 18)):
        folder, written = package(precision, "host", ios)
        for file in written.graphs.values():
            spec = coremltools.utils.load_spec(str(folder / file))
            bindings = (*spec.description.input, *spec.description.output, *spec.description.state)
            assert len({item.shortDescription for item in bindings}) == len(bindings)
            assert all("[1, " in item.shortDescription or "[1]" in item.shortDescription for item in bindings)


@pytest.mark.parametrize(
    ("metadata", "card", "said"),
    [
        ({}, "", "unknown"),
        ({}, "# A model\n\n- License: MIT\n", "MIT"),
        ({"licence": "CC-BY-4.0"}, "License: MIT", "CC-BY-4.0"),
        ({}, "Licensed to nobody", "unknown"),
    ],
)
def test_the_licence_is_the_checkpoints_own(metadata, card, said):
    from hrm_edge.exporters.describe import licence

    of = dataclasses.replace(checkpoint(traced("grid")[0], **metadata), card=card)
    assert licence(of) == said


def test_parts_say_what_is_computed_in_what():
    def parts_of(name):
        return TARGET.parts(precisions.PRECISIONS[name], None)

    for precision in PRECISIONS:
        parts = parts_of(precision)
        halved = "float32" if precision == "fp32" else "float16"
        assert {parts[name] for name in ("norms", "softmax", "carried state", "residual sums")} == {halved}
    assert parts_of("int8")["matrix products"] == "int8"
    assert parts_of("int4-weights")["weights"].startswith("int4")
    assert "16" in parts_of("palette4-weights")["weights"]


def test_without_coremltools_one_line_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "coremltools" else find(name))
    with pytest.raises(InputError, match=re.escape(f"not installed; run: {install('coreml')}")):
        write(tmp_path)


def test_nothing_is_printed(tmp_path, capfd, caplog):
    write(tmp_path, "grid", "fp16", "host", 18)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if "coremltools" in record.name]
