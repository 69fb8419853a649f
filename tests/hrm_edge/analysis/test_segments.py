"""Accuracy by segments and retries: one rollout has to give what `evaluate` finds when asked for each number."""

import functools
import hashlib
import warnings

import numpy as np
import pytest
from scripted import TASK, puzzle_set, spoiled

from hrm_edge.analysis.plots import segments_picture
from hrm_edge.analysis.segments import segment_rates
from hrm_edge.analysis.tables import card_table
from hrm_edge.errors import InputError
from hrm_edge.measure.accuracy import evaluate
from hrm_edge.runtimes import Answers, Engine
from hrm_edge.runtimes.engine import Request


@functools.cache
def solution(question: bytes) -> np.ndarray:
    answer = TASK.solve(np.frombuffer(question, np.int32))
    assert answer is not None
    return answer


class Moody(Engine):
    """Is right about a board, in whatever guise, from a segment on (or never) that depends on its very tokens."""

    def __init__(self, loop: str = "host", forgets: bool = False) -> None:
        super().__init__(TASK, 8, backend="moody")
        self.loop, self.forgets = loop, forgets
        self.segments_run = 0

    def guess(self, question: np.ndarray, step: int) -> np.ndarray:
        answer = solution(question.tobytes())
        right_from = hashlib.sha256(question.tobytes()).digest()[0] % 16
        right = 0 < right_from <= step and not (self.forgets and step > right_from + 1)
        return answer if right else spoiled(answer)

    def _solve(self, request: Request) -> Answers:
        steps = []
        for question in request.tokens:
            found = [k for k in range(1, request.max_think_steps + 1) if self._verifies(question, k)]
            steps.append(found[0] if found and request.halt == "verified" else request.max_think_steps)
        self.segments_run += sum(steps)
        tokens = [self.guess(q, k) for q, k in zip(request.tokens, steps, strict=True)]
        trace = [[self.guess(q, k + 1) for q in request.tokens] for k in range(request.max_think_steps)]
        rows = len(steps)
        return Answers(
            np.array(tokens, np.int32),
            np.array(steps, np.int32),
            np.zeros(rows, bool),
            np.zeros((rows, 2), np.float32),
            np.array(trace, np.int32) if request.trace else None,
        )

    def _verifies(self, question: np.ndarray, step: int) -> bool:
        return bool(TASK.verify(question[None], self.guess(question, step)[None])[0])


PUZZLES = puzzle_set(50, sources=["a"] * 20 + ["b"] * 30)


@pytest.mark.parametrize("loop", ["host", "graph"])
@pytest.mark.parametrize("forgets", [False, True])
def test_every_figure_is_what_evaluate_finds(loop: str, forgets: bool) -> None:
    engine = Moody(loop, forgets)
    found = segment_rates(engine, PUZZLES, segments=(1, 3, 6, 20), retries=3, seed=5)
    assert list(found.fixed) == ["a", "b", "all"]
    for k in (1, 3, 6, 20):
        plain = evaluate(engine, PUZZLES, max_think_steps=k, halt="fixed")
        again = evaluate(engine, PUZZLES, max_think_steps=k, halt="verified", retries=3, seed=5)
        for groups, expected in ((found.fixed, plain), (found.verified, again)):
            for source, score in {**expected.by_source, "all": expected.total}.items():
                rate = groups[source][k]
                assert (rate.exact, rate.n) == (score.exact, score.n)
                assert rate.segments_mean == pytest.approx(score.steps_mean)
    own = evaluate(engine, PUZZLES, halt="verified", retries=3, seed=5)
    assert found.by_retries["all"][3].exact == own.total.exact
    once = evaluate(engine, PUZZLES, halt="verified")
    assert found.by_retries["all"][0].exact == once.total.exact
    assert list(found.by_retries["all"]) == [0, 1, 2, 3]


def test_by_retries_counts_the_first_variants() -> None:
    found = segment_rates(Moody(), PUZZLES, segments=(1,), retries=4, seed=5).by_retries["all"]
    rng = np.random.default_rng(5)
    variants = [TASK.symmetries(rng, 1)[0] for _ in range(4)]
    engine = Moody()
    for r, rate in found.items():
        guises = [PUZZLES.questions, *(variant.apply(PUZZLES.questions) for variant in variants[:r])]
        solved = np.any([[engine._verifies(q, 8) for q in boards] for boards in guises], axis=0)
        assert rate.solved == solved.sum()
    assert found[2].solved > found[0].solved


def test_retries_only_run_what_can_still_change() -> None:
    engine = Moody()
    segment_rates(engine, PUZZLES, segments=(8,), retries=3)
    apart = Moody()
    evaluate(apart, PUZZLES, halt="verified", retries=3)
    first_pass = 8 * len(PUZZLES)  # with halting off, where the other stops once it verifies
    ended_early = first_pass - apart_first_pass()
    assert engine.segments_run == apart.segments_run + ended_early


def apart_first_pass() -> int:
    engine = Moody()
    evaluate(engine, PUZZLES, halt="verified")
    return engine.segments_run


def test_without_retries_nothing_is_retried_and_the_trace_costs_one_pass() -> None:
    engine = Moody()
    found = segment_rates(engine, PUZZLES, segments=(2, 1, 2))
    assert engine.segments_run == 2 * len(PUZZLES)
    assert list(found.fixed["all"]) == [1, 2]
    assert not found.verified
    assert not found.by_retries


def test_the_card_table_has_every_source_with_and_without_retries() -> None:
    found = segment_rates(Moody(), PUZZLES, name="m|n", segments=(1, 4), retries=2)
    table = card_table([found, found])
    assert len(table.rows) == 6
    assert table.head[3:] == ["1", "4", "1, 2 retries", "4, 2 retries"]
    assert table.rows[2][3] == f"{found.fixed['all'][1].exact:.1%}"
    assert table.rows[2][6] == f"{found.verified['all'][4].exact:.1%}"


@pytest.mark.parametrize("retries", [0, 2])
def test_the_picture_is_an_image_and_the_same_each_time(retries: int) -> None:
    found = segment_rates(Moody(), puzzle_set(20), segments=(1, 2, 16), retries=retries)
    assert segments_picture([found], "png").startswith(b"\x89PNG")
    svg = segments_picture([found, found], "svg")
    assert b"<svg" in svg
    assert svg == segments_picture([found, found], "svg")


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_names_that_a_picture_has_no_glyphs_for_are_written_out(kind: str) -> None:
    found = segment_rates(Moody(), puzzle_set(20, sources=["日本"] * 20), name="漢", segments=(1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's of a missing glyph
        drawn = segments_picture([found], kind)
    assert kind == "png" or b"\\u6f22" in drawn


@pytest.mark.parametrize(("segments", "retries"), [((), 0), ((0, 1), 0), ((1,), -1), ((1,), 2000)])
def test_numbers_that_make_no_sense_are_refused(segments: tuple[int, ...], retries: int) -> None:
    with pytest.raises(InputError, match="whole number"):
        segment_rates(Moody(), PUZZLES, segments=segments, retries=retries)
