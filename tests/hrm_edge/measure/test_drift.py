"""Drift against figures counted by hand: networks whose states and logits are known after every segment."""

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
import toys

from hrm_edge.data.puzzles import PuzzleSet
from hrm_edge.measure import drift
from hrm_edge.measure.drift import SegmentNetwork, rightness_of, roll_out

S, D, V = 4, 6, 5


def script(guesses=None, *, grow=1.0, turn=False, shift=0.0, halts_at=99, logits=None):
    """A network that forgets nothing: z_H is multiplied by `grow` every segment, the guesses are as told.

    `guesses`: {(puzzle, segment): tokens[S]}, else all cells are 0. A puzzle's number is its first token.
    `turn` puts z_L at a right angle to where it starts elsewhere. z_L[:, 0, 0] counts segments.
    """

    def start(tokens):
        e = np.zeros((len(tokens), S, D), np.float32)
        e[:, 0, 0] = tokens[:, 0]
        z_L = np.zeros_like(e)
        z_L[..., 2 if turn else 1] = 3
        return e, np.ones_like(e), z_L

    steps = {}

    def segment(z_H, z_L, e):
        scores = np.zeros((len(e), S, V), np.float32)
        for row, puzzle in enumerate(e[:, 0, 0].astype(int)):
            steps[puzzle] = steps.get(puzzle, 0) + 1
            tokens = (guesses or {}).get((puzzle, steps[puzzle]), [0] * S)
            scores[row] = np.eye(V)[tokens] * (1.0 if logits is None else logits)
        q = np.array([[steps[int(p)] - halts_at + 0.5, 0] for p in e[:, 0, 0]], np.float32)
        return z_H * np.float32(grow), z_L, scores + np.float32(shift), q

    return SegmentNetwork(start, segment)


def figures(row):
    """Every number of a row but what was judged, states one after the other."""
    states = [value for state in row.states for value in (state.cosine, state.cosine_low, state.error)]
    return [*states, row.logit_rmse, row.cells_differ, row.puzzles_differ, row.halt_agree]


def questions(n):
    return np.repeat(np.arange(n, dtype=np.int32)[:, None], S, axis=1)


def measure_drift(*networks_tokens_and_segments, **options):
    return roll_out(*networks_tokens_and_segments, **options).segments


def toy():
    return SegmentNetwork(toys.start, toys.segment)


def test_a_network_does_not_drift_from_itself():
    found = roll_out(toy(), toy(), toys.puzzles(20), 5)
    assert found.differences == []
    for number, row in enumerate(found.segments, 1):
        assert (row.segment, row.n) == (number, 20)
        assert (row.state("z_H").cosine, row.state("z_H").cosine_low, row.state("z_H").error) == (1, 1, 0)
        assert (row.state("z_L").cosine, row.state("z_L").cosine_low, row.state("z_L").error) == (1, 1, 0)
        assert (row.logit_rmse, row.cells_differ, row.puzzles_differ, row.halt_agree) == (0, 0, 0, 1)


def test_each_goes_on_from_its_own_states():
    """10 % too much a segment is 10, 21, 33.1 % after three: it would stay 10 % if states were handed over."""
    rows = measure_drift(script(), script(grow=1.1), questions(3), 3)
    assert [row.state("z_H").error for row in rows] == pytest.approx([0.1, 0.21, 0.331], rel=1e-5)
    assert [row.state("z_H").cosine for row in rows] == pytest.approx([1, 1, 1])


def test_states_at_a_right_angle():
    row = measure_drift(script(), script(turn=True), questions(2), 1)[0]
    assert row.state("z_L").cosine == row.state("z_L").cosine_low == 0
    assert row.state("z_L").error == pytest.approx(math.sqrt(2))
    assert row.state("z_H").error == 0


def test_the_low_end_of_the_cosines_is_that_of_the_tokens():
    """One token in ten turned round: the mean is 0.8, and the lowest 5 % are at −1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 10, D)).astype(np.float32)
    y = x.copy()
    y[:, 3] *= -1

    def fixed(state):
        return SegmentNetwork(
            lambda t: (state, state, state), lambda h, low, e: (h, low, np.zeros((10, 10, V)), np.zeros((10, 2)))
        )

    row = measure_drift(fixed(x), fixed(y), np.zeros((10, 10), np.int32), 1)[0]
    assert row.state("z_H").cosine == pytest.approx(0.8)
    assert row.state("z_H").cosine_low == pytest.approx(-1)
    assert row.state("z_H").error == pytest.approx(2 * np.linalg.norm(x[:, 3]) / np.linalg.norm(x), rel=1e-6)


def test_logits_and_guesses():
    other = script({(0, 1): [0, 1, 0, 1], (1, 2): [2, 0, 0, 0]}, shift=0.25)
    first, second, third = measure_drift(script(), other, questions(4), 3)
    # Of 4 × 4 × 5 logits, two cells have their 1 elsewhere, and all are 0.25 up.
    errors = [1.25**2, 0.75**2] * 2 + [0.25**2] * 76
    assert first.logit_rmse == pytest.approx(math.sqrt(sum(errors) / 80), rel=1e-6)
    assert (first.cells_differ, first.puzzles_differ) == (2 / 16, 1 / 4)
    assert (second.cells_differ, second.puzzles_differ) == (1 / 16, 1 / 4)
    assert (third.cells_differ, third.logit_rmse) == (0, 0.25)


def test_halting_heads_that_disagree_for_a_while():
    rows = measure_drift(script(halts_at=2), script(halts_at=4), questions(3), 5)
    assert [row.halt_agree for row in rows] == [1, 0, 0, 1, 1]


@pytest.mark.parametrize(("no_ACT_continue", "agree"), [(True, 1.0), (False, 0.0)])
def test_the_halting_rule_is_the_models(no_ACT_continue, agree):
    """q = (1, 2) against (1, 0): both above 0, but only one above its own second value."""

    def saying(q):
        net = script()
        return SegmentNetwork(
            net.start, lambda *s: [*net.segment(*s)[:3], np.array([q] * len(s[0]), np.float32)], no_ACT_continue
        )

    row = measure_drift(saying([1, 2]), saying([1, 0]), questions(2), 1)[0]
    assert row.halt_agree == agree


def test_where_answers_came_apart():
    """Puzzle 1 goes another way at segment 2 and stays there; 2 only for a moment; 3 only after both stopped."""
    wrong = [4, 0, 4, 0]
    guesses = {(1, k): wrong for k in (2, 3, 4)} | {(2, 1): wrong, (3, 4): wrong}
    found = roll_out(script(halts_at=3, logits=0.5), script(guesses, halts_at=3), questions(4), 4)
    assert [dataclasses.astuple(each) for each in found.differences] == [(1, 2, 2, 0.5, 3, 3)]


def test_puzzles_chosen_because_they_differ_do_not_count():
    guesses = {(k, 1): [1] * S for k in (5, 6)}
    found = roll_out(script(), script(guesses), questions(7), 1, counted=5)
    assert (found.segments[0].n, found.segments[0].puzzles_differ) == (5, 0)
    assert [each.puzzle for each in found.differences] == [5, 6]
    assert roll_out(script(), script(guesses), questions(7), 1).segments[0].puzzles_differ == 2 / 7


def test_the_margin_is_the_smallest_of_the_differing_cells():
    def unsure(guess):
        scores = np.zeros((S, V), np.float32)
        scores[:, 0], scores[:, 1] = [3, 2, 1, 5], [2.5, 0, 0.25, 4]
        scores[[0, 2], guess] += 9 if guess else 0
        net = script()
        return SegmentNetwork(
            net.start, lambda *s: [s[0], s[1], np.repeat(scores[None], len(s[0]), 0), np.zeros((len(s[0]), 2))]
        )

    found = roll_out(unsure(0), unsure(1), questions(1), 1)
    assert (found.differences[0].cells, found.differences[0].margin) == (2, 0.5)


def test_stopping_at_another_segment_can_be_all():
    """What the guesses do after both have stopped explains nothing."""
    both = {(0, 1): [1] * S, (0, 2): [2] * S}
    late = script(both | {(0, 3): [3] * S}, halts_at=2)
    (found,) = roll_out(script(both, halts_at=1), late, questions(1), 3).differences
    assert (found.segment, found.margin, found.reference_steps, found.candidate_steps) == (None, None, 1, 2)


def test_exact_accuracy_of_both():
    labels = toys.TASK.generate(12, np.random.default_rng(0))[1]
    puzzles = PuzzleSet(
        toys.TASK, toys.puzzles(12), toys.TASK.generate(12, np.random.default_rng(0))[1], ["x"] * 12, "x"
    )
    assert np.array_equal(labels, puzzles.answers)
    rows = measure_drift(toy(), toy(), puzzles.questions, 6, right=rightness_of(puzzles))
    engine = toys.host_engine()
    for row in rows:
        answers = engine.solve(puzzles.questions, max_think_steps=row.segment, halt="fixed").tokens
        expected = toys.TASK.verify(puzzles.questions, answers).mean()
        assert row.reference_exact == row.candidate_exact == expected
    assert rows[0].reference_exact < rows[-1].reference_exact
    assert measure_drift(toy(), toy(), puzzles.questions, 1)[0].reference_exact is None


def test_chunks_and_fixed_batches_change_nothing(monkeypatch):
    tokens = toys.puzzles(13)
    calls = []

    def noisy(z_H, z_L, e):
        calls.append(len(e))
        known, thought, logits, q = toys.segment(z_H, z_L, e)
        return [known, thought * np.float32(1.01), logits + known.sum(axis=(1, 2), keepdims=True), q]

    expected = roll_out(toy(), SegmentNetwork(toys.start, noisy), tokens, 3)
    monkeypatch.setattr(drift, "ROWS", 4)
    again = roll_out(toy(), SegmentNetwork(toys.start, noisy), tokens, 3)
    calls.clear()
    padded = roll_out(toy(), SegmentNetwork(toys.start, noisy, batch=3), tokens, 3)
    assert set(calls) == {3}
    for row, other, third in zip(expected.segments, again.segments, padded.segments, strict=True):
        assert figures(other) == pytest.approx(figures(row), rel=1e-6)
        assert third == other


def test_states_that_overflow_are_reported_not_hidden():
    row = measure_drift(script(), script(grow=math.inf), questions(2), 1)[0]
    assert not math.isfinite(row.state("z_H").error)


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="nothing to compare: 0 puzzles"):
        measure_drift(toy(), toy(), toys.puzzles(0), 2)
    with pytest.raises(ValueError, match="0 segments"):
        measure_drift(toy(), toy(), toys.puzzles(2), 0)


def test_progress_counts_puzzles(monkeypatch):
    monkeypatch.setattr(drift, "ROWS", 4)
    seen = []
    measure_drift(toy(), toy(), toys.puzzles(10), 2, progress=lambda what, done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_memory_does_not_grow_with_the_puzzles():
    def wide(tokens):
        return [np.ones((len(tokens), 64, 128), np.float32)] * 3  # 32 kB a puzzle and state

    network = SegmentNetwork(wide, lambda h, low, e: [h * 1, low * 1, h[..., :4], h[:, 0, :2]])
    tracemalloc.start()
    roll_out(network, network, np.zeros((400, 64), np.int32), 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # all states of one segment at once would be 26 MB a side


def test_the_reference_is_the_checkpoint():
    small = pytest.importorskip("small_networks")
    from hrm_edge.measure.reference import reference_segments
    from hrm_edge.models.engine import TorchEngine

    checkpoint = small.checkpoint()
    tokens = small.TASK.generate(5, np.random.default_rng(3))[0]
    network = reference_segments(checkpoint)
    trace = TorchEngine(checkpoint).solve(tokens, max_think_steps=4, halt="fixed", trace=True).trace
    e, z_H, z_L = network.start(tokens)
    for guess in trace:
        z_H, z_L, logits, q = network.segment(z_H, z_L, e)
        assert np.array_equal(logits.argmax(-1), guess)
    assert logits.dtype == q.dtype == z_H.dtype == np.float32
    assert network.no_ACT_continue is checkpoint.config.no_ACT_continue
    assert measure_drift(network, network, tokens, 2)[-1].state("z_L").error == 0
