"""The training loop: one segment on every slot, a loss, an update, and on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HrmEdgeError, InputError
from ..files import write_atomically
from ..models import Checkpoint, HRMConfig, build_model
from ..models.checkpoint import load_weights
from ..models.grow import with_added_blocks
from ..puzzles import PuzzleSet, generate_puzzles, load_puzzles
from ..tasks import Task
from . import qat
from .config import TrainConfig, with_later_fields
from .cost import step_flops
from .data import (
    CALIBRATION_SEED,
    HELD_OUT_PUZZLES,
    HELD_OUT_SEED,
    Sampler,
    Source,
    identifiers_needed,
    read_source,
    require_one_numbering,
    split_folder,
)
from .distributed import World
from .halting import halting_margin
from .measure import EVAL_SEGMENTS, accuracy, by_source, exact_by_segments
from .metrics import Metrics
from .optim import Average
from .run import Run
from .slots import Slots
from .stopping import Stopping

# What a checkpoint tells of the run that made it, kept when another run starts from it.
STAGE = ("recipe", "sources", "steps", "train_seconds", "earlier")
# A resumed run may change how long it goes and how often it reports; anything else is another run.
CHANGEABLE = {"steps", "minutes", "log_every", "save_every", "eval_every", "eval_puzzles", "compile"}
CHANGEABLE |= {"final_puzzles", "checkpoint_dtype", "accumulate"}


class TrainingDiverged(HrmEdgeError):
    """The loss is no longer a number. The last good checkpoint is kept. Exit code 1."""

    exit_code = 1


def _same_run(folder: Path, recipe: dict[str, Any], world: World) -> None:
    """Refuse to continue somebody else's run in this folder."""
    file = folder / "run.json"
    if file.exists():
        try:
            before = with_later_fields(json.loads(file.read_text()))
            pairs = [(s, k) for s in ("arch", "train") for k in recipe[s] if k not in CHANGEABLE]
            differs = [f"{s}.{k}" for s, k in pairs if before[s].get(k) != recipe[s][k]]
            differs += [k for k in ("task", "data", "started_from") if before[k] != recipe[k]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: cannot be read ({error}); choose another --output") from None
        if differs:
            raise InputError(
                f"{folder}: holds another run ({differs[0]} differs); choose another --output, or delete it"
            )


def _with_identifiers(arch: HRMConfig, data: list[str], task: Task) -> HRMConfig:
    """The architecture with as many puzzle embeddings as the data name puzzles."""
    needed = identifiers_needed(data, task)
    if needed > 1 and arch.num_puzzle_identifiers == 1:
        return dataclasses.replace(arch, num_puzzle_identifiers=needed)
    if needed > arch.num_puzzle_identifiers:
        raise InputError(
            f"the data name {needed} puzzles, but arch.num_puzzle_identifiers is {arch.num_puzzle_identifiers}"
        )
    return arch


def _measured_on(
    task: Task, arch: HRMConfig, data: list[str], test: Path | None
) -> tuple[PuzzleSet, list[PuzzleSet]]:
    """The held-out puzzles, and others to measure the finished model on beside them.

    Without rules nothing can be generated: then the test puzzles are the held-out ones.
    """
    if task.has_rules:
        held_out = generate_puzzles(task, HELD_OUT_PUZZLES, HELD_OUT_SEED)
        return held_out, [] if test is None else [load_puzzles(test, task)]
    first = Path(data[0].partition("@")[0])
    places = [first / "test", first.parent / "test"] if test is None else [split_folder(str(test), "test")]
    folder = next((place for place in places if place.exists()), None)
    if folder is None:
        raise InputError(f"--test: {task.name} puzzles cannot be generated; name the set's test folder")
    held_out = load_puzzles(folder, task)
    most = 0 if held_out.identifiers is None else int(held_out.identifiers.max())
    if most >= arch.num_puzzle_identifiers:
        raise InputError(
            f"--test {folder}: names puzzle {most}, but the model has 0 to {arch.num_puzzle_identifiers - 1}; "
            "name the test folder of the set that it is trained on"
        )
    if most:
        require_one_numbering([split_folder(data[0], "train"), folder])
    return held_out, []


def _read_sources(folder: Path, task: Task, data: list[str], held_out: PuzzleSet, world: World) -> list[Source]:
    """The training puzzles, kept beside the run so that a resume need not generate them again."""
    key = hashlib.sha256(json.dumps([task.name, data]).encode()).hexdigest()[:16]
    sources = []
    for index, argument in enumerate(data):
        if not task.has_rules:  # read from disk as they are drawn
            sources.append(read_source(argument, task, held_out))
            continue
        cache = folder / "data" / f"{key}-{index}.npz"
        if world.rank == 0 and not cache.exists():
            source = read_source(argument, task, held_out)
            cache.parent.mkdir(parents=True, exist_ok=True)
            scratch = cache.with_name(f".{cache.name}")  # savez appends .npz to any other ending
            np.savez(scratch, questions=source.questions, answers=source.answers, name=source.name, w=source.weight)
            scratch.rename(cache)
        world.barrier()
        with np.load(cache) as saved:
            sources.append(Source(str(saved["name"]), saved["questions"], saved["answers"], float(saved["w"])))
    return sources


def train(
    task: Task,
    arch: HRMConfig,
    config: TrainConfig,
    data: list[str],
    output: Path,
    device: str = "auto",
    test: Path | None = None,
    initial: Checkpoint | None = None,
) -> Path:
    """Train to the config's limits, resuming what ``output`` holds; returns the checkpoint folder.

    Args:
        data: sources as :func:`trainer.data.read_source` takes them.
        test: puzzles to measure the finished checkpoint on, by their source, beside the held-out ones.
        initial: start from this checkpoint's weights instead of a fresh initialisation; layers that ``arch`` has
            beyond it start as if they were not there.

    Raises:
        InputError: the data, configs or the folder's earlier run do not fit.
        TrainingDiverged: the loss became NaN or infinite; the last good checkpoint is kept.
    """
    qat.require_start(config, initial)
    arch = _with_identifiers(arch, data, task)
    world = World.join(device)
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
    _same_run(output, recipe, world)
    held_out, tests = _measured_on(task, arch, data, test)
    sources = _read_sources(output, task, data, held_out, world)
    torch.manual_seed(config.seed)
    model = build_model(arch, task)
    if initial is None:
        torch.nn.init.constant_(model.q_head.bias, config.halt_bias)
    else:
        load_weights(model, with_added_blocks(initial.model.state_dict(), model), str(initial.path))
    if world.rank == 0:
        # Only now: data or a checkpoint that does not fit must not claim the folder for a run that never was.
        write_atomically(output / "run.json", json.dumps(recipe, indent=2) + "\n")
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
    done = config.progress(run.step, run.seconds)
    metrics.say(
        f"{task.name}: {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{sum(len(source.questions) for source in sources):,} puzzles, {world.size} x {world.device.type}, "
        f"{step_flops(arch, config) / 1e9:,.3g} GFLOP a step"
        + (f", {config.steps} steps" if config.steps else "")
        + (f", {config.minutes:g} minutes" if config.minutes else "")
        + (" (already trained; measuring again)" if done >= 1 else "")
    )
    if resumed and done < 1:
        metrics.say(f"resuming at step {run.step}, after {run.seconds / 60:.1f} minutes")
    facts: dict[str, Any] = {"recipe": recipe, "sources": [f"{s.name} ({len(s.questions)})" for s in sources]}
    if initial is not None:
        facts["earlier"] = {k: initial.metadata[k] for k in STAGE if k in initial.metadata}
    try:
        with Stopping() as stopping:
            _loop(run, output, metrics, held_out, facts, stopping)
        if world.rank == 0:
            if task.has_rules:
                run.halt_margin = halting_margin(run.evaluated_model(), _calibration_set(run))
                facts["halt_margin"] = run.halt_margin
            else:
                metrics.say(f"{task.name} puzzles cannot be generated, so early halting is left as it was learned")
            puzzles = by_source([held_out, *tests], config.final_puzzles)
            for field, measured in qat.variants(run.evaluated_model(), initial).items():
                what = "" if config.qat == "off" else qat.MEASURED[field]
                facts[field] = accuracy(measured, puzzles, metrics, run.step, what)
            run.publish(output / "checkpoint", facts)
    except KeyboardInterrupt:
        saved = (output / "state").exists()
        metrics.say("the same command goes on from the last save" if saved else "nothing had been saved yet")
        raise
    finally:
        metrics.close()
        world.leave()
    return output / "checkpoint"


def _calibration_set(run: Run) -> PuzzleSet:
    """Puzzles for the halting margin alone: neither trained nor measured on."""
    count = max(1, run.config.final_puzzles // 2)
    return generate_puzzles(run.task, count, CALIBRATION_SEED)


def _loop(
    run: Run, output: Path, metrics: Metrics, held_out: PuzzleSet, facts: dict[str, Any], stopping: Stopping
) -> None:
    """Steps until a limit is reached or somebody asks to stop; logs, evaluates and saves on the way."""
    config, world = run.config, run.world
    window: list[Tensor] = []
    before = time.monotonic()
    saved_at = -1
    done = config.progress(run.step, run.seconds)

    def save() -> None:
        nonlocal saved_at
        if saved_at != run.step:
            if world.rank == 0:
                run.publish(output / "checkpoint", facts)
            run.save(output / "state")
            saved_at = run.step

    while done < 1:
        window.append(run.train_step())
        now = time.monotonic()
        # All ranks take the slowest one's clock and the first one's wish, so that they stop at the same step.
        seconds, wish = world.largest(now - before, stopping.asked)
        run.seconds += seconds
        before = now
        done = config.progress(run.step, run.seconds)
        last = done >= 1 or wish > 0
        if not (last or run.step % config.log_every == 0 or run.step % config.save_every == 0):
            continue
        means = world.mean(torch.stack(window).double().mean(0))
        if not math.isfinite(float(means[0])):
            raise TrainingDiverged(
                f"{output}: the loss became {float(means[0])} by step {run.step}; "
                f"the last good checkpoint (step {max(saved_at, 0)}) is kept; try a lower train.lr"
            )
        if last or run.step % config.log_every == 0:
            names = ("loss", "token_loss", "halt_loss", "exact", "token", "segments")
            row: dict[str, Any] = {"step": run.step, **dict(zip(names, map(float, means), strict=True))}
            row |= {"lr": run.optimizers[0].param_groups[0]["lr"], "seconds": round(run.seconds, 1)}
            metrics.write(row, done)
            window.clear()
        if run.step % config.eval_every == 0 and world.rank == 0:
            model = run.evaluated_model()
            puzzles = held_out.take(config.eval_puzzles, 0)
            exact = exact_by_segments(model, puzzles, EVAL_SEGMENTS)
            field = "accuracy" if config.qat == "off" else qat.QUANTIZED
            facts[field] = {held_out.sources[0]: {"n": len(puzzles), "exact_by_segments": exact}}
            metrics.write({"step": run.step, "exact_by_segments": exact}, done)
        if last or run.step % config.save_every == 0:
            save()
        if wish:
            metrics.say(f"stopped and saved at step {run.step}; the same command goes on from there")
            raise SystemExit(128 + int(wish))
