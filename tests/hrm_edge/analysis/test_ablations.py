"""The ablations differ in what they say and nothing else; a finished run is kept."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hrm_edge.analysis import ablations
from hrm_edge.analysis.ablations import Run, Variant, recipe, run_ablations, summarize, variants
from hrm_edge.analysis.plots import ablations_picture
from hrm_edge.errors import InputError
from hrm_edge.models import HRMConfig, build_model, load_checkpoint
from hrm_edge.models.engine import TorchEngine
from hrm_edge.models.hrm import Block
from hrm_edge.tasks import get_task
from hrm_edge.trainer import TrainConfig

SETTINGS = (
    *("arch.hidden_size=16", "arch.num_heads=2", "arch.puzzle_emb_ndim=16", "arch.halt_max_steps=3"),
    *("train.batch_size=8", "train.final_puzzles=4", "train.steps=4"),
)


def recipes() -> dict[str, tuple[HRMConfig, TrainConfig]]:
    full = recipe("sudoku-4x4", "tiny", Variant("full", ""), 0, SETTINGS)[0]
    return {v.name: recipe("sudoku-4x4", "tiny", v, 0, SETTINGS) for v in variants(full)}


def test_each_variant_changes_only_its_own_fields() -> None:
    found = {name: dataclasses.asdict(a) | dataclasses.asdict(t) for name, (a, t) in recipes().items()}
    full = found.pop("full")
    changed = {name: {k: v for k, v in fields.items() if v != full[k]} for name, fields in found.items()}
    assert changed == {
        "no-hierarchy": {"kind": "recurrent"},
        "one-timescale": {"H_cycles": 4, "L_cycles": 1},
        "no-act": {"halt_loss_weight": 0.0, "halt_bias": -1000.0},
        "one-segment": {"halt_max_steps": 1},
        "direct": {"kind": "direct", "H_cycles": 1, "L_cycles": 1, "halt_max_steps": 1},
    }


def test_all_have_the_same_parameters_and_their_own_number_of_blocks() -> None:
    task = get_task("sudoku-4x4")
    calls, parameters = {}, set()
    for name, (arch, train) in recipes().items():
        model = build_model(arch, task)
        parameters.add(sum(p.numel() for p in model.parameters()))
        seen: list[bool] = []
        for block in model.modules():
            if isinstance(block, Block):
                block.register_forward_hook(lambda *_, seen=seen: seen.append(torch.is_grad_enabled()))
        e = model.embed(torch.ones(2, task.seq_len, dtype=torch.long))
        model.segment(*model.initial_state(2), e, gradient=train.gradient)
        calls[name] = (len(seen), sum(seen))  # in all, and with gradient: those of the last cycle
        assert arch.block_calls == len(seen)
    assert calls == {
        "full": (6, 3),
        "no-hierarchy": (8, 4),
        "one-timescale": (8, 2),
        "no-act": (6, 3),
        "one-segment": (6, 3),
        "direct": (2, 2),
    }
    assert len(parameters) == 1


@pytest.mark.parametrize("continues", ["true", "false"])
def test_without_act_nothing_ever_halts(tmp_path: Path, continues: str) -> None:
    settings = [*SETTINGS, f"arch.no_ACT_continue={continues}", "train.lr=0.01"]
    (run,) = run_ablations("sudoku-4x4", tmp_path, only=["no-act"], data=["generated:30"], settings=settings)
    assert (run.variant, run.steps, run.seed) == ("no-act", 4, 0)
    checkpoint = load_checkpoint(tmp_path / "no-act-0")
    questions = checkpoint.task.generate(5, np.random.default_rng(0))[0]
    answers = TorchEngine(checkpoint).solve(questions)
    assert (answers.steps == 3).all()
    assert not answers.halted.any()


def test_a_finished_run_is_kept_and_another_recipe_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(settings: tuple[str, ...], seeds: int = 1) -> list[Run]:
        return run_ablations(
            "sudoku-4x4", tmp_path, only=["full"], seeds=seeds, data=["generated:30"], settings=settings
        )

    first = again(SETTINGS, seeds=2)
    assert [run.seed for run in first] == [0, 1]
    assert first[0].n == 4
    assert first[0].exact.keys() >= {"1", "4", "16"}

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ablations, "train", refuse)
    assert again(SETTINGS, seeds=2) == first
    with pytest.raises(InputError, match="another recipe"):
        again((*SETTINGS, "train.lr=0.02"))


def test_an_unknown_variant_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--only nonsense: no such variant; choose from full, no-hierarchy"):
        run_ablations("sudoku-4x4", tmp_path, only=["nonsense"], settings=SETTINGS)


def test_the_table_has_means_and_spread_over_seeds() -> None:
    def run(variant: str, seed: int, exact: float) -> Run:
        return Run(variant, variant.upper(), seed, 10, 6, 5, 1.0 + seed, 100, {"1": exact, "4": exact, "16": 1.0})

    rows = summarize([run("x", 0, 0.2), run("y", 0, 0.5), run("x", 1, 0.4)])
    assert [row.title for row in rows] == ["X", "Y"]
    assert rows[0].exact["4"] == (pytest.approx(0.3), 0.2, 0.4)
    assert (rows[0].minutes, rows[0].seeds) == (1.5, 2)
    assert ablations_picture(rows, "png").startswith(b"\x89PNG")
