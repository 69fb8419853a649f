"""Scores are what a person would count by hand, whatever the engine, the chunking and the breakdown."""

import dataclasses

import numpy as np
import pytest
from scripted import TASK, ByHeart, Scripted, puzzle_set, rings, spoiled
from toys import graph_engine, host_engine

from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.measure import accuracy as module
from hrm_edge.measure.accuracy import answer_all, evaluate, rightness, token_accuracy
from hrm_edge.runtimes import Answers
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
    assert (result.total.wrong, result.total.gave_up) == (0.5, 0)
    assert result.right_within == {1: 0.25, 2: 0.5, 4: 0.5, 8: 0.5}
    assert result.steps_histogram == {1: 1, 2: 1, 4: 1, 8: 1}
    assert {name: (s.exact, s.n, s.steps_mean) for name, s in result.by_source.items()} == {
        "easy": (0.5, 2, 2.5),
        "hard": (0.5, 2, 5.0),
    }
    exact = {k: score.exact for k, score in result.by_segments.items()}
    assert exact == {1: 0.25, 2: 0.5, 4: 0.5, 8: 0.75, 16: 0.75, 32: 0.75}
    assert result.right.tolist() == [True, True, False, False]


def test_what_never_halts_is_given_up_and_nothing_is_where_halting_is_off(four):
    result = evaluate(Scripted(four, RIGHT_FROM, HALTS_AT), four, max_think_steps=3)
    assert (result.total.exact, result.total.wrong, result.total.gave_up) == (0.5, 0, 0.5)
    off = evaluate(Scripted(four, RIGHT_FROM, HALTS_AT), four, halt="fixed", max_think_steps=5)
    assert (off.total.wrong, off.total.gave_up, off.right_within) == (None, None, {})


def test_json_has_the_documented_keys(four):
    content = evaluate(Scripted(four, RIGHT_FROM, HALTS_AT), four).to_dict()
    scores = {"exact", "token", "n", "steps_mean", "accuracy", "exact_accuracy", "labelled", "puzzle_flops"}
    scores |= {"wrong", "gave_up"}
    assert scores | {"by_source", "by_segments", "segment_flops"} <= set(content)
    assert content["by_segments"] == {}
    assert set(content["by_source"]["easy"]) == scores
    assert content["segment_flops"] is content["puzzle_flops"] is None


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
    assert (result.total.accuracy, result.total.exact_accuracy, result.total.labelled) == (None, None, 0)
    assert token_accuracy(bare, puzzles.questions) is None


def test_another_shortest_path_is_right_but_no_exact_match():
    puzzles, answers = rings()
    engine = ByHeart(puzzles.task, puzzles.questions, answers)
    result = evaluate(engine, puzzles, by=("source", "segments"), segment_flops=1000)
    cells = (answers == puzzles.answers).sum(axis=1) / 25
    assert cells.tolist() == [11 / 25, 1.0, 24 / 25]
    assert (result.total.exact, result.total.exact_accuracy, result.total.n) == (2 / 3, 1 / 3, 3)
    assert result.total.accuracy == pytest.approx(cells.mean())
    by_source = {name: (s.exact, s.exact_accuracy, s.accuracy, s.n) for name, s in result.by_source.items()}
    others = pytest.approx(cells[1:].mean())
    assert by_source == {"a": (1.0, 0.0, pytest.approx(cells[0]), 1), "b": (0.5, 0.5, others, 2)}
    assert (result.by_segments[4].exact, result.by_segments[4].exact_accuracy) == (2 / 3, 1 / 3)
    content = result.to_dict()
    assert (content["puzzle_flops"], content["by_segments"]["4"]["puzzle_flops"]) == (1000, 4000)


def test_only_labelled_puzzles_and_cells_are_in_accuracy():
    """As the public code counts: of a padded label the other cells, and of a puzzle without a label nothing."""
    puzzles = puzzle_set(4, sources=["some", "some", "none", "some"])
    labels = puzzles.answers.copy()
    labels[0, :4] = 0
    labels[2] = 0
    given = np.stack([spoiled(answer) for answer in puzzles.answers])
    given[3] = puzzles.answers[3]
    known = dataclasses.replace(puzzles, answers=labels)
    result = evaluate(ByHeart(TASK, puzzles.questions, given), known)
    parts = [(given[i] == labels[i])[labels[i] > 0].mean() for i in (0, 1, 3)]
    assert parts == [1.0, 14 / 16, 1.0]
    assert result.total.accuracy == pytest.approx(sum(parts) / 3)
    assert (result.total.exact_accuracy, result.total.labelled) == (2 / 3, 3)
    # Rules judge every puzzle, and the first's two wrong cells are not forgiven for want of a label.
    assert (result.total.exact, result.total.n) == (1 / 4, 4)
    assert (result.by_source["none"].accuracy, result.by_source["none"].labelled) == (None, 0)


def test_retries_solve_more_and_their_segments_are_counted():
    puzzles = puzzle_set(40, seed=2)
    once, again = (evaluate(Moody(puzzles), puzzles, retries=k, segment_flops=10) for k in (0, 3))
    assert again.to_dict()["puzzle_flops"] == pytest.approx(10 * again.answers.steps.mean())
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
