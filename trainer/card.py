"""The card a checkpoint carries: how it was made and what was measured."""

from __future__ import annotations

from typing import Any

from ..measure.statistics import megaflops
from ..models import HRM
from ..models.checkpoint import QUANTIZATION
from ..models.deduce import KIND as DEDUCE
from ..models.deduce import DeduceConfig
from ..models.network import Wrapped
from ..models.source import KIND
from ..text import markdown
from .qat import MEASURED


def describe(metadata: dict[str, Any], model: HRM | Wrapped, symmetric: bool = True) -> str:
    """Markdown from what the run knows; figures that were not measured are not mentioned.

    ``symmetric``: whether the task has symmetries, by which puzzles may have been augmented.
    """
    recipe, arch = metadata["recipe"], model.config
    parameters = sum(p.numel() for p in model.parameters())
    stages: list[dict[str, Any]] = []
    stage: dict[str, Any] | None = metadata
    while isinstance(stage, dict) and "recipe" in stage:
        stages.insert(0, stage)
        stage = stage.get("earlier")
    lines = [
        f"# {arch.title} for {recipe['task']}",
        "",
        f"{parameters:,} parameters: {_made_of(model)}, trained with up to {arch.halt_max_steps} segments; "
        f"{megaflops(model.segment_flops)} MFLOP a segment.",
        "",
        "## Recipe",
        "",
    ]
    for number, stage in enumerate(stages, 1):
        try:
            told = _stage(stage, symmetric)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            # What it started from may be a stranger's, who wrote something else there. The run's own is ours.
            told = "a run whose record cannot be read."
        lines += [f"Stage {number}: " * (len(stages) > 1) + told, ""]
    if margin := metadata.get("halt_margin"):
        how = ", solved in int8" if QUANTIZATION in metadata else ""
        lines += [
            f"Halting: q_halt was then lowered by {margin:g} logits, the least that makes halting early cost "
            f"at most half a point on generated puzzles of another seed{how}.",
            "",
        ]
    tables = [(label, metadata[field]) for field, label in MEASURED.items() if metadata.get(field)]
    if tables:
        held_out = metadata.get("held_out")
        segments = list(next(iter(tables[0][1].values()))["exact_by_segments"])
        lines += [
            "## Accuracy",
            "",
            "Exact-solve rate by number of segments, without early halting, on puzzles that training never saw."
            + (
                f" The generated ones are `hrm-edge data generate`'s for seed {held_out['seed']}."
                if held_out
                else ""
            ),
            "",
            f"| source | puzzles | {' | '.join(segments)} |",
            "|---" * (len(segments) + 2) + "|",
        ]
        for label, accuracy in tables:
            named = f", {label}" if QUANTIZATION in metadata else ""
            for source, row in accuracy.items():
                cells = " | ".join(f"{row['exact_by_segments'][k]:.1%}" for k in segments)
                lines.append(f"| {markdown(source)}{named} | {row['n']} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def _made_of(model: HRM | Wrapped) -> str:
    if isinstance(model, Wrapped) and isinstance(model.source, DeduceConfig):
        return model.source.structure
    if isinstance(model, Wrapped):
        factory = markdown(model.source.factory) if model.source else model.config.name
        return f"what {factory} makes, {model.config.structure}"
    arch = model.config
    return (
        f"D {arch.hidden_size}, {arch.mixer.title(arch)}, "
        f"{arch.H_layers} + {arch.L_layers} layers, N = {arch.H_cycles}, T = {arch.L_cycles}, "
        f"{arch.pos_encodings.replace('none', 'no')} positions"
    )


_THROUGH = {"one_step": "one step", "last_cycle": "last cycle", "full": "the whole segment"}


def _turns(train: dict[str, Any]) -> str:
    """How a step's slots follow each other, where that is not one batch, one segment a step."""
    interleave, rollout = train.get("interleave", 1), train.get("rollout", 1)  # earlier versions do not have them
    turns = f", {interleave} batches taking turns" if interleave > 1 else ""
    return turns + (f", {rollout} segments a step" if rollout > 1 else "")


def _stage(stage: dict[str, Any], symmetric: bool) -> str:
    """One run in a paragraph; ``symmetric``: its task has symmetries."""
    train = stage["recipe"]["train"]
    qat = train.get("qat", "off")  # recipes of earlier versions do not have it
    minutes = stage["train_seconds"] / 60
    # Another's network says how far its gradient flows, and a candidate-state reasoner learns from all of a call.
    kind = stage["recipe"].get("arch", {}).get("kind")
    ours = kind not in (KIND, DEDUCE)
    loss = "losses at every cycle" if kind == DEDUCE else f"{train['loss']} loss"
    through = f"gradient through {_THROUGH[train['gradient']]}, " if ours else ""
    augments = symmetric and train.get("augment", True)
    augmented = ", augmented on the fly by the task's symmetries" if augments else ""
    tuning = "" if qat == "off" else f"quantization-aware, the blocks' products in int8 with {qat} scales: "
    return (
        f"{tuning}{stage['steps']:,} steps of {train['batch_size']} slots{_turns(train)} in {minutes:.0f} minutes; "
        f"{through}{loss}, "
        f"{train['optimizer']} at {train['lr']:g} ({train['schedule']} schedule, {train['warmup_steps']} warm-up "
        f"steps), weight decay {train['weight_decay']:g}, EMA {train['ema_decay']:g}, seed {train['seed']}; "
        f"data{augmented}: {'; '.join(map(markdown, stage['sources']))}."
    )
