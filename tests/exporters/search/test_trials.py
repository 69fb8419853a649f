"""Real trials: what a segment gets right beside the float one, and which of them need no engine again."""

import dataclasses
import io

import numpy as np
import pytest
from patient_networks import with_bias
from scripted import trial
from small_networks import TASK, checkpoint

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.exporters.graph.edit import array_of
from hrm_edge.exporters.search import trials as trials_module
from hrm_edge.exporters.search.budget import sensitivity
from hrm_edge.exporters.search.trials import Trials
from hrm_edge.measure import cache as answer_cache
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import backend


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def loads(monkeypatch):
    """Names of the graphs that a backend is asked to load."""
    pytest.importorskip("onnxruntime")
    seen, load = [], backend("onnx").load_graph
    monkeypatch.setattr(
        backend("onnx"), "load_graph", lambda path, threads: seen.append(path.stem) or load(path, threads)
    )
    return seen


@pytest.fixture
def rope(traced):
    model, start, segment = traced("rope")
    return checkpoint(model), start, segment, generate_puzzles(TASK, 24, 11, "ordinary")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_float_segment_loses_nothing(cache, rope, target):
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    source, start, segment, puzzles = rope
    result = Trials(source, start, target, puzzles, threads=1).run("float", segment)
    reference = TorchEngine(source).solve(puzzles.questions)
    assert (result.what, result.n, result.lost, result.won) == ("float", 24, 0, 0)
    assert result.halt_agree == 1
    assert result.steps_mean == result.float_steps_mean == reference.steps.mean()
    assert len(set(reference.steps)) > 1
    right = reference.tokens == puzzles.answers
    assert result.exact == result.float_exact == right.all(axis=1).mean()
    assert result.token == pytest.approx(right.mean())


def test_a_segment_that_always_halts_is_seen_to(cache, rope):
    source, start, segment, puzzles = rope
    result = Trials(source, start, "onnx", puzzles, threads=1).run("hasty", with_bias(segment, (1e4, 0)))
    reference = TorchEngine(source).solve(puzzles.questions)
    assert result.steps_mean == 1
    assert result.halt_agree == (reference.steps == 1).mean() < 1
    never = Trials(source, start, "onnx", puzzles, threads=1).run("slow", with_bias(segment, (-1e4, 0)))
    assert never.steps_mean == source.config.halt_max_steps


def test_the_same_trial_twice_calls_no_engine(cache, rope, loads):
    source, start, segment, puzzles = rope
    first = Trials(source, start, "onnx", puzzles, threads=1).run("one", segment)
    assert loads == ["start", "segment"]
    second = Trials(source, start, "onnx", puzzles, threads=1).run("two", segment)
    assert loads == ["start", "segment"]
    assert second == dataclasses.replace(first, what="two")


def test_whatever_a_trial_depends_on_is_computed_again(cache, rope, loads):
    source, start, segment, puzzles = rope
    run = lambda start, segment, puzzles: Trials(source, start, "onnx", puzzles, 1).run("x", segment)  # noqa: E731
    run(start, segment, puzzles)
    for i, changed in enumerate(
        [
            lambda: run(start, with_bias(segment, (0.125, 0)), puzzles),
            lambda: run(start, segment, puzzles.select(np.arange(20))),
            lambda: run(with_offset(start), segment, puzzles),
        ]
    ):
        changed()
        assert len(loads) == 2 * (i + 2)


@pytest.mark.parametrize("changes", [{"halt_max_steps": 2}, {"no_ACT_continue": True}, {}])
def test_the_same_weights_in_another_model_are_another_trial(cache, rope, loads, changes, monkeypatch):
    """Nor do those count that other threads or other code answered."""
    source, start, segment, puzzles = rope
    first = Trials(source, start, "onnx", puzzles, 1).run("x", segment)
    assert first.steps_mean > 2
    if not changes:
        monkeypatch.setattr(answer_cache, "code_hash", lambda: "other")
    else:
        monkeypatch.setattr(source.model, "config", dataclasses.replace(source.config, **changes))
    again = Trials(source, start, "onnx", puzzles, 1).run("x", segment)
    assert loads == ["start", "segment"] * 2
    if "halt_max_steps" in changes:
        assert again.steps_mean <= 2
    Trials(source, start, "onnx", puzzles, 2).run("x", segment)
    assert loads == ["start", "segment"] * 3


def test_answers_to_other_puzzles_under_a_trial_s_name_are_not_its(cache, rope, loads):
    """A file with fewer rows: whole by its own digest, and still not these puzzles' answers."""
    source, start, segment, puzzles = rope
    first = Trials(source, start, "onnx", puzzles, 1).run("x", segment)
    few = Trials(source, start, "onnx", puzzles.select(np.arange(9)), 1)
    few.run("x", segment)
    nine = next(file for file in (cache / "trials").iterdir() if answer_cache.read_answers(file, few.puzzles))
    (whole,) = (file for file in (cache / "trials").iterdir() if file != nine)
    whole.write_bytes(nine.read_bytes())
    assert Trials(source, start, "onnx", puzzles, 1).run("x", segment) == first
    assert loads == ["start", "segment"] * 3


def with_offset(start):
    (offset,) = (tensor for tensor in start.graph.initializer if tensor.name == "offset")
    offset.CopyFrom(trials_module.onnx.numpy_helper.from_array(array_of(offset) + 1, "offset"))
    return start


def test_fewer_are_the_first_ones(cache, rope):
    source, start, _, puzzles = rope
    trials = Trials(source, start, "onnx", puzzles, 1)
    some = trials.fewer(5)
    np.testing.assert_array_equal(some.puzzles.questions, puzzles.questions[:5])
    assert len(some.reference.tokens) == 5
    assert trials.fewer(24) is trials.fewer(99) is trials


def test_more_puzzles_begin_with_those_that_are_answered(cache, rope, loads):
    """Only what is added is asked, of the float model and of the candidate; what comes of it is that of all."""
    source, start, segment, puzzles = rope
    trials = Trials(
        source, start, "onnx", puzzles.select(np.arange(6)), 1, more=lambda n: puzzles.select(np.arange(n))
    )
    candidate = with_bias(segment, (1e4, 0))
    trials.run("hasty", candidate)
    longer = trials.longer
    found = longer.run("hasty", candidate)
    assert found.n == 12
    sizes = sorted(
        len(answer_cache.np.load(io.BytesIO(f.read_bytes()[32:]))["steps"]) for f in (cache / "trials").iterdir()
    )
    assert sizes == [6, 6]
    direct = Trials(source, start, "onnx", puzzles.select(np.arange(12)), 1)
    np.testing.assert_array_equal(longer.reference.tokens, direct.reference.tokens)
    assert direct.run("hasty", candidate) == found


def test_each_layer_is_quantized_alone(cache, rope, traced):
    from traced_networks import plan

    from hrm_edge.exporters.graph.layers import products
    from hrm_edge.models import quantized_layers

    source, _, segment, puzzles = rope
    seen = {}

    class Spy:
        target = "openvino"

        def __init__(self):
            self.puzzles, self.told = puzzles, []

        def progress(self, what, done, total):
            self.told.append((done, total))

        def run(self, what, segment):
            widened = {n.output[0] for n in segment.graph.node if n.op_type == "DequantizeLinear"}
            seen[what] = {n.name for n in segment.graph.node if n.op_type == "MatMul" and set(n.input) <= widened}
            return trial(what)

    spy = Spy()
    sensitivity(plan("rope"), segment, spy, lambda line: None)
    assert spy.told == [(done, len(seen)) for done in range(1, len(seen) + 1)]
    assert list(seen) == list(dict.fromkeys(p.layer for p in products(segment)))
    assert set(seen) == set(quantized_layers(source.model))
    for layer, names in seen.items():
        assert names == {p.name for p in products(segment) if p.layer == layer}
