"""What to quantize and how, chosen by accuracy after re-rolling: calibration, sensitivity, mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx

from ...bundle.quantization import Trial
from ...errors import GateFailed
from ...measure.statistics import CONFIDENCE, drop_interval
from ...models.ranges import ESTIMATORS
from ...progress import Say
from ..graph.layers import weights_of
from ..quantize.plan import Calibrator, Plan, Recipe
from .trials import Trials

_SAMPLINGS = ("stratified", "all", "first", "middle", "last", "random")
_STRENGTHS = (0.0, 0.5, 0.7, 0.85)
_HALT_SHIFT = 0.02  # of the mean number of segments
# Standard errors of the drop that a budget is kept with, as the gate will ask about other puzzles: what is looked
# for, and what is taken when no number of layers with more bits gives that.
_ROOM, _LEAST_ROOM = 0.75, 0.5
LOOKS = 3  # at a plan, each at twice as many puzzles as the one before
LOOK_CONFIDENCE = 1 - (1 - CONFIDENCE) / LOOKS  # so that together they err no more often than one (Bonferroni)
# Of the puzzles that change sides, this part more is lost than won: 120 against 70 over eight plans of the shipped
# model. A plan that happened to win as many as it lost (10 and 13 of 1000) lost 16 and won 6 of the gate's.
_LOST_ON_AVERAGE = 0.25


@dataclass(frozen=True)
class Choice:
    """A plan that was measured, and every trial on the way to it."""

    plan: Plan
    trial: Trial | None
    budget: tuple[Trial, ...] = ()


def try_plan(
    plan: Plan, what: str, segment: onnx.ModelProto, trials: Trials, max_drop: float | None = None
) -> Trial:
    """One plan's answers, compared with the float model's.

    With a ``max_drop`` chance does not decide: a plan that does not hold it, but whose drop's interval does not
    exclude it either, is asked twice as many puzzles, and twice as many again.
    """
    graph = plan.apply(segment, trials.target)[0]
    trial, asked = trials.run(what, graph), trials
    for _ in range(LOOKS - 1):
        if max_drop is None or not is_open(trial, max_drop) or (longer := asked.longer) is None:
            break
        asked = longer
        trial = asked.run(what, graph)
    return trial


def is_open(trial: Trial, max_drop: float) -> bool:
    """Whether a plan neither holds the budget nor is shown to break it."""
    low, high = drop_interval(trial.lost, trial.won, trial.n, LOOK_CONFIDENCE)
    return not within(trial, max_drop) and low <= max_drop <= high


def best_recipe(calibrator: Calibrator, trials: Trials, say: Say) -> tuple[Recipe, tuple[Trial, ...]]:
    """Compare calibration choices: every smoothing, then every estimator, then every sampling.

    Each round keeps the best so far. Not every combination: rounds of one factor each cost a fraction of it and
    show what each choice is worth.
    """
    tried: dict[Recipe, Trial] = {}

    def attempt(recipe: Recipe) -> None:
        if recipe not in tried:
            tried[recipe] = try_plan(calibrator.plan(recipe), str(recipe), calibrator.segment, trials)
            say(f"  {describe(tried[recipe])}")

    def best() -> Recipe:
        # Random states are there to be compared: no product should rest on their luck.
        honest = (recipe for recipe in tried if recipe.segments != "random")
        return min(honest, key=lambda recipe: badness(tried[recipe]))

    say(f"comparing calibration choices on {len(trials.puzzles)} puzzles, each answered from beginning to end")
    attempt(Recipe("minmax", smooth=0.0))  # what quantizers do unless told otherwise
    for strength in _STRENGTHS:
        attempt(Recipe(smooth=strength))
    for estimator in ESTIMATORS:
        attempt(replace(best(), estimator=estimator))
    for segments in _SAMPLINGS:
        attempt(replace(best(), segments=segments))
    return best(), tuple(tried.values())


def badness(trial: Trial) -> tuple[bool, float, float, float]:
    """For ordering: halting that moved, points lost, puzzles that changed either way, halting that disagrees.

    Who halts later may well solve more; that is another model, not a better calibrated one.
    """
    shift = trial.steps_mean / trial.float_steps_mean - 1
    return abs(shift) > _HALT_SHIFT, trial.drop_points, _changed(trial), 1 - trial.halt_agree


def _changed(trial: Trial) -> float:
    """The part of the puzzles that changed sides: plans may have been asked different numbers of them."""
    return (trial.lost + trial.won) / trial.n


def describe(trial: Trial) -> str:
    """One line for a person who waits."""
    return (
        f"{trial.what}: {100 * trial.exact:.2f} % ({trial.lost} lost, {trial.won} won of {trial.n}), "
        f"{trial.float_steps_mean:.2f} → {trial.steps_mean:.2f} segments, "
        f"halting agrees on {100 * trial.halt_agree:.1f} %"
    )


def sensitivity(plan: Plan, segment: onnx.ModelProto, trials: Trials, say: Say) -> tuple[Trial, ...]:
    """Each layer quantized alone, all others in float: what it costs by itself after re-rolling."""
    layers = list(weights_of(segment))
    say(f"sensitivity of {len(layers)} layers, each quantized alone, on {len(trials.puzzles)} puzzles")
    found = []
    for number, layer in enumerate(layers, 1):
        others = {name: "float, to see one layer alone" for name in layers if name != layer}
        found.append(try_plan(plan.keeping(others), layer, segment, trials))
        if trials.progress is not None:
            trials.progress("layers, each quantized alone", number, len(layers))
    return tuple(found)


def meet_budget(
    plan: Plan,
    first: Trial,
    segment: onnx.ModelProto,
    trials: Trials,
    max_drop: float,
    measure: Callable[[], tuple[Trial, ...]],
    say: Say,
) -> Choice:
    """Give the most sensitive layers more bits, as few layers as it takes for the drop to stay in the budget.

    First 16 bits for their inputs, in two int8 products; only when even that is not enough for all layers, float32.
    ``first``: the plan's own trial; ``measure`` gives the sensitivities when they are needed. GateFailed, naming
    the best that was reached, where everything lost more, even with one quantized layer.
    """
    if within(first, max_drop):
        return Choice(plan, first)
    say(
        f"{first.drop_points:.2f} ± {first.drop_error:.2f} points lost, {max_drop:g} allowed: "
        "looking for the layers that need more bits"
    )
    order = sorted(measure(), key=badness, reverse=True)
    made = [(plan, first)]
    for bits, apply in (("16-bit inputs", Plan.widening), ("float32", Plan.keeping)):

        def attempt(count: int, bits: str = bits, apply: Callable[..., Plan] = apply) -> tuple[Plan, Trial]:
            more = apply(plan, {trial.what: f"{bits}: {_why(trial)}" for trial in order[:count]})
            trial = try_plan(more, f"{count} of {len(order)} layers with {bits}", segment, trials, max_drop)
            say(f"  {describe(trial)}")
            made.append((more, trial))
            return more, trial

        # With every layer in float32 nothing would be left to quantize.
        chosen = _fewest(len(order) - (bits == "float32"), attempt, max_drop) or _best_with_less_room(
            made, max_drop
        )
        if chosen is not None:
            return Choice(*chosen, budget=tuple(trial for _, trial in made))
    chosen = _measured_within(made, max_drop)
    if chosen is not None:
        say(f"  every mix changes many answers, about as many won as lost: {chosen[1].what} goes to the gate")
        return Choice(*chosen, budget=tuple(trial for _, trial in made))
    best = min((trial for _, trial in made), key=badness)
    raise GateFailed(
        f"no mix of int8, 16-bit inputs and float32 loses at most {max_drop:g} points: the best, {best.what}, "
        f"loses {best.drop_points:.2f} ± {best.drop_error:.2f} ({best.lost} lost, {best.won} won of {best.n}); "
        "tune the checkpoint with `hrm-edge train --qat --from CHECKPOINT`, allow more with --max-drop, or "
        "export --precision fp16"
    )


def within(trial: Trial, max_drop: float, room: float = _ROOM) -> bool:
    """Whether the drop stays in the budget with so many standard errors of room; luck is not believed."""
    usual = _LOST_ON_AVERAGE * 100 * _changed(trial)
    return max(trial.drop_points, usual) + room * trial.drop_error <= max_drop


def _best_with_less_room(made: list[tuple[Plan, Trial]], max_drop: float) -> tuple[Plan, Trial] | None:
    """What changes answers least of all that would probably pass: more bits than it takes, but no float32."""
    likely = [each for each in made if within(each[1], max_drop, _LEAST_ROOM)]
    return min(likely, key=lambda each: _changed(each[1]), default=None)


def _measured_within(made: list[tuple[Plan, Trial]], max_drop: float) -> tuple[Plan, Trial] | None:
    """What changes fewest answers of all that kept the budget here, be it by luck.

    A model with many puzzles on the edge changes answers at the least rounding, so that no number of layers with
    more bits changes few. The gate asks about other puzzles: it refuses what was luck, and there is nothing better.
    """
    kept = [each for each in made if each[1].drop_points + _ROOM * each[1].drop_error <= max_drop]
    return min(kept, key=lambda each: (badness(each[1])[0], _changed(each[1])), default=None)


def _fewest(most: int, attempt: Callable[[int], tuple[Plan, Trial]], max_drop: float) -> tuple[Plan, Trial] | None:
    """The smallest count from 1 to ``most`` whose trial holds: doubled until one does, then the gap halved."""
    low, high, best = 0, 1, None
    while best is None and low < most:
        high = min(high, most)
        made = attempt(high)
        if within(made[1], max_drop):
            best = made
        else:
            low, high = high, 2 * high
    while best is not None and high - low > 1:
        middle = (low + high) // 2
        made = attempt(middle)
        if within(made[1], max_drop):
            high, best = middle, made
        else:
            low = middle
    return best


def _why(trial: Trial) -> str:
    return (
        f"quantized alone it loses {trial.lost} and wins {trial.won} of {trial.n} puzzles, "
        f"halting agrees on {100 * trial.halt_agree:.1f} %"
    )
