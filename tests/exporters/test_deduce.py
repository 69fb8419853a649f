"""Candidate-state reasoners as graphs: calls and answers are PyTorch's, in host and graph loops."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from hrm_edge.data.puzzles import PuzzleSet
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.drift import drift_of
from hrm_edge.exporters.network import traced
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.models import Checkpoint, load_checkpoint, save_checkpoint
from hrm_edge.models.deduce import DeduceConfig
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import load_engine
from hrm_edge.runtimes.loader import backend
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
SMALL = DeduceConfig(hidden_size=8, L_cycles=2, trained_cycles=2, halt_max_steps=3, rule_rounds=1, search_steps=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    """Random weights that strike nothing by mistake: the search alone answers."""
    torch.manual_seed(0)
    model = SMALL.build(TASK)
    with torch.no_grad():
        network = model.get_submodule("network")
        torch.nn.init.normal_(network.blocks[0].mlp.down_proj.weight, std=0.3)
        network.heads.bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
        network.conflict_head.bias.fill_(-9)
    folder = save_checkpoint(tmp_path_factory.mktemp("deduce") / "small", model, TASK, "")
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def questions() -> np.ndarray:
    """Of twelve, eight have but a few cells to fill, and two no answer."""
    boards, answers = TASK.generate(12, np.random.default_rng(5))
    filled = np.arange(TASK.seq_len) >= np.array([*range(1, 9), 16, 16, 16, 16])[:, None]
    boards = np.where(filled & (np.arange(12) < 8)[:, None], answers, boards).astype(np.int32)
    boards[10:, :2] = TASK.value_tokens[0]
    return boards


def test_a_traced_call_is_the_networks_own(checkpoint, questions):
    start, segment = (onnxruntime.InferenceSession(graph.SerializeToString()) for graph in traced(checkpoint.model))
    with torch.no_grad():
        e, *state = checkpoint.model.start(torch.from_numpy(questions).long())
        theirs = dict(zip(("e", *checkpoint.model.state), start.run(None, {"tokens": questions}), strict=True))
        for _ in range(6):
            *state, logits, q = checkpoint.model.segment(*state, e)
            outputs = segment.run(None, theirs)
            for mine, other in zip(state, outputs, strict=False):
                assert np.array_equal(mine.numpy(), other), "whole numbers, to the last"
            assert np.allclose(logits.numpy(), outputs[-2], atol=1e-4)
            assert np.array_equal(q.numpy(), outputs[-1])
            theirs |= dict(zip(checkpoint.model.state, outputs, strict=False))


WAYS = [("onnx", "graph"), ("openvino", "graph"), ("openvino", "host"), ("c", "host"), ("litert", "host")]


@pytest.mark.parametrize(("target", "loop"), WAYS)
def test_a_bundle_answers_as_the_checkpoint(checkpoint, questions, tmp_path, target, loop):
    if not backend(target).available().usable:
        pytest.skip(f"{target} cannot run here")
    export_bundle(checkpoint, ExportOptions.for_target(target, "fp32", loop), tmp_path / "b", GateOptions(None))
    engine, reference = load_engine(tmp_path / "b"), TorchEngine(checkpoint)
    for halt in ("learned", "verified"):
        mine, theirs = (each.solve(questions, 3, halt) for each in (engine, reference))
        assert np.array_equal(mine.tokens, theirs.tokens)
        assert np.array_equal(mine.steps, theirs.steps)
        assert np.array_equal(mine.halted, theirs.halted)
    assert TASK.verify(questions, mine.tokens)[mine.halted].all(), "what halts is right"
    assert 0 < mine.halted.sum() < len(questions), "and what does not is given up"


def test_drift_is_followed_until_both_have_answered(checkpoint, questions):
    engine = TorchEngine(checkpoint)
    few = questions[engine.solve(questions).steps == 1]
    answers = engine.solve(few)
    puzzles = PuzzleSet(TASK, few, answers.tokens, ["own"] * len(few), "own")
    options = ExportOptions.for_target("onnx", "fp32", "host")
    rollout = drift_of(checkpoint, *traced(checkpoint.model), options, None, puzzles, (answers, answers))
    assert len(rollout.segments) == 1 < checkpoint.config.halt_max_steps, "its answers are kept from there on"
    assert rollout.segments[0].n == len(few) > 0
    assert rollout.segments[0].puzzles_differ == 0
