"""Scores are what a person would count by hand, whatever the engine, the chunking and the breakdown."""

import dataclasses

import numpy as np
import pytest
from scripted import TASK, Scripted, puzzle_set, spoiled
from toys import graph_engine, host_engine

from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.measure import accuracy as module
from hrm_edge.measure.accuracy import answer_all, evaluate, rightness, token_accuracy
from hrm_edge.runtimes import Answers, Engine
from hrm_edge.tasks import get_task

# Four puzzles: right from segment 1, 2, 5 and never; halting after 1, 2, 4 (too early) and 8 segments.
RIGHT_FROM, HALTS_AT = [1, 2, 5, 0], [1, 2, 4, 8]


@pytest.fixture
def four():
    return puzzle_set(4, sources=["easy", "hard", "easy", "hard"])


def test_counts_by_hand(four):
    result = evaluate(Scripted(four, RIGHT_FROM, HALTS_AT), four, by=("source", "segments"))
    assert (result.total.exact, result.total.token, result.total.n) == (0.5, 1 - 2 * (1 / 8) / 4, 4)
    assert result.total.steps_mean == 15 / 4
    assert result.steps_histogram == {1: 1, 2: 1, 4: 1, 8: 1}
    assert {name: (s.exact, s.n, s.steps_mean) for name, s in result.by_source.items()} == {
        "easy": (0.5, 2, 2.5),
        "hard": (0.5, 2, 5.0),
    }
    exact = {k: score.exact for k, score in result.by_segments.items()}
    assert exact == {1: 0.25, 2: 0.5, 4: 0.5, 8: 0.75, 16: 0.75, 32: 0.75}
    assert result.right.tolist() == [True, True, False, False]


def test_json_has_the_documented_keys(four):
    content = evaluate(Scripted(four, RIGHT_FROM, HALTS_AT), four).to_dict()
    assert {"exact", "token", "n", "steps_mean", "by_source", "by_segments"} <= set(content)
    assert content["by_segments"] == {}
    assert set(content["by_source"]["easy"]) == {"exact", "token", "n", "steps_mean"}


def test_segments_take_one_pass_with_a_trace_from_a_host_loop(four):
    engine = Scripted(four, RIGHT_FROM, HALTS_AT)
    host = module.by_segments(engine, four)
    assert engine.calls == [("fixed", 32, True)]
    graph = Scripted(four, RIGHT_FROM, HALTS_AT, loop="graph")
    assert module.by_segments(graph, four) == host
    assert graph.calls == [("fixed", k, False) for k in (1, 2, 4, 8, 16, 32)]


def test_segments_end_where_asked(four):
    engine = Scripted(four, RIGHT_FROM, HALTS_AT)
    assert list(module.by_segments(engine, four, max_think_steps=8)) == [1, 2, 4, 8]
    assert list(module.by_segments(engine, four, max_think_steps=5)) == [1, 2, 4, 5]
    assert module.by_segments(engine, four, max_think_steps=5)[5].exact == 0.75
    assert list(module.by_segments(engine, four, max_think_steps=40)) == [1, 2, 4, 8, 16, 32, 40]


def test_chunks_do_not_matter_and_report_progress(monkeypatch):
    puzzles = puzzle_set(30, seed=3)
    whole = evaluate(host_engine(), puzzles, by=("source", "segments"))
    monkeypatch.setattr(module, "CHUNK", 7)
    seen = []
    pieces = evaluate(
        host_engine(),
        puzzles,
        by=("source", "segments"),
        progress=lambda what, done, total: seen.append((done, total)),
    )
    assert pieces.to_dict() == whole.to_dict()
    assert seen == [(k, 30) for k in (7, 14, 21, 28, 30)] * 2


def test_host_and_graph_loops_score_alike():
    puzzles = puzzle_set(20, seed=5)
    host, graph = (evaluate(e, puzzles, by=("source", "segments")) for e in (host_engine(), graph_engine()))
    assert host.to_dict() == graph.to_dict()
    assert host.total.exact > 0


def test_another_right_answer_counts_as_right():
    _, answers = TASK.generate(1, np.random.default_rng(0))
    question = np.full_like(answers, TASK.blank)
    relabelled = np.array([0, 1, 3, 4, 5, 2])[answers]
    puzzles = PuzzleSet(TASK, question, answers, ["empty"], "an empty board")
    assert rightness(puzzles, relabelled).tolist() == [True]
    assert rightness(puzzles, spoiled(answers[0])[None]).tolist() == [False]


def test_without_labels_the_verifier_decides_and_tokens_are_not_scored():
    puzzles = puzzle_set(4)
    bare = PuzzleSet(TASK, puzzles.questions, None, puzzles.sources, "bare")
    engine = Scripted(puzzles, RIGHT_FROM, HALTS_AT)
    result = evaluate(engine, bare)
    assert (result.total.exact, result.total.token) == (0.5, None)
    assert token_accuracy(bare, puzzles.questions) is None


def test_retries_solve_more_and_their_segments_are_counted():
    puzzles = puzzle_set(40, seed=2)
    once, again = (evaluate(Moody(puzzles), puzzles, retries=k) for k in (0, 3))
    assert once.total.exact < again.total.exact
    assert once.total.steps_mean == 1
    assert again.total.steps_mean > 1.2
    assert again.total.exact == again.right.mean()


class Moody(Scripted):
    """Solves a board, turned or renumbered or not, only when its first given is a small number."""

    def __init__(self, puzzles):
        super().__init__(puzzles, [1] * len(puzzles), [1] * len(puzzles))

    def _solve(self, request):
        tokens = [a if q[q > 1][0] <= 3 else spoiled(a) for q in request.tokens for a in [TASK.solve(q)]]
        count = len(tokens)
        return Answers(
            np.array(tokens, np.int32),
            np.ones(count, np.int32),
            np.ones(count, bool),
            np.zeros((count, 2), np.float32),
        )


def test_answers_keep_their_order_and_fields():
    puzzles = puzzle_set(10, seed=1)
    joined, direct = answer_all(host_engine(), puzzles), host_engine().solve(puzzles.questions)
    for name in ("tokens", "steps", "halted", "q"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(direct, name))


def test_refusals(four):
    engine = Scripted(four, RIGHT_FROM, HALTS_AT)
    with pytest.raises(InputError, match="no puzzles"):
        evaluate(engine, four.select(np.array([], int)))
    with pytest.raises(InputError, match="cannot break scores down by 'size'"):
        evaluate(engine, four, by=("size",))
    six = generate_puzzles(get_task("sudoku-6x6"), 1, seed=0)
    with pytest.raises(InputError, match="holds sudoku-6x6 puzzles, but the model solves sudoku-4x4"):
        evaluate(engine, six)


class ByHeart(Engine):
    """Answers int32[N, S] in the order of the questions, whatever it is asked."""

    loop = "graph"

    def __init__(self, task, questions, answers):
        super().__init__(task, 4, backend="by heart")
        self.known = {q.tobytes(): a for q, a in zip(questions, answers, strict=True)}

    def _solve(self, request):
        n = len(request.tokens)
        tokens = np.stack([self.known[q.tobytes()] for q in request.tokens])
        return Answers(tokens, np.full(n, 1, np.int32), np.zeros(n, bool), np.zeros((n, 2), np.float32))


def test_rows_without_a_label_are_in_no_rate():
    """As if they had not been in the set: two of ten unlabelled, three of the other eight answered wrongly."""
    task = get_task("arc-4x4")
    rng = np.random.default_rng(0)
    grids = rng.integers(2, 12, (10, 16)).astype(np.int32)
    labels = grids.copy()
    labels[[4, 7]] = 0
    given = grids.copy()
    given[[0, 4, 5, 9], 3] = 2 + (given[[0, 4, 5, 9], 3] - 1) % 10
    puzzles = PuzzleSet(task, grids, labels, ["a"] * 5 + ["b"] * 5, "some")
    engine = ByHeart(task, grids, given)
    found = evaluate(engine, puzzles, by=("source", "segments"))
    alone = evaluate(engine, puzzles.select(np.delete(np.arange(10), [4, 7])), by=("source", "segments"))
    assert (found.unjudged, alone.unjudged) == (2, 0)
    assert (found.total, found.by_source, found.by_segments) == (alone.total, alone.by_source, alone.by_segments)
    assert (found.total.exact, found.total.n) == (5 / 8, 8)
    assert found.to_dict()["unjudged"] == 2
    with pytest.raises(InputError, match="no puzzle of some has a label"):
        evaluate(engine, dataclasses.replace(puzzles, answers=np.zeros_like(labels)))
