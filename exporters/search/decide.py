"""From a checkpoint to a quantization plan: calibrate, compare, keep what must stay in float, and write it down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx

from ...bundle.quantization import Calibration, Products, Quantization, Trial
from ...data.choose import CALIBRATION_OFFSET, SELECTION_OFFSET, apart, first_of_all, generated_apart
from ...data.leaks import fingerprints, refuse_leak
from ...data.puzzles import PuzzleSet
from ...errors import InputError
from ...models import Checkpoint, quantization_of
from ...precision import PRECISIONS
from ...progress import Progress, Say
from ..graph.edit import all_graphs
from ..graph.layers import weights_of
from ..quantize.plan import Calibrator, Plan, Recipe
from .budget import Choice, best_recipe, describe, meet_budget, sensitivity, try_plan
from .trials import Trials

AUTO = "auto"  # calibration method: compare them all, and take the best
CALIBRATION_PUZZLES = 128
SELECTION_PUZZLES = 1000  # half a point is five of them; more are asked where these leave it open
SENSITIVITY_PUZZLES, _LEAST_SENSITIVITY = 128, 16
# Operations that trying each layer alone may take: minutes on two cores. Of the paper's size that is 30 puzzles.
_SENSITIVITY_WORK = 100e12


@dataclass(frozen=True)
class Quantizing:
    """What may be chosen about quantization.

    ``recipe``: how to calibrate, or None to compare. ``calibration``: puzzles to calibrate on; ``data``: where
    from (generated when None). ``sensitivity``: puzzles on which each layer is tried alone; 0: only when needed;
    None: 128, or fewer where that would take very long.
    ``max_drop``: points of exact-solve accuracy on the selection puzzles, or None to take the plan untried.
    """

    recipe: Recipe | None = field(default_factory=Recipe)
    calibration: int = CALIBRATION_PUZZLES
    data: PuzzleSet | None = None
    sensitivity: int | None = None
    max_drop: float | None = 0.5


@dataclass(frozen=True)
class Decision:
    """The plan, and everything it was decided by."""

    plan: Plan
    calibration: Calibration | None = None
    comparison: tuple[Trial, ...] = ()
    sensitivity: tuple[Trial, ...] = ()
    budget: tuple[Trial, ...] = ()
    trained: bool = False


def decide(
    checkpoint: Checkpoint,
    start: onnx.ModelProto,
    segment: onnx.ModelProto,
    precision: str,
    target: str,
    wanted: Quantizing,
    measured: PuzzleSet | None = None,
    calibration: PuzzleSet | None = None,
    threads: int | None = None,
    say: Say = lambda line: None,
    progress: Progress | None = None,
    calibrators: dict[str, Calibrator] | None = None,
) -> Decision:
    """How to quantize ``segment`` for ``target``; ``measured`` are the puzzles that the gate will use.

    ``calibrators``: what was collected for other targets or precisions of the same checkpoint, by puzzles.
    ``calibration``: what :func:`calibration_puzzles` gave, where it was asked before.
    GateFailed where no choice stays within ``wanted.max_drop``.
    """
    known = [name for name, record in PRECISIONS.items() if record.calibrated]
    if precision not in known:
        raise InputError(f"--precision {precision} is not a quantized one; choose {', '.join(known)}")
    puzzles = calibration or calibration_puzzles(checkpoint, wanted, measured)
    calibrator = calibrated(calibrators, checkpoint, segment, puzzles, progress)
    if not PRECISIONS[precision].quantizes_inputs:
        say(f"calibrating on {len(puzzles)} puzzles")
        plan = calibrator.weight_plan(precision)
        return Decision(plan, _described(plan, puzzles, "none: only weights are rounded"))
    trained = quantization_of(checkpoint)
    trials: Trials | None = None
    if wanted.max_drop is not None or wanted.recipe is None:
        chosen = selection_puzzles(checkpoint, measured, puzzles, wanted, SELECTION_PUZZLES)
        more = lambda n: selection_puzzles(checkpoint, measured, puzzles, wanted, n)  # noqa: E731
        trials = Trials(checkpoint, start, target, chosen, threads, progress, more)
    comparison: tuple[Trial, ...] = ()
    say(f"calibrating on {len(puzzles)} puzzles")
    if trained is not None:
        plan = calibrator.trained_plan(trained, precision)
    elif wanted.recipe is None:
        assert trials is not None
        recipe, comparison = best_recipe(calibrator, trials, say)
        plan = calibrator.plan(recipe, precision)
    else:
        plan = calibrator.plan(wanted.recipe, precision)
    choice, alone = _within_budget(plan, segment, trials, wanted, say)
    return Decision(
        plan=choice.plan,
        calibration=_described(plan, puzzles, "learned in training"),
        comparison=comparison,
        sensitivity=alone,
        budget=choice.budget or ((choice.trial,) if choice.trial else ()),
        trained=trained is not None,
    )


def _within_budget(
    plan: Plan, segment: onnx.ModelProto, trials: Trials | None, wanted: Quantizing, say: Say
) -> tuple[Choice, tuple[Trial, ...]]:
    """The plan with as many layers kept in float as it needs, and each layer's sensitivity."""
    if trials is None or wanted.max_drop is None:
        return Choice(plan, None), ()
    alone: tuple[Trial, ...] = ()

    def measure() -> tuple[Trial, ...]:
        nonlocal alone
        if not alone:
            few = trials.fewer(wanted.sensitivity or _affordable(segment, trials))
            alone = sensitivity(plan, segment, few, say)
        return alone

    if wanted.sensitivity != 0:
        measure()
    first = try_plan(plan, "every layer in int8", segment, trials, wanted.max_drop)
    say(f"  {describe(first)}")
    choice = meet_budget(plan, first, segment, trials, wanted.max_drop, measure, say)
    return choice, alone


def _affordable(segment: onnx.ModelProto, trials: Trials) -> int:
    """Puzzles on which every layer can be tried alone in some minutes, by the work that each takes."""
    of_one = len(weights_of(segment)) * trials.checkpoint.model.segment_flops * trials.reference.steps.mean()
    return int(min(SENSITIVITY_PUZZLES, max(_LEAST_SENSITIVITY, _SENSITIVITY_WORK / max(1, of_one))))


def record(
    decision: Decision,
    checkpoint: Checkpoint,
    segment: onnx.ModelProto,
    target: str,
    graphs: Iterable[onnx.ModelProto],
    float_graphs: Iterable[onnx.ModelProto],
    products: Products | None,
) -> Quantization:
    """The decision as the bundle tells of it. ``segment`` is the float one; ``graphs`` what was written."""
    plan = decision.plan
    return Quantization(
        precision=plan.precision,
        checkpoint=checkpoint.content_hash,
        weights_bytes=stored_bytes(graphs),
        float_weights_bytes=stored_bytes(float_graphs),
        layers=plan.layers(segment, target),
        sites=plan.sites(),
        calibration=decision.calibration,
        comparison=decision.comparison,
        sensitivity=decision.sensitivity,
        budget=decision.budget,
        products=products,
        trained=decision.trained,
    )


def stored_bytes(models: Iterable[onnx.ModelProto]) -> int:
    """Bytes of all tensors that the graphs store; int4 takes half a byte."""
    return sum(
        len(tensor.raw_data)
        for model in models
        for graph in all_graphs(model.graph)
        for tensor in graph.initializer
    )


def calibrated(
    known: dict[str, Calibrator] | None,
    checkpoint: Checkpoint,
    segment: onnx.ModelProto,
    puzzles: PuzzleSet,
    progress: Progress | None = None,
) -> Calibrator:
    """The calibrator of these puzzles: the one that is known, or a new one, which is known from then on."""
    key = puzzles.content_hash()
    if known is None or key not in known:
        made = Calibrator(checkpoint, segment, puzzles, progress)
        return made if known is None else known.setdefault(key, made)
    return known[key]


def calibration_puzzles(checkpoint: Checkpoint, wanted: Quantizing, measured: PuzzleSet | None) -> PuzzleSet:
    """Puzzles whose activations are looked at; never one that accuracy is measured on."""
    if wanted.data is not None:
        some = wanted.data.take(wanted.calibration, seed=0)
        if measured is not None:
            refuse_leak(fingerprints(some), measured, f"--calibration-data {wanted.data.name}")
        return some
    return generated_apart(checkpoint, wanted.calibration, CALIBRATION_OFFSET, [measured])


def selection_puzzles(
    checkpoint: Checkpoint,
    measured: PuzzleSet | None,
    calibration: PuzzleSet,
    wanted: Quantizing,
    n: int,
) -> PuzzleSet:
    """At most ``n`` puzzles that choices are compared on: neither calibrated on nor, later, measured on.

    Where none can be generated, others of the calibration data. More begin with what fewer are.
    """
    if not checkpoint.task.generates:
        assert wanted.data is not None  # calibration_puzzles refused that
        others = apart(wanted.data, [measured, calibration])
        return others.select(first_of_all(len(others), n))
    return generated_apart(checkpoint, n, SELECTION_OFFSET, [measured, calibration])


def _described(plan: Plan, puzzles: PuzzleSet, estimator: str) -> Calibration:
    """``estimator``: what to say where no recipe was followed."""
    recipe = plan.recipe
    return Calibration(
        puzzles=puzzles.name,
        n=len(puzzles),
        segments=recipe.segments if recipe else "stratified",
        estimator=recipe.estimator if recipe else estimator,
        smooth=recipe.smooth if recipe else 0.0,
        samples=plan.ranges.samples if plan.ranges else 0,
        fingerprints=fingerprints(puzzles),
    )
