"""Ablations: paired short training runs that differ in one part of the network or of its training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import read_text, write_atomically
from ..models import HRMConfig, load_checkpoint
from ..models.config import FIXED
from ..tasks import get_task
from ..trainer import TrainConfig, load_recipe, train
from ..trainer.config import with_later_fields

SEGMENTS = ("1", "4", "16")  # shown; the checkpoints' cards have more
RESULT = "result.json"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One ablation: fields that differ from the full model's, as ``section.field=value``."""

    name: str
    title: str
    settings: tuple[str, ...] = ()


def variants(full: HRMConfig) -> tuple[Variant, ...]:
    """The full model and what is taken away from it, one part at a time."""
    steps = full.H_cycles * full.L_cycles
    return (
        Variant("full", "full HRM"),
        Variant("no-hierarchy", "no hierarchy: one recurrent transformer", ("arch.kind=recurrent",)),
        Variant(
            "one-timescale",
            "one timescale: H steps as often as L",
            (f"arch.H_cycles={steps}", "arch.L_cycles=1"),
        ),
        # The loss leaves the halting head alone, and its bias keeps it from ever firing.
        Variant("no-act", "no ACT: always all segments", ("train.halt_loss_weight=0.0", "train.halt_bias=-1000.0")),
        Variant("one-segment", "one segment: no deep supervision", ("arch.halt_max_steps=1",)),
        # Its fixed fields are said as well: a --set for all runs may have changed them.
        Variant(
            "direct",
            "direct: a transformer, one pass",
            ("arch.kind=direct", *(f"arch.{name}={value}" for name, value in FIXED["direct"].items())),
        ),
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished run. `exact` holds the held-out puzzles' solve rate by number of segments, halting off."""

    variant: str
    title: str
    seed: int
    parameters: int
    block_calls: int  # in one segment
    steps: int
    minutes: float
    n: int
    exact: dict[str, float]


def recipe(
    task: str, preset: str, variant: Variant, seed: int, settings: Sequence[str]
) -> tuple[HRMConfig, TrainConfig]:
    """The architecture and training of one run; the variant's own fields have the last word."""
    return load_recipe(task, preset, None, [*settings, f"train.seed={seed}", *variant.settings])


def run_ablations(
    task: str,
    output: Path,
    *,
    preset: str = "tiny",
    seeds: int = 1,
    only: Sequence[str] = (),
    data: Sequence[str] = ("generated:20000",),
    settings: Sequence[str] = (),
) -> list[Run]:
    """Train every variant with every seed, each in its own folder ``output/VARIANT-SEED``.

    The variants of a seed see the same puzzles in the same order wherever they ask for as many. What is finished
    is not run again, and what was interrupted goes on. ``only``: names of variants, all when empty. ``settings``:
    ``section.field=value`` for all of them, with the limit in steps or minutes among them.
    """
    chosen = variants(recipe(task, preset, Variant("full", ""), 0, settings)[0])
    if unknown := sorted(set(only) - {variant.name for variant in chosen}):
        known = ", ".join(variant.name for variant in chosen)
        raise InputError(f"--only {unknown[0]}: no such variant; choose from {known}")
    plan = [
        (variant, seed, *recipe(task, preset, variant, seed, settings))
        for seed in range(seeds)
        for variant in chosen
        if not only or variant.name in only
    ]
    return [_run(task, output / f"{v.name}-{seed}", v, seed, arch, config, data) for v, seed, arch, config in plan]


def _run(
    task: str, folder: Path, variant: Variant, seed: int, arch: HRMConfig, config: TrainConfig, data: Sequence[str]
) -> Run:
    asked = {"task": task, "arch": arch.to_dict(), "train": dataclasses.asdict(config), "data": list(data)}
    file = folder / RESULT
    if file.exists():
        return _finished(file, asked)
    torch.compiler.reset()  # else one process's many networks soon pass the compiler's limit, and run uncompiled
    checkpoint = load_checkpoint(train(get_task(task), arch, config, list(data), folder, "cpu"))
    facts = checkpoint.metadata
    measured = next(iter(facts["accuracy"].values()))
    run = Run(
        variant=variant.name,
        title=variant.title,
        seed=seed,
        parameters=sum(p.numel() for p in checkpoint.model.parameters()),
        block_calls=arch.block_calls,
        steps=facts["steps"],
        minutes=facts["train_seconds"] / 60,
        n=measured["n"],
        exact=measured["exact_by_segments"],
    )
    write_atomically(file, json.dumps({"asked": asked, "run": dataclasses.asdict(run)}, indent=2) + "\n")
    return run


def _finished(file: Path, asked: dict[str, Any]) -> Run:
    """What an earlier call measured, if it was asked for the same."""
    try:
        found = json.loads(read_text(file))
        before, run = with_later_fields(found["asked"]), Run(**found["run"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error}); delete it to measure again") from None
    if before != asked:
        raise InputError(f"{file.parent}: holds a run of another recipe; choose another --output, or delete it")
    return run


@dataclasses.dataclass(frozen=True)
class AblationRow:
    """One variant over its seeds: solve rates as (mean, least, most)."""

    title: str
    parameters: int
    block_calls: int
    minutes: float
    seeds: int
    exact: dict[str, tuple[float, float, float]]


def summarize(runs: Sequence[Run], segments: Sequence[str] = SEGMENTS) -> list[AblationRow]:
    """The table: one row a variant, in the order they were run."""
    rows = []
    for name in dict.fromkeys(run.variant for run in runs):
        same = [run for run in runs if run.variant == name]
        exact = {}
        for k in segments:
            values = [run.exact[k] for run in same]
            exact[k] = (sum(values) / len(values), min(values), max(values))
        minutes = sum(run.minutes for run in same) / len(same)
        rows.append(AblationRow(same[0].title, same[0].parameters, same[0].block_calls, minutes, len(same), exact))
    return rows
