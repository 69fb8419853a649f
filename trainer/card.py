"""The card a checkpoint carries: how it was made and what was measured."""

from __future__ import annotations

from typing import Any

from ..models import HRM


def describe(metadata: dict[str, Any], model: HRM) -> str:
    """Markdown from what the run knows; figures that were not measured are not mentioned."""
    recipe, arch, train = metadata["recipe"], model.config, metadata["recipe"]["train"]
    parameters = sum(p.numel() for p in model.parameters())
    stages: list[dict[str, Any]] = []
    stage: dict[str, Any] | None = metadata
    while stage and "recipe" in stage:
        stages.insert(0, stage)
        stage = stage.get("earlier")
    lines = [
        f"# HRM for {recipe['task']}",
        "",
        f"{parameters:,} parameters: D {arch.hidden_size}, {arch.num_heads} heads, "
        f"{arch.H_layers} + {arch.L_layers} layers, N = {arch.H_cycles}, T = {arch.L_cycles}, "
        f"{arch.pos_encodings} positions, trained with up to {arch.halt_max_steps} segments.",
        "",
        "## Recipe",
        "",
    ]
    for number, stage in enumerate(stages, 1):
        lines += [f"Stage {number}: " * (len(stages) > 1) + _stage(stage), ""]
    accuracy = metadata.get("accuracy_by_segments")
    if accuracy:
        held_out = metadata["held_out"]
        lines += [
            "## Accuracy",
            "",
            f"Exact-solve rate by number of segments, without early halting, on puzzles generated "
            f"({held_out['difficulty']}) from seed {held_out['seed']}, which training never saw "
            f"(the first {train['eval_puzzles']} of a shuffle, moving-average weights):",
            "",
            "| segments | " + " | ".join(accuracy) + " |",
            "|---" * (len(accuracy) + 1) + "|",
            "| exact | " + " | ".join(f"{value:.1%}" for value in accuracy.values()) + " |",
            "",
        ]
    return "\n".join(lines)


def _stage(stage: dict[str, Any]) -> str:
    """One run in a paragraph."""
    train = stage["recipe"]["train"]
    return (
        f"{stage['steps']:,} steps of {train['batch_size']} slots in {stage['train_seconds'] / 60:.0f} minutes; "
        f"gradient through {train['gradient'].replace('_', ' ')}, {train['loss']} loss, "
        f"{train['optimizer']} at {train['lr']:g} ({train['schedule']} schedule, {train['warmup_steps']} warm-up "
        f"steps), weight decay {train['weight_decay']:g}, EMA {train['ema_decay']:g}, seed {train['seed']}; "
        f"data, augmented on the fly by the task's symmetries: {'; '.join(stage['sources'])}."
    )
