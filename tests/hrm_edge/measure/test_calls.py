"""The gate asks in every way that users do: whatever answers otherwise in one of them alone does not ship."""

import re

import numpy as np
import pytest
import toys

from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import ArtifactError, InputError
from hrm_edge.measure.accuracy import rightness
from hrm_edge.measure.calls import ask_otherwise, call_rows, segments_asked, unusual_boards
from hrm_edge.measure.gate import LOOK_CONFIDENCE, compare, judge
from hrm_edge.precision import FP32
from hrm_edge.runtimes import Answers, GraphLoop

N = 100
PUZZLES = generate_puzzles(toys.TASK, N, seed=5)


def graph(looped) -> GraphLoop:
    return GraphLoop(toys.TASK, toys.HALT_MAX_STEPS, looped, backend="toy").in_whole_calls()


def echo(tokens):
    """The question as its own answer, after the segments that one would expect."""
    return lambda outputs: [tokens, *outputs[1:]]


def constant_trip_count(tokens, limit, halt):
    return toys.looped(tokens, np.int32(toys.HALT_MAX_STEPS), halt)


def constant_trip_count_that_lies(tokens, limit, halt):
    answer, steps, q = toys.looped(tokens, np.int32(toys.HALT_MAX_STEPS), halt)
    return [answer, np.minimum(steps, limit), q]


def three_segments_for_one(tokens, limit, halt):
    answer, steps, q = toys.looped(tokens, 3 * limit, halt)
    return [answer, np.minimum(steps, limit), q]


def fixed_is_something_else(tokens, limit, halt):
    outputs = toys.looped(tokens, limit, halt)
    return echo(tokens)(outputs) if halt == 1 else outputs


def fault_above_the_trained_limit(tokens, limit, halt):
    outputs = toys.looped(tokens, limit, halt)
    return echo(tokens)(outputs) if limit > toys.HALT_MAX_STEPS else outputs


def fault_on_boards_with_many_blanks(tokens, limit, halt):
    answer, steps, q = toys.looped(tokens, limit, halt)
    many = (tokens == toys.TASK.blank).sum(axis=1) > 13
    return [np.where(many[:, None], tokens, answer), steps, q]


def fault_in_single_rows(tokens, limit, halt):
    outputs = toys.looped(tokens, limit, halt)
    return echo(tokens)(outputs) if len(tokens) == 1 else outputs


def fault_at_batch_3(tokens, limit, halt):
    outputs = toys.looped(tokens, limit, halt)
    return echo(tokens)(outputs) if len(tokens) == 3 else outputs


def groups_that_hold_at_once(tokens, limit, halt):
    return toys.looped(tokens, np.minimum(limit, 1), halt) if halt == 2 else toys.looped(tokens, limit, halt)


def groups_that_never_hold(tokens, limit, halt):
    return toys.looped(tokens, limit, np.int32(1) if halt == 2 else halt)


SABOTAGE = {
    constant_trip_count_that_lies: r"fixed, 9 segments: 8 of 8 puzzles took 8 segments",
    three_segments_for_one: r"fixed, 1 segment: \d+ of \d+ guesses are nearer to the reference's after \d",
    fixed_is_something_else: r"fixed, 1 segment: answers \d+ of 16 boards with the question itself",
    fault_above_the_trained_limit: r"fixed, 9 segments: solves 0 of the 8 that the reference solves",
    fault_on_boards_with_many_blanks: r"fixed, 1 segment: answers [1-4] of 16 boards with the question itself",
    fault_in_single_rows: r"exact-solve accuracy dropped",
    fault_at_batch_3: r"exact-solve accuracy dropped",
    groups_that_hold_at_once: r"verified, 8 segments at most: stops on \d answers that break the rules",
    groups_that_never_hold: r"verified, 8 segments at most: goes on after \d answers that obey the rules",
}


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """The verdict on a graph loop, with the toy itself as the float reference."""
    pytest.importorskip("torch")
    from hrm_edge.measure import reference
    from hrm_edge.models import HRMConfig, build_model, engine, load_checkpoint, save_checkpoint

    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    for module in (reference, engine):
        monkeypatch.setattr(module, "TorchEngine", lambda _, **__: toys.host_engine())
    config = HRMConfig(toys.TASK.vocab_size, toys.S, hidden_size=16, num_heads=2, H_layers=1, L_layers=1)
    save_checkpoint(tmp_path / "m", build_model(config, toys.TASK), toys.TASK.name, "# test", {})
    checkpoint = load_checkpoint(tmp_path / "m")

    def run(looped, puzzles=PUZZLES, more=None):
        return judge(graph(looped), checkpoint, puzzles, more, say=lambda line: None)

    return run


def test_nothing_is_wrong_with_what_is_whole(judged):
    report = judged(toys.looped).report
    assert report.passed, report.reason
    assert [asked.wrong for asked in report.calls] == [None] * 5
    assert [asked.agree for asked in report.calls] == [1] * 5
    assert report.reference.exact > 0.3


@pytest.mark.parametrize("looped", SABOTAGE, ids=lambda looped: looped.__name__)
def test_what_is_broken_in_one_way_to_ask_fails(judged, looped):
    report = judged(looped).report
    assert not report.passed
    assert re.search(SABOTAGE[looped], report.reason), report.reason


def test_what_takes_more_segments_than_it_was_asked_for_is_no_artifact(judged):
    with pytest.raises(ArtifactError, match="took 8 to 8 segments, and at most 1 were asked for"):
        judged(constant_trip_count)


def test_half_of_the_puzzles_are_asked_alone_the_others_in_every_number_of_rows():
    for count in (1, 5, 77, 400):
        calls = list(call_rows(count))
        assert np.concatenate([np.arange(call.start, call.stop) for call in calls]).tolist() == list(range(count))
    sizes = [call.stop - call.start for call in call_rows(400)]
    assert {*sizes} == {1, 2, 3, 4, 5, 6, 7, 8}
    assert 150 <= sizes.count(1) <= 250


def test_unusual_boards_are_from_empty_to_full():
    boards = unusual_boards(PUZZLES)
    given = (boards != toys.TASK.blank).sum(axis=1)
    assert (given.min(), given.max()) == (0, toys.S)
    assert len(unusual_boards(PuzzleSet(toys.TASK, PUZZLES.questions, None, PUZZLES.sources, "no labels"))) == 0


def test_a_loop_that_cannot_verify_is_not_asked_to(judged):
    engine, right = toys.graph_engine(), rightness(PUZZLES, PUZZLES.questions)
    calls = ask_otherwise(engine, toys.host_engine(), PUZZLES, right)
    assert [asked.call for asked in calls][-1].startswith("verified")


def test_the_other_ways_to_ask_are_counted_before_they_are_asked(judged):
    engines = [toys.graph_engine(), toys.host_engine()]
    usual = float(engines[1].solve(PUZZLES.questions).steps.mean())
    taken = [0, 0]
    for side, engine in enumerate(engines):
        solve = engine._solve

        def counted(request, side=side, solve=solve):
            answers = solve(request)
            taken[side] += int(answers.steps.sum())
            return answers

        engine._solve = counted
    ask_otherwise(*engines, PUZZLES, rightness(PUZZLES, PUZZLES.questions))
    for told, counted in zip(segments_asked(toys.HALT_MAX_STEPS, usual), taken, strict=True):
        assert 0.5 < told / counted < 2


# -- as many puzzles as it takes -----------------------------------------------------------------------


def losing(count: int):
    """The first so many of the puzzles are answered with themselves, by the call that the gate counts."""
    lost = {row.tobytes() for row in PUZZLES.questions[:count]}

    def looped(tokens, limit, halt):
        answer, steps, q = toys.looped(tokens, limit, halt)
        chosen = np.array([row.tobytes() in lost for row in tokens])
        usual = (limit == toys.HALT_MAX_STEPS) & (halt == 0)
        return [np.where(chosen[:, None] & usual, tokens, answer), steps, q]

    return looped


def longer(n: int):
    return generate_puzzles(toys.TASK, n, seed=5)


def test_more_puzzles_are_asked_where_the_interval_holds_the_limit(judged):
    found = judged(toys.looped, more=longer)
    assert found.report.n == 4 * N == FP32.gate_puzzles  # no answer differs, and of N that says little
    found = judged(losing(1), more=longer)
    assert found.report.n > N
    assert len(found.puzzles) == len(found.reference.tokens) == len(found.bundle.tokens) == found.report.n
    assert found.puzzles.content_hash() == longer(found.report.n).content_hash()
    assert found.report.confidence == LOOK_CONFIDENCE


def test_a_large_drop_is_settled_at_once(judged):
    found = judged(losing(50), more=longer)
    assert found.report.n == N
    assert not found.report.passed
    assert found.report.settled


def test_the_last_look_says_what_it_leaves_open(judged):
    def no_more(n):
        raise InputError("too few")

    found = judged(losing(1), more=no_more)
    assert found.report.n == N
    assert any("not settled" in note for note in found.report.notes) == (not found.report.settled)
    full = judged(losing(1), more=longer).report
    assert full.settled or any("not settled" in note for note in full.notes)
    assert full.n <= 8 * N


def test_a_reference_that_solves_nothing_is_no_pass():
    tokens = np.repeat(PUZZLES.questions[:1], N, axis=0)
    useless = Answers(tokens, np.full(N, 3, np.int32), np.ones(N, bool), np.zeros((N, 2), np.float32))
    report = compare(useless, useless, PUZZLES, max_think_steps=8)
    assert not report.passed
    assert report.only_unjudged
    assert "solves none of these 100 puzzles" in report.reason
    assert "--not-judged" in report.reason
