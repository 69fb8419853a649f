"""Retries on symmetric variants: mapped back, counted, seeded, and never in the way of a right answer."""

import numpy as np
import pytest
import toys

from hrm_edge.errors import InputError
from hrm_edge.runtimes import HostLoop
from hrm_edge.solve.retries import solve_with_retries

PUZZLES = toys.puzzles(30)


def picky(first_digits: tuple[int, ...]) -> HostLoop:
    """Solves exactly those boards whose solution starts with one of these digits; says all 2s to others."""

    def start(tokens):
        answers = np.stack([toys.TASK.solve(row) for row in tokens])
        known = np.isin(answers[:, 0] - 1, first_digits)
        state = np.eye(toys.V, dtype=np.float32)[np.where(known[:, None], answers, 2)]
        return [state, state, state]

    def segment(z_H, z_L, e):
        return [z_H, z_L, e, np.tile(np.float32([1, 0]), (len(e), 1))]

    return HostLoop(toys.TASK, 4, start, segment, backend="picky")


# Boards with one solution: a variant's answer is then the variant of the answer.
UNIQUE = np.stack([row for row in PUZZLES if toys.TASK.count_solutions(row) == 1])


def test_without_retries_it_is_just_the_engine():
    result = solve_with_retries(toys.host_engine(), PUZZLES)
    plain = toys.host_engine().solve(PUZZLES)
    assert np.array_equal(result.answers.tokens, plain.tokens)
    assert np.array_equal(result.segments, plain.steps)
    assert np.array_equal(result.verified, toys.TASK.verify(PUZZLES, plain.tokens))
    assert not result.variant.any()


def test_what_a_variant_solves_is_mapped_back():
    engine = picky((1,))
    before = solve_with_retries(engine, UNIQUE)
    after = solve_with_retries(engine, UNIQUE, 30)
    assert not before.verified.all()
    assert after.verified.all()
    assert toys.TASK.verify(UNIQUE, after.answers.tokens).all()
    # One segment an attempt: as many segments as attempts, and the last attempt is the one that answered.
    assert np.array_equal(after.segments, after.variant + 1)
    assert (after.answers.steps == 1).all()


def test_verified_answers_are_never_replaced():
    engine = picky((1, 2))
    before = solve_with_retries(engine, UNIQUE)
    after = solve_with_retries(engine, UNIQUE, 5)
    kept = before.verified
    assert kept.any()
    assert np.array_equal(after.answers.tokens[kept], before.answers.tokens[kept])
    assert (after.variant[kept] == 0).all()
    assert (after.segments[kept] == before.segments[kept]).all()


def test_the_first_answer_stays_where_nothing_helps():
    result = solve_with_retries(picky(()), UNIQUE, 3)
    assert not result.verified.any()
    assert (result.answers.tokens == 2).all()
    assert (result.variant == 0).all()
    assert (result.segments == 4).all()


def test_rows_do_not_depend_on_each_other_and_seeds_repeat():
    engine = picky((3,))
    together = solve_with_retries(engine, UNIQUE, 4, seed=7)
    for row in range(len(UNIQUE)):
        alone = solve_with_retries(engine, UNIQUE[row : row + 1], 4, seed=7)
        assert alone.variant[0] == together.variant[row]
        assert np.array_equal(alone.answers.tokens[0], together.answers.tokens[row])
    variants = {tuple(solve_with_retries(engine, UNIQUE, 4, seed=seed).variant) for seed in range(5)}
    assert len(variants) > 1


def test_traces_of_different_attempts_become_one():
    result = solve_with_retries(toys.host_engine(), PUZZLES, 2, trace=True)
    trace = result.answers.trace
    assert trace.shape == (result.answers.steps.max(), 30, 16)
    assert np.array_equal(trace[-1], result.answers.tokens)
    picked = solve_with_retries(picky((1,)), UNIQUE, 20, trace=True)
    assert np.array_equal(picked.answers.trace[-1], picked.answers.tokens)


def test_arguments_reach_the_engine():
    result = solve_with_retries(toys.host_engine(), PUZZLES, 1, halt="fixed", max_think_steps=3)
    assert (result.answers.steps == 3).all()
    assert np.array_equal(result.segments, np.where(result.verified & (result.variant == 0), 3, 6))


def test_nothing_asked():
    result = solve_with_retries(toys.host_engine(), np.zeros((0, 16), np.int32), 3, trace=True)
    assert result.answers.trace.shape[1:] == (0, 16)


@pytest.mark.parametrize("retries", [-1, 1.5, True, "3", 10**6])
def test_retries_must_be_a_number(retries):
    with pytest.raises(InputError, match="retries must be"):
        solve_with_retries(toys.host_engine(), PUZZLES, retries)
