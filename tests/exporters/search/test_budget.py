"""Choosing by accuracy: scripted trials, so that what must be found is known beforehand."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import N, puzzle_set, trial
from small_networks import TASK

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import GateFailed
from hrm_edge.exporters.quantize.plan import Plan
from hrm_edge.exporters.search.budget import badness, best_recipe, describe, meet_budget, try_plan, within
from hrm_edge.exporters.search.decide import Quantizing, selection_puzzles
from hrm_edge.models.ranges import ESTIMATORS

PUZZLES = generate_puzzles(TASK, 8, 7)


class ScriptedPlan(Plan):
    """A plan whose segment tells what it was quantized to."""

    def apply(self, segment, target):
        assert (segment, target) == ("segment", "here")
        return self, []


class ScriptedTrials:
    """`lost(plan)` puzzles in every trial, none won; keeps what it was asked."""

    target = "here"
    puzzles = puzzle_set(8)
    longer = None

    def __init__(self, lost):
        self.lost, self.ran = lost, []

    def run(self, what, plan):
        self.ran.append((what, plan))
        return trial(what, self.lost(plan))


def sensitivities(order):
    """Layers from the most sensitive on, told in another order."""
    return tuple(trial(layer, lost=10 * (len(order) - i)) for i, layer in enumerate(order))[::-1]


NEVER = 1000


def budget(n, wide=NEVER, keep=NEVER, first=40):
    """Meet a budget that holds once the `wide` most sensitive of n layers are wide, or the `keep` ones in float."""
    order = [f"layer{i}" for i in range(n)]
    measured = []

    def measure():
        measured.append(1)
        return sensitivities(order)

    def lost(plan):
        return 0 if len(plan.wide) >= wide or len(plan.keep) >= keep else 90 - len(plan.wide) - len(plan.keep)

    trials = ScriptedTrials(lost)
    try:
        choice = meet_budget(ScriptedPlan("int8"), trial("all", first), "segment", trials, 0.5, measure, str)
    except GateFailed as error:
        return str(error), trials, measured, order
    return choice, trials, measured, order


NEEDED = st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


def in_few_trials(trials, kind, n, order):
    """No number of layers twice, far fewer trials than layers, always the most sensitive ones."""
    tried = [list(getattr(plan, kind)) for _, plan in trials.ran if getattr(plan, kind)]
    counts = [len(layers) for layers in tried]
    assert len(counts) == len(set(counts)) <= 2 * np.log2(n) + 3
    assert all(layers == order[: len(layers)] for layers in tried)


@given(NEEDED)
def test_the_fewest_layers_that_hold_get_more_bits(case):
    n, needed = case
    choice, trials, measured, order = budget(n, wide=needed)
    assert list(choice.plan.wide) == order[:needed]
    assert not choice.plan.keep
    assert choice.trial.lost == 0
    assert measured == [1]
    in_few_trials(trials, "wide", n, order)
    # All that was tried is told.
    assert {t.what for t in choice.budget} == {"all", *(what for what, _ in trials.ran)}
    assert choice.trial in choice.budget


@given(NEEDED)
def test_only_when_more_bits_do_not_help_the_fewest_layers_go_back_to_float(case):
    n, needed = case
    needed = min(needed, n - 1)
    choice, trials, measured, order = budget(n, keep=needed)
    assert list(choice.plan.keep) == order[:needed]
    assert measured == [1]
    assert max(len(plan.wide) for _, plan in trials.ran) == n  # all of them were wide before
    in_few_trials(trials, "wide", n, order)
    in_few_trials(trials, "keep", n, order)


def test_a_plan_that_holds_is_taken_without_looking_further():
    choice, trials, measured, _ = budget(8, first=0)
    assert choice.plan == ScriptedPlan("int8")
    assert (trials.ran, measured) == ([], [])


@pytest.mark.parametrize("lost", [1, 2, 5])
@pytest.mark.parametrize(("errors", "held"), [(-0.001, False), (1.001, True)])
def test_a_budget_is_never_exceeded_and_a_standard_error_of_room_is_enough(lost, errors, held):
    """The gate asks on other puzzles; how much room that is worth in between is for the search to say."""
    changes = np.array([1] * lost + [0] * (N - lost))
    max_drop = 100 * (changes.mean() + errors * changes.std() / np.sqrt(N))
    trials = ScriptedTrials(lambda plan: 0)
    made = meet_budget(
        ScriptedPlan("int8"), trial("all", lost), "segment", trials, max_drop, lambda: sensitivities("abc"), str
    )
    assert (made.plan == ScriptedPlan("int8")) == held


def test_a_plan_that_changes_many_answers_is_not_trusted_for_winning_as_many():
    """Of eleven that change sides some three more are lost than won on other puzzles, whatever was seen here."""
    assert not within(trial(lost=5, won=6), 0.5)
    assert within(trial(lost=1, won=1), 0.5)
    assert within(trial(), 0.0)


def looks(*lost_and_won):
    """What `try_plan` asks and decides by, where so many are lost and won of 1000, 2000 and 4000."""
    asked = []

    class Look:
        target = "here"

        def __init__(self, number):
            self.number = number
            self.longer = Look(number + 1) if number + 1 < len(lost_and_won) else None

        def run(self, what, plan):
            asked.append(1000 * 2**self.number)
            lost, won = lost_and_won[self.number]
            return dataclasses.replace(trial(what, lost, won), n=asked[-1])

    found = try_plan(ScriptedPlan("int8"), "all", "segment", Look(0), 0.5)
    assert found.n == asked[-1]
    return asked, within(found, 0.5)


@pytest.mark.parametrize(
    ("seen", "asked", "holds"),
    [
        ([(2, 6), (90, 0)], [1000], True),  # enough room at once
        ([(30, 2), (0, 0)], [1000], False),  # beyond it at once: 2.8 points, and at least 1.4
        ([(9, 3), (8, 9), (90, 0)], [1000, 2000], True),  # 0.6 of -0.2 to 1.4 points: nobody can tell
        ([(9, 3), (40, 2), (0, 0)], [1000, 2000], False),
        ([(9, 3), (18, 7), (40, 16), (0, 0)], [1000, 2000, 4000], False),  # and then what was measured decides
        ([(9, 3)], [1000], False),  # there are no more
    ],
)
def test_a_plan_is_asked_more_where_the_interval_holds_the_budget(seen, asked, holds):
    assert looks(*seen) == (asked, holds)


@pytest.mark.parametrize("data", [None, generate_puzzles(TASK, 40, 5)])
def test_more_puzzles_begin_with_what_fewer_are(data):
    source = SimpleNamespace(task=TASK, path=None, metadata={"held_out": {"seed": 3}})
    if data is not None:
        source.task = SimpleNamespace(generates=False)
    few, many = (selection_puzzles(source, None, PUZZLES, Quantizing(data=data), n) for n in (6, 12))
    assert 0 < len(few) < len(many)
    assert np.array_equal(many.questions[: len(few)], few.questions)


def test_near_the_budget_the_plan_that_changes_least_is_taken_before_any_float32():
    """One puzzle of 400 is 0.25 ± 0.25 points: a whole error of room is not there, half a one is."""
    lost = {1: 2, 2: 1, 3: 2, 4: 2}
    trials = ScriptedTrials(lambda plan: lost[len(plan.wide)])
    choice = meet_budget(
        ScriptedPlan("int8"), trial("all", 3), "segment", trials, 0.45, lambda: sensitivities("abcd"), str
    )
    assert (len(choice.plan.wide), choice.plan.keep) == (2, {})
    assert choice.trial in choice.budget


def test_a_model_that_changes_answers_at_any_rounding_is_left_to_the_gate():
    """Ten change whatever the layers get, but more are won than lost: the plan that changes fewest."""
    segments, said = {1: (5, 7), 2: (4, 6), 3: (4, 7)}, []

    class Edgy(ScriptedTrials):
        def run(self, what, plan):
            self.ran.append((what, plan))
            lost, won = segments.get(len(plan.wide), (6, 8))
            return trial(what, lost, won)

    choice = meet_budget(
        ScriptedPlan("int8"),
        trial("all", 6, 8),
        "segment",
        Edgy(None),
        0.5,
        lambda: sensitivities("abc"),
        said.append,
    )
    assert (len(choice.plan.wide), choice.plan.keep) == (2, {})
    assert not within(choice.trial, 0.5)
    assert "2 of 3 layers with 16-bit inputs goes to the gate" in said[-1]


@given(st.integers(1, 30))
def test_when_nothing_holds_the_best_is_named(n):
    message, trials, _, _ = budget(n, first=99)
    best, plan = min(trials.ran, key=lambda ran: trials.lost(ran[1]))
    assert f"the best, {best}, loses {100 * trials.lost(plan) / N:.2f}" in message
    assert f"{trials.lost(plan)} lost, 0 won of {N}" in message
    assert "\n" not in message
    for hint in ("--qat", "--max-drop", "--precision fp16"):
        assert hint in message
    # One layer at least stays quantized.
    assert max(len(plan.wide) for _, plan in trials.ran) == n
    assert max(len(plan.keep) for _, plan in trials.ran) == n - 1


def test_a_search_in_which_more_is_not_always_better_still_ends_within_budget():
    rng = np.random.default_rng(0)
    order = [f"layer{i}" for i in range(16)]
    ended = set()
    for _ in range(50):
        lost = {(k, w): int(rng.integers(0, 9)) for k in range(17) for w in range(17)}
        trials = ScriptedTrials(lambda plan, lost=lost: lost[len(plan.keep), len(plan.wide)])
        try:
            choice = meet_budget(
                ScriptedPlan("int8"), trial("all", 9), "segment", trials, 0.5, lambda: sensitivities(order), str
            )
        except GateFailed:
            ended.add("failed")
            assert all(trials.lost(plan) > 0 for _, plan in trials.ran)
            continue
        ended.add("found")
        assert choice.trial.drop_points <= 0.5
        assert choice.trial.lost == trials.lost(choice.plan)
    assert "found" in ended


@pytest.mark.parametrize("kind", ["wide", "keep"])
def test_layers_with_more_bits_say_what_they_cost_alone(kind):
    choice, _, _, order = budget(4, **{kind: 2})
    reasons = getattr(choice.plan, kind)
    assert list(reasons) == order[:2]
    for i, reason in enumerate(reasons.values()):
        assert f"loses {10 * (len(order) - i)} " in reason


def test_layers_that_lose_more_come_first_then_those_that_change_more_then_halting():
    order = [trial("a"), trial(lost=2, won=2), trial(lost=2, won=2, halt_agree=0.9), trial(lost=1), trial(lost=5)]
    assert sorted([order[i] for i in (3, 1, 4, 0, 2)], key=badness) == order


@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_random_states_are_never_chosen(rng, spread):
    """However well they do; what is chosen is the best of the others that were tried."""
    lost = {}

    def outcome(plan):
        recipe = plan.recipe
        return 0 if recipe.segments == "random" else lost.setdefault(recipe, 1 + rng.randint(0, spread))

    class Calibrator:
        segment = "segment"

        def plan(self, recipe):
            return ScriptedPlan("int8", recipe=recipe)

    trials = ScriptedTrials(outcome)
    recipe, tried = best_recipe(Calibrator(), trials, lambda line: None)
    assert recipe.segments != "random"
    assert lost[recipe] == min(lost.values())
    recipes = [plan.recipe for _, plan in trials.ran]
    assert len(recipes) == len(set(recipes)) == len(tried)  # nothing is tried twice
    assert any(r.segments == "random" for r in recipes)  # it is shown all the same
    assert {r.estimator for r in recipes} == set(ESTIMATORS)
    assert {r.smooth for r in recipes} >= {0.0, 0.5, 0.85}
    assert {r.segments for r in recipes} >= {"first", "middle", "last", "all", "stratified"}
    assert [t.what for t in tried] == [str(r) for r in recipes]


def test_halting_that_moved_is_worse_than_any_loss():
    """Who thinks longer may well solve more: that is another model, not a better calibrated one."""
    longer, shorter = (dataclasses.replace(trial(won=50), steps_mean=steps) for steps in (3.5, 2.5))
    lost = trial(lost=100)
    assert badness(lost) < badness(longer)
    assert badness(lost) < badness(shorter)


def test_one_line_for_who_waits():
    line = describe(trial("percentile", lost=3, won=1, halt_agree=0.975))
    assert line.startswith("percentile: 49.50 %")
    for part in ("3 lost", "1 won of 400", "97.5 %"):
        assert part in line
    assert "\n" not in line
