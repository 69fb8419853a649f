"""The card a checkpoint carries: how it was made and what was measured."""

from __future__ import annotations

from typing import Any

from ..models import HRM


def describe(metadata: dict[str, Any], model: HRM) -> str:
    """Markdown from what the run knows; figures that were not measured are not mentioned."""
    recipe, arch = metadata["recipe"], model.config
    parameters = sum(p.numel() for p in model.parameters())
    train = recipe["train"]
    lines = [
        f"# HRM for {recipe['task']}",
        "",
        f"{parameters:,} parameters: D {arch.hidden_size}, {arch.num_heads} heads, "
        f"{arch.H_layers} + {arch.L_layers} layers, N = {arch.H_cycles}, T = {arch.L_cycles}, "
        f"{arch.pos_encodings} positions, trained with up to {arch.halt_max_steps} segments.",
        "",
        "## Recipe",
        "",
        f"{metadata['steps']:,} steps of {train['batch_size']} slots in {metadata['train_seconds'] / 60:.0f} "
        f"minutes; gradient through {train['gradient'].replace('_', ' ')}, {train['loss']} loss, "
        f"{train['optimizer']} at {train['lr']:g} ({train['schedule']} schedule, {train['warmup_steps']} warm-up "
        f"steps), weight decay {train['weight_decay']:g}, EMA {train['ema_decay']:g}, seed {train['seed']}.",
        "",
        "Data, augmented on the fly by the task's symmetries: " + "; ".join(metadata["sources"]) + ".",
        "",
    ]
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
