"""The training loop: one segment on every slot, a loss, an update, and on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.choose import margin_puzzles
from ..data.puzzles import PuzzleSet
from ..errors import HrmEdgeError, InputError
from ..files import check_replaceable, owning, read_text, recover, require_utf8, write_atomically
from ..models import Checkpoint
from ..models.checkpoint import NUMBERING, WEIGHTS, require_replaceable, sketch_model
from ..models.network import Wrapped
from ..tasks import Task
from . import qat
from .config import MEASURING, TrainConfig, with_later_fields
from .cost import step_flops
from .data import Sampler, Source, numbering
from .distributed import World, leaving
from .first import Architecture, first_model, with_identifiers
from .halting import halting_margin
from .measure import (
    EVAL_SEGMENTS,
    accuracy,
    affordable,
    by_source,
    exact_by_segments,
    final_segments,
    seconds_each,
)
from .metrics import METRICS, Metrics, require_metrics
from .optim import Average
from .prepare import Measured, keep_sources, kept_sources, measured_on, require_sources, unseen
from .run import Run
from .slots import Slots
from .state import require_state
from .stopping import Stopping

# What a checkpoint tells of the run that made it, kept when another run starts from it.
STAGE = ("recipe", "sources", "steps", "train_seconds", "earlier")
DEFINITION = "task_definition"  # a recipe's hash of a task that no code here defines
# A resumed run may change how long it goes and how often it reports; anything else is another run.
CHANGEABLE = {"steps", "minutes", "log_every", "save_every", "eval_every", "eval_puzzles", "compile"}
CHANGEABLE |= {"final_puzzles", "checkpoint_dtype", "accumulate"}


class TrainingDiverged(HrmEdgeError):
    """The loss is no longer a number. The last good checkpoint is kept. Exit code 1."""

    exit_code = 1


def _same_run(folder: Path, recipe: dict[str, Any]) -> None:
    """Refuse to continue somebody else's run in this folder."""
    file = folder / "run.json"
    if file.exists():
        try:
            before = with_later_fields(json.loads(read_text(file)))
            pairs = [(s, k) for s in ("arch", "train") for k in recipe[s] if k not in CHANGEABLE]
            differs = [k for k in ("task", "data", "started_from") if before[k] != recipe[k]]
            differs += ["task.toml"] if before.get(DEFINITION) != recipe.get(DEFINITION) else []
            differs += [f"{s}.{k}" for s, k in pairs if before[s].get(k) != recipe[s][k]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{file}: cannot be read ({error}); choose another --output") from None
        if differs:
            raise InputError(
                f"{folder}: holds another run ({differs[0]} differs); choose another --output, or delete it"
            )


def _require_own(folder: Path, sources: int) -> None:
    """InputError where the run would write over what no run has written; puts right what a killed run left."""
    if (folder / WEIGHTS).exists():  # whoever named the folder later would get these, and not what was trained
        raise InputError(
            f"{folder}: is a checkpoint itself, which hides the one of a run in it; choose another --output"
        )
    kept = [f"data/source{index}.npz" for index in range(sources)]
    for name in ("checkpoint", "state", METRICS, "run.json", *kept):
        recover(folder / name)
    check_replaceable(folder / "checkpoint", require_replaceable)
    check_replaceable(folder / "state", require_state)
    require_metrics(folder / METRICS)
    if not (folder / "run.json").exists():
        require_sources(folder)


@leaving
def train(
    task: Task,
    arch: Architecture,
    config: TrainConfig,
    data: list[str],
    output: Path,
    device: str = "auto",
    test: Path | None = None,
    initial: Checkpoint | None = None,
) -> Path:
    """Train to the config's limits, resuming what ``output`` holds; returns the checkpoint folder.

    Args:
        arch: of a network of this family, or a NetworkSource, which names what makes another's.
        data: sources as :func:`trainer.data.read_source` takes them.
        test: puzzles to measure the finished checkpoint on, by their source, beside the held-out ones.
        initial: start from this checkpoint's weights instead of a fresh initialisation; layers that ``arch`` has
            beyond it start as if they were not there, embeddings of other puzzles than it knows anew.

    Raises:
        InputError: the data, configs or the folder's earlier run do not fit.
        TrainingDiverged: the loss became NaN or infinite; the last good checkpoint is kept.
    """
    require_utf8(output)
    qat.require_start(config, initial)
    with contextlib.ExitStack() as owned:
        return _train(World.join(device), owned, task, arch, config, data, output, test, initial)


def _train(
    world: World,
    owned: contextlib.ExitStack,
    task: Task,
    arch: Architecture,
    config: TrainConfig,
    data: list[str],
    output: Path,
    test: Path | None,
    initial: Checkpoint | None,
) -> Path:
    """:func:`train` in one process of those in ``world``; the first owns the folder until ``owned`` is left."""
    measured: Measured | None = None  # in the first process alone, which measures for all
    changed: list[str] = []
    with world.together():
        arch, other_puzzles = with_identifiers(arch, data, task, initial)
        if other_puzzles:
            qat.require_its_puzzles(config, data[0])
        parts = world.size * config.accumulate
        if config.batch_size % parts:
            raise InputError(
                f"train field batch_size is {config.batch_size}; it must be a multiple of {parts} "
                f"({world.size} processes, accumulate {config.accumulate})"
            )
        recipe = {
            "task": task.name,
            "arch": arch.to_dict(),
            "train": dataclasses.asdict(config),
            "data": data,
            "started_from": None if initial is None else initial.content_hash,
        }
        if task.definition is not None:
            recipe[DEFINITION] = task.definition.sha256
        if world.rank == 0:
            owned.enter_context(owning(output / "run", named=output))
            _require_own(output, len(data))
        _same_run(output, recipe)
        model = first_model(task, arch, config, data, initial, other_puzzles)
        if world.rank == 0:
            # Only now: what does not fit must not claim the folder for a run that never was.
            measured = measured_on(task, model.config.num_puzzle_identifiers, data, test)
            changed = keep_sources(output, task, data, measured)
            write_atomically(output / "run.json", json.dumps(recipe, indent=2) + "\n")
    with world.together():
        sources = kept_sources(output, task, data)
    model.to(world.device).train()
    sampler = Sampler(task, sources, config.augment)
    if config.qat != "off":
        model = qat.fake_quantized(model, config, sampler, world, resumes=(output / "state").exists())
    world.broadcast_model(model)
    run = Run(
        task,
        config,
        world,
        model,
        sampler,
        [Slots.empty(model, config.batch_size // world.size, world.device) for _ in range(config.interleave)],
        Average(model, config.ema_decay) if config.ema_decay else None,
    )
    resumed = run.restore(output / "state")
    if not resumed:
        run.fill()
    metrics = Metrics(output, run.step, quiet=world.rank != 0)
    _announce(run, sources, metrics)
    for argument in changed:
        metrics.say(f"--data {argument}: has changed since the run began, and is read anew")
    if initial is not None and other_puzzles and not resumed:
        metrics.say(f"{data[0]}: other puzzles than {initial.path} learned; their embeddings start anew")
    if resumed and config.progress(run.step, run.seconds) < 1:
        metrics.say(f"resuming at step {run.step}, after {run.seconds / 60:.1f} minutes")
    facts: dict[str, Any] = {"recipe": recipe, "sources": [f"{s.name} ({len(s.questions)})" for s in sources]}
    if (names := numbering(data, task)) is not None:
        facts[NUMBERING] = names
    if initial is not None:
        facts["earlier"] = {k: initial.metadata[k] for k in STAGE if k in initial.metadata}
    try:
        with Stopping() as stopping:
            _loop(run, output, metrics, measured, facts, stopping)
        if measured is not None:
            facts |= _final_figures(run, measured, sources, metrics, initial)
            run.publish(output / "checkpoint", facts, last=True)
    except KeyboardInterrupt:
        saved = (output / "state").exists()
        metrics.say("the same command goes on from the last save" if saved else "nothing had been saved yet")
        raise
    finally:
        metrics.close()
    return output / "checkpoint"


def _announce(run: Run, sources: list[Source], metrics: Metrics) -> None:
    config, world, model = run.config, run.world, run.model
    sketch = model if isinstance(model, Wrapped) else sketch_model(model.config, run.task)
    metrics.say(
        f"{run.task.name}: {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{sum(len(source.questions) for source in sources):,} puzzles, {world.size} x {world.device.type}, "
        f"{step_flops(sketch, config) / 1e9:,.3g} GFLOP a step"
        + (f", {config.steps} steps" if config.steps else "")
        + (f", {config.minutes:g} minutes" if config.minutes else "")
        + (" (already trained; measuring again)" if config.progress(run.step, run.seconds) >= 1 else "")
    )


def _final_figures(
    run: Run, measured: Measured, sources: list[Source], metrics: Metrics, initial: Checkpoint | None
) -> dict[str, Any]:
    """What the finished checkpoint's metadata tell of it: when it may halt, which is set here, and its accuracy."""
    task, config, figures = run.task, run.config, dict[str, Any]()
    tests = [_not_trained_on(puzzles, sources, metrics) for puzzles in measured.tests]
    sets, n = [measured.held_out, *tests], config.final_puzzles
    model = run.evaluated_model()
    each = seconds_each(model, measured.held_out, n)
    if config.minutes:
        margin = 0.5 * model.config.halt_max_steps / max(final_segments(model))
        times = len(by_source(sets, 1)) * (1 if config.qat == "off" else len(qat.MEASURED)) + margin
        n = affordable(n, 60 * config.minutes * MEASURING, each, times)
    if not run.model.config.learns_halting:
        metrics.say("the network has no halting head to calibrate")
    elif task.generates:
        calibration = margin_puzzles(task, n // 2)
        metrics.say(f"looking when {len(calibration)} other puzzles may halt")
        figures["halt_margin"] = run.halt_margin = halting_margin(run.evaluated_model(), calibration)
    else:
        metrics.say(f"{task.name} puzzles cannot be generated, so early halting is left as it was learned")
    puzzles = by_source(sets, n)
    for field, variant in qat.variants(run.evaluated_model(), initial).items():
        what = "" if config.qat == "off" else qat.MEASURED[field]
        figures[field] = accuracy(variant, puzzles, metrics, run.step, what, each)
    return figures


def _not_trained_on(puzzles: PuzzleSet, sources: list[Source], metrics: Metrics) -> PuzzleSet:
    """What may be measured on of ``puzzles``; says how many may not."""
    left = unseen(puzzles, sources)
    if len(left) < len(puzzles):
        metrics.say(
            f"{len(puzzles) - len(left)} of the {len(puzzles)} puzzles of {puzzles.name} were trained on before "
            "--test named them, and are not measured"
        )
    return left


def _loop(
    run: Run, output: Path, metrics: Metrics, measured: Measured | None, facts: dict[str, Any], stopping: Stopping
) -> None:
    """Steps until a limit is reached or somebody asks to stop; logs, evaluates and saves on the way."""
    config, world = run.config, run.world
    window: list[Tensor] = []
    before = time.monotonic()
    saved_at = run.step or -1  # a resumed run starts from a save
    done = config.progress(run.step, run.seconds)
    measured_at, figures = -1, dict[str, Any]()  # what the weights of that step answered

    def save() -> None:
        nonlocal saved_at
        if saved_at != run.step:
            if world.rank == 0:
                run.publish(output / "checkpoint", facts | (figures if measured_at == run.step else {}))
            run.save(output / "state")
            saved_at = run.step

    while done < 1:
        window.append(run.train_step())
        now = time.monotonic()
        # All ranks take the slowest one's clock and the first one's wish, so that they stop at the same step.
        seconds, wish = world.largest(now - before, stopping.asked)
        run.seconds += seconds
        before = now  # measuring and saving count as part of the next step
        done = config.progress(run.step, run.seconds)
        last = done >= 1 or wish > 0
        if not last and all(run.step % every for every in (config.log_every, config.save_every, config.eval_every)):
            continue
        means = world.mean(torch.stack(window).double().mean(0))
        if not math.isfinite(float(means[0])):
            raise TrainingDiverged(
                f"{output}: the loss became {float(means[0])} by step {run.step}; "
                + (f"the last good checkpoint (step {saved_at}) is kept" if saved_at >= 0 else "none was saved yet")
                + "; try a lower train.lr"
            )
        if last or run.step % config.log_every == 0:
            names = ("loss", "token_loss", "halt_loss", "exact", "token", "segments")
            row: dict[str, Any] = {"step": run.step, **dict(zip(names, map(float, means), strict=True))}
            row |= {"lr": run.optimizers[0].param_groups[0]["lr"], "seconds": round(run.seconds, 1)}
            metrics.write(row, done)
            window.clear()
        if run.step % config.eval_every == 0 and measured is not None:
            model = run.evaluated_model()
            puzzles = measured.held_out.take(config.eval_puzzles, 0)
            exact = exact_by_segments(model, puzzles, EVAL_SEGMENTS)
            field = "accuracy" if config.qat == "off" else qat.QUANTIZED
            figures = {field: {puzzles.sources[0]: {"n": len(puzzles), "exact_by_segments": exact}}}
            measured_at = run.step
            metrics.write({"step": run.step, "exact_by_segments": exact}, done)
        if last or run.step % config.save_every == 0:
            save()
        if wish:
            metrics.say(f"stopped and saved at step {run.step}; the same command goes on from there")
            raise SystemExit(128 + int(wish))
