"""Analyses of puzzles that have identifiers, labels instead of rules, and sometimes no label: counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from arc_sets import toy_collection
from scripted import Scripted, puzzle_set

from hrm_edge.analysis.halting import halting
from hrm_edge.analysis.participation import participation
from hrm_edge.analysis.segments import segment_rates
from hrm_edge.arc.build import build
from hrm_edge.cli import main
from hrm_edge.data.puzzles import PuzzleSet
from hrm_edge.errors import InputError
from hrm_edge.models import HRM, HRMConfig, build_model, save_checkpoint
from hrm_edge.runtimes import Answers, Engine
from hrm_edge.runtimes.engine import Request
from hrm_edge.tasks import get_task

TASK = get_task("arc-4x4")
N = 30
UNLABELLED = np.arange(N) % 7 == 3


class Personal(Engine):
    """Row i is right from segment `right_from[i]` on where it is asked with its own identifier, i + 1."""

    def __init__(self, puzzles: PuzzleSet, right_from: np.ndarray, loop: str) -> None:
        super().__init__(TASK, 8, backend="personal", num_puzzle_identifiers=N + 1)
        self.loop, self.puzzles, self.right_from = loop, puzzles, right_from

    def _solve(self, request: Request) -> Answers:
        assert self.puzzles.answers is not None
        assert request.puzzle_identifiers is not None
        rows = [int(np.flatnonzero((self.puzzles.questions == q).all(axis=1))[0]) for q in request.tokens]
        own = request.puzzle_identifiers == np.array(rows) + 1

        def guess(step: int) -> np.ndarray:
            right = own & (self.right_from[rows] <= step)
            return np.where(right[:, None], self.puzzles.answers[rows], 0).astype(np.int32)  # type: ignore[index]

        T, n = request.max_think_steps, len(rows)
        steps, none = np.full(n, T, np.int32), np.zeros(n, bool)
        trace = np.stack([guess(k + 1) for k in range(T)]) if request.trace else None
        return Answers(guess(T), steps, none, np.zeros((n, 2), np.float32), trace)


@pytest.fixture
def puzzles() -> PuzzleSet:
    questions, answers = (np.random.default_rng(k).integers(2, 12, (N, 16)).astype(np.int32) for k in (0, 1))
    answers[UNLABELLED] = 0
    return PuzzleSet(TASK, questions, answers, ["a"] * N, "made up", np.arange(1, N + 1, dtype=np.int32), N + 1)


RIGHT_FROM = np.random.default_rng(2).integers(1, 12, N)


def test_halting_asks_with_identifiers_and_counts_labelled_puzzles(puzzles: PuzzleSet) -> None:
    found = halting(Personal(puzzles, RIGHT_FROM, "host"), puzzles)
    expected = {k: int(((k >= RIGHT_FROM) & ~UNLABELLED).sum()) for k in (1, 2, 4, 8)}
    assert (found.total.n, found.total.right) == ((~UNLABELLED).sum(), expected[8])
    assert found.head.n == 4 * (~UNLABELLED).sum()
    assert sum(bin_.n * bin_.right for bin_ in found.head.bins) == pytest.approx(sum(expected.values()))


@pytest.mark.parametrize("loop", ["host", "graph"])
@pytest.mark.parametrize("retries", [0, 3])
def test_segments_without_rules(puzzles: PuzzleSet, loop: str, retries: int) -> None:
    found = segment_rates(Personal(puzzles, RIGHT_FROM, loop), puzzles, segments=(1, 5, 9), retries=retries)
    solved = {k: rate.solved for k, rate in found.fixed["a"].items()}
    assert solved == {k: int(((k >= RIGHT_FROM) & ~UNLABELLED).sum()) for k in (1, 5, 9)}
    assert found.fixed["a"][1].n == (~UNLABELLED).sum()
    assert (found.retries, found.verified, found.by_retries) == (0, {}, {})


def test_without_retries_nothing_is_verified() -> None:
    some = puzzle_set(4)
    engine = Scripted(some, [1, 2, 0, 3], [1, 1, 1, 1], loop="graph")
    segment_rates(engine, some, segments=(1, 4))
    assert [halt for halt, *_ in engine.calls] == ["fixed", "fixed"]


def arc_model(table: int) -> HRM:
    sizes = {"vocab_size": TASK.vocab_size, "seq_len": TASK.seq_len, "hidden_size": 16, "num_heads": 2}
    few = {"H_layers": 1, "L_layers": 1, "halt_max_steps": 3, "puzzle_emb_ndim": 16}
    torch.manual_seed(0)
    model = build_model(HRMConfig.from_dict({**sizes, **few, "num_puzzle_identifiers": table}), TASK).eval()
    torch.nn.init.normal_(model.puzzle_emb.weight)
    return model


def test_states_are_those_of_the_puzzles_own_embeddings(puzzles: PuzzleSet) -> None:
    model, tokens = arc_model(5), puzzles.questions[:6]
    found = participation(model, tokens, np.full(6, 3, np.int32))
    assert found.growth != participation(model, tokens).growth
    with torch.no_grad():
        model.puzzle_emb.weight[0] = model.puzzle_emb.weight[3]
    assert found.growth == participation(model, tokens).growth
    mixed = participation(model, tokens, np.array([1, 2, 4, 1, 2, 4], np.int32)).growth["z_H"][0]
    alone = [
        participation(model, tokens[i : i + 1], np.array([k], np.int32)).growth["z_H"][0].mean
        for i, k in enumerate((1, 2, 4, 1, 2, 4))
    ]
    assert mixed.mean == pytest.approx(np.mean(alone), rel=1e-3)
    with pytest.raises(InputError, match="has puzzle identifiers 0 to 4, not 5"):
        participation(model, tokens, np.full(6, 5))


def test_every_analysis_of_an_arc_model_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    build(toy_collection(), TASK, tmp_path / "set", augmentations=2)
    identifiers = len(json.loads((tmp_path / "set" / "identifiers.json").read_text()))
    save_checkpoint(tmp_path / "c", arc_model(identifiers), TASK.name, "")
    save_checkpoint(tmp_path / "small", arc_model(4), TASK.name, "")
    for command in (("halting",), ("segments", "--segments", "1,3", "--retries", "2"), ("participation",)):
        name, *more = command
        for model, expected in (("c", 0), ("small", 2)):
            with pytest.raises(SystemExit) as stopped:
                main(["analyze", name, str(tmp_path / model), "--data", str(tmp_path / "set" / "test"), *more])
            assert int(stopped.value.code or 0) == expected
            told = capsys.readouterr().err.strip().splitlines()
            if expected:
                assert "identifiers" in told[-1]
            elif more:
                assert "arc-4x4 has no rules to verify an answer by, so --retries 2 is left out" in told
