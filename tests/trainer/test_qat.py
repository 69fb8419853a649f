"""Quantization-aware fine-tuning: starts from a checkpoint, resumes exactly, publishes what it measured."""

import json
import signal
import time

import numpy as np
import pytest
import torch
from forked import Forked

from hrm_edge.cli import main
from hrm_edge.data.choose import HELD_OUT_SEED
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.models import load_checkpoint, quantization_of, quantized_layers
from hrm_edge.models.fake_quant import quantize_model, scales_of
from hrm_edge.tasks import get_task
from hrm_edge.trainer import load_recipe, loop, measure, qat, train
from hrm_edge.trainer.config import PRESETS, QAT_SETTINGS
from hrm_edge.trainer.measure import FINAL_SEGMENTS, exact_by_segments

pytestmark = pytest.mark.usefixtures("short_runs")

TASK = get_task("sudoku-4x4")
DATA = ["generated:100"]
SMALL = ["train.batch_size=16", "train.log_every=1", "train.eval_puzzles=8", "train.final_puzzles=8"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint to tune; what it learned in a few steps is little. In few segments, as all are calibrated."""
    sizes = ["arch.hidden_size=32", "arch.puzzle_emb_ndim=32", "arch.halt_max_steps=4"]
    recipe = load_recipe(TASK.name, "tiny", None, [*SMALL, *sizes, "train.steps=20"])
    return load_checkpoint(train(TASK, *recipe, DATA, tmp_path_factory.mktemp("start") / "run", "cpu"))


def tune(output, start, *settings):
    recipe = load_recipe(TASK.name, "tiny", None, [*SMALL, *settings], start.config)
    return train(TASK, *recipe, DATA, output, "cpu", None, start)


def rows(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in lines if "loss" in row]


@pytest.mark.parametrize("scales", ["learned", "frozen"])
def test_publishes_scales_weights_and_accuracy_as_they_were_trained(tmp_path, start, monkeypatch, scales):
    calibrated, margins = {}, []

    def watch_start(model, chosen, learned):
        calibrated.setdefault("scales", dict(chosen))  # the first model made is the one that is trained
        return quantize_model(model, chosen, learned)

    def watch_margin(model, puzzles):
        margins.append(scales_of(model))
        return 0.5

    monkeypatch.setattr(qat, "quantize_model", watch_start)
    monkeypatch.setattr(loop, "halting_margin", watch_margin)
    monkeypatch.setattr(measure, "FINAL_SEGMENTS", FINAL_SEGMENTS)
    tuned = load_checkpoint(tune(tmp_path, start, f"train.qat={scales}", "train.steps=6"))
    found = quantization_of(tuned)
    assert (found.bits, found.learned, found.started_from) == (8, scales == "learned", start.content_hash)
    assert list(found.activations) == quantized_layers(tuned.model)
    assert (found.activations == calibrated["scales"]) == (scales == "frozen")
    assert margins == [found.activations]  # halting was calibrated on what ships
    assert all(float(np.float32(scale)) == scale for scale in found.activations.values())
    assert tuned.model.state_dict().keys() == start.model.state_dict().keys()
    held_out = generate_puzzles(TASK, 1000, HELD_OUT_SEED).take(8, 0)
    ships = quantize_model(tuned.model, found.activations, learned=False)
    for field, model in (
        ("accuracy", tuned.model),
        ("accuracy_quantized", ships),
        ("accuracy_start", start.model),
    ):
        measured = tuned.metadata[field]["generated-ordinary"]
        assert measured == {"n": 8, "exact_by_segments": exact_by_segments(model, held_out, (1, 2, 4, 8, 16, 32))}
    for label in ("in int8, as tuned", "in float", "in float, before tuning"):
        assert tuned.card.count(f"| generated-ordinary, {label} | 8 |") == 1
    assert f"quantization-aware, the blocks' products in int8 with {scales} scales: 6 steps" in tuned.card
    assert "lowered by 0.5 logits" in tuned.card
    assert tuned.metadata["earlier"]["steps"] == 20


def test_trains_what_it_publishes(tmp_path, start):
    """float16 weights: the checkpoint, fake-quantized anew, answers as the run's own evaluated model does."""
    seen = {}
    original = loop.Run.evaluated_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "evaluated_model", lambda run: seen.setdefault(run.step, original(run)))
        path = tune(tmp_path, start, "train.qat=learned", "train.steps=4", "train.checkpoint_dtype=float16")
    tuned = load_checkpoint(path)
    ships = quantize_model(tuned.model, quantization_of(tuned).activations, learned=False)
    for name, tensor in seen[4].state_dict().items():
        assert torch.equal(tensor, ships.state_dict()[name]), name
    assert any(".scale" in name for name in ships.state_dict())


@pytest.mark.parametrize(
    "variant",
    [
        ["train.qat=learned"],
        pytest.param(["train.qat=frozen"], marks=pytest.mark.slow),
        pytest.param(
            ["train.qat=learned", "train.optimizer=adam_atan2", "train.ema_decay=0.0", "train.gradient=one_step"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_resume_continues_the_very_same_run(tmp_path, start, variant):
    settings = [*variant, "train.save_every=4", "train.schedule=constant"]
    tune(tmp_path / "whole", start, *settings, "train.steps=8")
    tune(tmp_path / "parts", start, *settings, "train.steps=4")
    tune(tmp_path / "parts", start, *settings, "train.steps=8")
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert [row["step"] for row in rows(tmp_path / "parts")] == list(range(1, 9))
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint") for name in ("whole", "parts"))
    assert whole.content_hash == parts.content_hash
    assert quantization_of(whole) == quantization_of(parts)


def test_scales_have_a_rate_of_their_own_and_do_not_decay(start):
    from hrm_edge.trainer.optim import SCALE_LR, make_optimizers

    _, config = load_recipe(TASK.name, "tiny", None, ["train.qat=learned"], start.config)
    layers = quantized_layers(start.model)
    model = quantize_model(start.model, dict.fromkeys(layers, 1.0), learned=True).requires_grad_(True)
    main_optimizer, puzzles = make_optimizers(model, config)
    weights, scales = main_optimizer.param_groups
    assert len(scales["params"]) == len(layers)
    assert (scales["base_lr"], scales["weight_decay"]) == (config.lr * SCALE_LR, 0)
    assert (weights["base_lr"], weights["weight_decay"]) == (config.lr, config.weight_decay)
    counted = sum(len(group["params"]) for group in (weights, scales, *puzzles.param_groups))
    assert counted == len(list(model.parameters()))


def test_calibrates_on_training_puzzles_alone(tmp_path, start, monkeypatch):
    questions = []
    original = qat.collect_ranges

    def watch(model, some, identifiers, **arguments):
        questions.append(some)
        return original(model, some, identifiers, **arguments)

    monkeypatch.setattr(qat, "collect_ranges", watch)
    tune(tmp_path, start, "train.qat=frozen", "train.steps=1", "train.augment=false")
    tune(tmp_path, start, "train.qat=frozen", "train.steps=2", "train.augment=false")
    drawn, again = questions  # for smoothing, then for scales; a resumed run has both
    assert (drawn == again).all()
    with np.load(next((tmp_path / "data").glob("*.npz"))) as source:
        trained = {row.tobytes() for row in source["questions"]}
    assert len(drawn) == qat.CALIBRATION_PUZZLES
    assert all(row.tobytes() in trained for row in drawn)


def test_other_scales_are_another_run(tmp_path, start):
    tune(tmp_path, start, "train.qat=frozen", "train.steps=1")
    with pytest.raises(InputError, match=r"train\.qat differs"):
        tune(tmp_path, start, "train.qat=learned", "train.steps=2")


def test_a_run_from_before_the_field_existed_goes_on(tmp_path, start):
    tune(tmp_path, start, "train.steps=1")
    run = json.loads((tmp_path / "run.json").read_text())
    del run["train"]["qat"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert load_checkpoint(tune(tmp_path, start, "train.steps=2")).metadata["steps"] == 2
    del run["train"]["lr"]  # means the default, which is not the preset's
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match=r"train\.lr differs"):
        tune(tmp_path, start, "train.steps=3")


def test_recipe_is_gentle_unless_told_otherwise():
    def fields(*settings):
        return load_recipe("sudoku", "small", None, list(settings))[1]

    gentle = fields("train.qat=learned")
    assert {name: getattr(gentle, name) for name in QAT_SETTINGS} == QAT_SETTINGS
    assert gentle.gradient == PRESETS["small"][1]["gradient"]
    assert fields("train.qat=learned", "train.lr=0.5").lr == 0.5
    assert fields("train.qat=learned", "train.steps=7").steps == 7
    by_time = fields("train.qat=frozen", "train.minutes=2")
    assert (by_time.steps, by_time.minutes) == (0, 2)
    assert fields("train.qat=off", "train.steps=1").lr == PRESETS["small"][1]["lr"]
    with pytest.raises(InputError, match="one of off, learned, frozen"):
        fields("train.qat=maybe")


TRAIN = ["train", "--task", TASK.name, "--preset", "tiny", "--data", DATA[0], "--device", "cpu"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--qat"], "--from"),
        (["--steps", "2", "--set", "train.qat=frozen"], "--from"),
        (["--steps", "2", "--qat-scales", "frozen"], "without --qat"),
        (["--qat", "--qat-scales", "soft"], "choose from learned, frozen"),
        (["--qat", "--from", "missing"], "no such checkpoint"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, more, said):
    with pytest.raises(SystemExit) as stop:
        main([*TRAIN, *more, "-o", str(tmp_path / "run")])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_command_line(tmp_path, capsys, start):
    settings = [part for setting in SMALL for part in ("--set", setting)]
    more = ["--qat", "--qat-scales", "frozen", "--from", str(start.path), "--steps", "2", "-o", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main([*TRAIN, *settings, *more])
    out, _ = capsys.readouterr()
    assert stop.value.code == 0
    assert out.strip() == str(tmp_path / "checkpoint")
    assert not quantization_of(load_checkpoint(out.strip())).learned


@pytest.mark.slow
def test_tuning_wins_back_what_coarse_levels_cost(tmp_path, start, monkeypatch):
    """Three levels on each side of zero: the loss that the rounding added goes down again."""
    from hrm_edge.models import fake_quant

    monkeypatch.setattr(fake_quant, "STEPS", 3)
    monkeypatch.setattr("hrm_edge.models.ranges.STEPS", 3)
    tune(tmp_path, start, "train.qat=learned", "train.steps=60", "train.lr=2e-3", "train.batch_size=32")
    losses = [row["token_loss"] for row in rows(tmp_path)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.slow
def test_sigkill_between_saves(tmp_path, start):
    """Killed twice while saving after every step: whole checkpoints in between, and one row a step at the end."""
    output = tmp_path / "run"
    settings = [part for setting in (*SMALL, "train.save_every=1") for part in ("--set", setting)]
    more = ["--qat", "--from", str(start.path), "--steps", "24", "-o", str(output), "--threads", "1"]
    command = [*TRAIN, *settings, *more]
    for wanted in (4, 10):
        process = Forked.command(tmp_path / "said", command)
        while process.poll() is None and not ((output / "metrics.jsonl").exists() and len(rows(output)) >= wanted):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert quantization_of(load_checkpoint(output / "checkpoint")) is not None
    assert Forked.command(tmp_path / "said", command).wait() == 0
    assert [row["step"] for row in rows(output)] == list(range(1, 25))
    assert load_checkpoint(output / "checkpoint").metadata["steps"] == 24
