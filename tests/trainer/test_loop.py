"""Whole runs: they learn, resume exactly, survive kills, stop at NaN, and agree across processes."""

import json
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from forked import Forked, ranks, wait_for_all

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.models import HRMConfig, build_model, load_checkpoint
from hrm_edge.tasks import get_task
from hrm_edge.trainer import TrainConfig, TrainingDiverged, load_recipe, measure, train
from hrm_edge.trainer.config import MEASURING
from hrm_edge.trainer.data import Sampler, Source
from hrm_edge.trainer.distributed import World
from hrm_edge.trainer.losses import act_losses
from hrm_edge.trainer.measure import FINAL_SEGMENTS, affordable
from hrm_edge.trainer.run import Run
from hrm_edge.trainer.slots import Slots

pytestmark = pytest.mark.usefixtures("short_runs")

TASK = get_task("sudoku-4x4")
DATA = ["generated:100"]


def recipe(*settings):
    base = [
        "train.batch_size=16",
        "train.log_every=1",
        "train.eval_puzzles=8",
        "train.final_puzzles=8",
        "train.eval_every=1000",
    ]
    sizes = ["arch.hidden_size=32", "arch.puzzle_emb_ndim=32"]
    return load_recipe(TASK.name, "tiny", None, [*base, *sizes, *settings])


def run(output, *settings):
    return train(TASK, *recipe(*settings), DATA, output, device="cpu")


def rows(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in lines if "loss" in row]


@pytest.mark.parametrize(
    "variant",
    [
        ["train.optimizer=adamw"],
        ["train.optimizer=muon", "train.label_smoothing=0.1", "train.segment_curriculum=0.5"],
        ["train.optimizer=adamw", "train.interleave=4", "train.rollout=2"],
        ["train.optimizer=adam_atan2", "train.loss=stablemax", "arch.no_ACT_continue=false", "train.ema_decay=0.0"],
    ],
)
def test_resume_continues_the_very_same_run(tmp_path, variant):
    """Losses, weights, slots and random numbers after 4 + 4 steps equal those after 8."""
    settings = [*variant, "train.save_every=4", "train.schedule=constant"]
    run(tmp_path / "whole", *settings, "train.steps=8")
    run(tmp_path / "parts", *settings, "train.steps=4")
    run(tmp_path / "parts", *settings, "train.steps=8")
    whole, parts = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert whole == parts
    assert [row["step"] for row in whole] == list(range(1, 9))
    for name in ("whole", "parts"):
        assert load_checkpoint(tmp_path / name / "checkpoint").metadata["steps"] == 8
    a, b = (load_checkpoint(tmp_path / n / "checkpoint").model.state_dict() for n in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_learns_4x4_sudoku(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "FINAL_SEGMENTS", FINAL_SEGMENTS)
    fast = ("train.steps=300", "train.batch_size=32", "train.lr=1e-2", "train.warmup_steps=20")
    checkpoint = run(tmp_path, *fast, "train.log_every=50", "train.final_puzzles=50")
    history = rows(tmp_path)
    assert history[-1]["token_loss"] < 0.6 * history[0]["token_loss"]
    accuracy = load_checkpoint(checkpoint).metadata["accuracy"]["generated-ordinary"]["exact_by_segments"]
    assert accuracy["16"] > accuracy["1"]


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    run(tmp_path, "train.steps=2", "train.save_every=1")
    before = load_checkpoint(tmp_path / "checkpoint").content_hash
    state = torch.load(tmp_path / "state" / "shared.pt", weights_only=True)
    state["model"]["lm_head.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "state" / "shared.pt")
    with pytest.raises(TrainingDiverged, match="last good checkpoint"):
        run(tmp_path, "train.steps=4", "train.save_every=1")
    assert load_checkpoint(tmp_path / "checkpoint").content_hash == before


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    run(tmp_path, "train.steps=1")
    with pytest.raises(InputError, match=r"train\.lr differs"):
        run(tmp_path, "train.steps=2", "train.lr=0.5")


def test_damaged_state_is_one_clear_line(tmp_path):
    run(tmp_path, "train.steps=1")
    (tmp_path / "state" / "shared.pt").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read") as caught:
        run(tmp_path, "train.steps=2")
    assert "\n" not in str(caught.value)


def test_card_measures_every_source_on_the_weights_as_stored(tmp_path, monkeypatch):
    """A finished run, asked again for float16 and a test file, trains nothing and measures anew."""
    monkeypatch.setattr(measure, "FINAL_SEGMENTS", FINAL_SEGMENTS)
    test = tmp_path / "test.csv"
    puzzles = generate_puzzles(TASK, 6, seed=7)
    lines = zip(TASK.format_many(puzzles.questions), "aabbbb", strict=True)
    test.write_text("question,source\n" + "".join(f"{q},{source}\n" for q, source in lines))
    run(tmp_path / "run", "train.steps=2")
    arch, config = recipe("train.steps=2", "train.checkpoint_dtype=float16")
    checkpoint = load_checkpoint(train(TASK, arch, config, DATA, tmp_path / "run", "cpu", test))
    accuracy = checkpoint.metadata["accuracy"]
    assert {name: row["n"] for name, row in accuracy.items()} == {"generated-ordinary": 8, "a": 2, "b": 4}
    assert all("32" in row["exact_by_segments"] for row in accuracy.values())
    assert "| b | 4 | " in checkpoint.card
    assert checkpoint.metadata["steps"] == 2
    weights = checkpoint.model.state_dict()
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in weights.values())


def test_training_from_a_checkpoint_starts_with_its_weights_and_tells_of_both_stages(tmp_path):
    first = load_checkpoint(run(tmp_path / "one", "train.steps=3", "train.ema_decay=0.0"))
    arch, config = recipe(
        "train.steps=1", "train.lr=1e-9", "train.puzzle_emb_lr=1e-9", "train.ema_decay=0.0", "train.warmup_steps=0"
    )
    second = load_checkpoint(train(TASK, arch, config, DATA, tmp_path / "two", "cpu", None, first))
    for name, tensor in second.model.state_dict().items():
        torch.testing.assert_close(
            tensor, load_checkpoint(tmp_path / "one" / "checkpoint").model.state_dict()[name]
        )
    assert second.metadata["earlier"]["steps"] == 3
    assert "Stage 1: 3 steps" in second.card
    assert "Stage 2: 1 steps" in second.card


def test_bf16_autocast_stays_near_float32_and_keeps_what_is_stored_in_float32(tmp_path):
    settings = ("train.steps=3", "train.ema_decay=0.0")
    run(tmp_path / "wide", *settings)
    run(tmp_path / "narrow", *settings, "train.bf16=true")
    for wide, narrow in zip(rows(tmp_path / "wide"), rows(tmp_path / "narrow"), strict=True):
        assert narrow["loss"] == pytest.approx(wide["loss"], rel=0.05)
        assert narrow["loss"] != wide["loss"]
    state = torch.load(tmp_path / "narrow" / "state" / "shared.pt", weights_only=True)
    assert {tensor.dtype for tensor in state["model"].values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_segments_train_as_eager_ones(tmp_path):
    for name, flag in (("eager", "false"), ("compiled", "true")):
        run(tmp_path / name, "train.steps=3", "arch.L_cycles=1", f"train.compile={flag}")
    for eager, compiled in zip(rows(tmp_path / "eager"), rows(tmp_path / "compiled"), strict=True):
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-3)


def test_minutes_bound_the_run():
    config = TrainConfig(minutes=2.0)
    training = 1 - MEASURING
    assert config.progress(10**6, 60.0 * training) == pytest.approx(0.5)
    assert TrainConfig(minutes=2.0, steps=100).progress(75, 60.0) == 0.75


def test_minutes_bound_what_is_measured_behind_it():
    assert affordable(1000, 12.0, each=0.02, times=2.0) == 300
    assert affordable(200, 12.0, each=0.02, times=2.0) == 200
    assert affordable(1000, 0.1, each=0.02, times=2.0) == 16  # a figure all the same
    assert affordable(1000, 12.0, each=0.0, times=2.0) == 1000


def command(output, steps, *more):
    return [
        *("train", "--task", TASK.name, "--preset", "tiny", "--device", "cpu"),
        *("--data", DATA[0], "--steps", str(steps), "-o", str(output), "--threads", "1"),
        *("--set", "train.batch_size=8", "--set", "train.final_puzzles=4", "--set", "train.log_every=1"),
        *more,
    ]


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path):
    """Saving after every step, killed three times: the run ends at the same step with one row a step."""
    moments = random.Random(0)
    output = tmp_path / "run"
    more = ("--set", "train.save_every=1")
    kills = 0
    for _ in range(40):
        process = Forked.command(tmp_path / "said", command(output, 30, *more))
        if kills == 3:
            assert process.wait() == 0
            break
        metrics = output / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.exists() else 0
        while process.poll() is None and (not metrics.exists() or metrics.stat().st_size <= size):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    assert [row["step"] for row in rows(output)] == list(range(1, 31))
    assert load_checkpoint(output / "checkpoint").metadata["steps"] == 30


def test_it_is_measured_as_often_as_asked(tmp_path):
    """Whatever the steps are that log or save."""
    run(tmp_path, "train.steps=5", "train.eval_every=2", "train.log_every=3", "train.save_every=100")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines if "exact_by_segments" in row and "source" not in row] == [2, 4]
    assert [row["step"] for row in lines if "loss" in row] == [3, 5]


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path):
    """Two gloo ranks hold the same weights, and the mean of their gradients is one process's gradient."""
    script = tmp_path / "ranks.py"
    script.write_text(
        "import torch, sys\n"
        "from hrm_edge.trainer.distributed import World\n"
        "from hrm_edge.models import HRM, HRMConfig\n"
        "world = World.join('cpu')\n"
        "torch.manual_seed(world.rank)\n"
        f"model = HRM(HRMConfig.from_dict({ARCH.to_dict()!r}))\n"
        "world.broadcast_model(model)\n"
        "x = torch.arange(64).view(4, 16) % 5 + 1\n"
        "def loss(rows):\n"
        "    return model.segment(*model.initial_state(len(rows)), model.embed(rows))[2].square().mean()\n"
        "loss(x[2 * world.rank : 2 * world.rank + 2]).backward()\n"
        "world.average_gradients(model)\n"
        "shared = [p.grad.clone() for p in model.parameters() if p.grad is not None]\n"
        "model.zero_grad(); loss(x).backward()\n"
        "alone = [p.grad for p in model.parameters() if p.grad is not None]\n"
        "for a, b in zip(shared, alone, strict=True): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)\n"
        "world.leave()\n"
    )
    started = [Forked(tmp_path / "said", runpy.run_path, str(script), **rank) for rank in ranks(2)]
    assert wait_for_all(started) == [0, 0], (tmp_path / "said").read_text()


@pytest.mark.slow
def test_the_number_of_processes_and_accumulation_change_no_loss(tmp_path):
    """4 steps by two processes, 4 more by one that accumulates, 4 by two again: the losses of one process alone."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    common = (
        "--set",
        "train.schedule=constant",
        "--set",
        "train.save_every=2",
        "--set",
        "train.interleave=3",
        "--set",
        "train.rollout=2",
    )
    assert Forked.command(tmp_path / "said", command(alone, 12, *common)).wait() == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    launch += ["--local-addr", "localhost"]
    as_users_do = [*launch, "-m", "hrm_edge.cli", *command(shared, 4, *common)]
    launched = subprocess.run(as_users_do, timeout=300, capture_output=True, text=True)
    assert launched.returncode == 0, launched.stderr
    for steps, processes, more in ((8, 1, ["--set", "train.accumulate=4"]), (12, 2, [])):
        whole = command(shared, steps, *common, *more)
        started = [Forked.command(tmp_path / "said", whole, **rank) for rank in ranks(processes)]
        assert wait_for_all(started) == [0] * processes
    assert sorted(p.name for p in (shared / "state").iterdir()) == ["rank0.pt", "rank1.pt", "shared.pt"]
    assert [row["step"] for row in rows(shared)] == list(range(1, 13))
    for one, two in zip(rows(alone), rows(shared), strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
    refused = command(shared, 13, *common, "--set", "train.accumulate=3")
    wait_for_all([Forked.command(tmp_path / "refused", refused, **rank) for rank in ranks(2)])
    said = (tmp_path / "refused").read_text()
    assert "it must be a multiple of 6 (2 processes, accumulate 3)" in said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_saves_first(tmp_path, number, code):
    process = Forked.command(tmp_path / "said", command(tmp_path, 100_000))
    metrics = tmp_path / "metrics.jsonl"
    while not metrics.exists() or metrics.stat().st_size < 1000:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait() == code
    last = rows(tmp_path)[-1]["step"]
    assert f"stopped and saved at step {last}; the same command goes on" in process.said.read_text()
    assert Forked.command(tmp_path / "said", command(tmp_path, last + 3)).wait() == 0
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, last + 4))


def test_accumulated_parts_make_the_same_step(tmp_path):
    settings = ("train.steps=3", "arch.no_ACT_continue=false")
    for parts in (1, 4):
        run(tmp_path / str(parts), *settings, f"train.accumulate={parts}")
    a, b = (load_checkpoint(tmp_path / n / "checkpoint").model.state_dict() for n in "14")
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-4, rtol=2e-3)
    for whole, parts in zip(rows(tmp_path / "1"), rows(tmp_path / "4"), strict=True):
        assert parts == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_interleaved_batches_take_turns(tmp_path):
    run(tmp_path, "train.steps=5", "train.interleave=2", "arch.halt_max_steps=8")
    steps = torch.load(tmp_path / "state" / "rank0.pt", weights_only=True)["steps"]
    assert steps.shape[1] == 2
    assert ((steps[:, 0] - steps[:, 1]) % 8 == 1).all()  # three turns and two, from the same staggered start


def test_a_rollout_adds_up_the_gradients_of_its_segments(tmp_path):
    """Two segments from the first state, one after the other: the gradient of the mean of their losses."""
    arch, config = recipe("train.steps=1", "train.rollout=2", "arch.halt_max_steps=2", "train.batch_size=4")
    torch.manual_seed(0)
    model = build_model(arch, TASK)
    questions, answers = TASK.generate(8, np.random.default_rng(0))
    sampler = Sampler(TASK, [Source("x", questions, answers, 1.0)], augment=False)
    alone = World(0, 1, torch.device("cpu"))
    run = Run(TASK, config, alone, model, sampler, [Slots.empty(model, 4, alone.device)], None)
    run.fill()
    slots = run.slots
    assert not slots.steps.any()  # all depths are in every step, so that none is staggered
    run._update = lambda: None  # keeps the gradients
    run.train_step()
    e, z = model.embed(slots.tokens), model.initial_state(4)
    losses = []
    for _ in range(2):
        *z, logits, q = model.segment(*z, e, gradient=config.gradient)
        z = [state.detach() for state in z]
        losses.append(act_losses(logits, q, slots.labels, config.loss, config.halt_loss_weight, None).total)
    of = {name: p for name, p in model.named_parameters() if p.grad is not None}
    wanted = torch.autograd.grad(sum(losses) / 2, list(of.values()))
    for gradient, (name, p) in zip(wanted, of.items(), strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_a_state_of_the_first_format_is_still_read(tmp_path):
    """It kept each process's slots beside its random numbers."""
    run(tmp_path, "train.steps=2")
    state = tmp_path / "state"
    slots, shared = (torch.load(state / f"{name}.pt", weights_only=True) for name in ("rank0", "shared"))
    slots = {name: field[:, 0] for name, field in slots.items() if name != "fresh"}  # there was one batch
    slots |= {name: slots.pop(f"state.{name}") for name in ("z_H", "z_L")}
    torch.save({"slots": slots, "rng": "{}", "torch_rng": torch.get_rng_state()}, state / "rank0.pt")
    torch.save({**shared, "format_version": 1}, state / "shared.pt")
    run(tmp_path, "train.steps=4")
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]


ARCH = HRMConfig(vocab_size=6, seq_len=16, hidden_size=32, num_heads=2, H_layers=1, L_layers=1, puzzle_emb_ndim=32)


def test_a_curriculum_lets_puzzles_take_more_segments_as_the_run_goes_on():
    arch, config = recipe("train.steps=100", "train.segment_curriculum=0.5", "arch.halt_max_steps=8")
    model = build_model(arch, TASK)
    start = Slots.empty(model, 4, torch.device("cpu"))
    sampler = Sampler(TASK, [Source("x", *TASK.generate(4, np.random.default_rng(0)), 1.0)], augment=True)
    training = Run(TASK, config, World(0, 1, torch.device("cpu")), model, sampler, [start], None)
    most = []
    for training.step in range(101):
        most.append(training.most_segments)
    assert most[0] == 2
    assert most == sorted(most)
    assert set(most) == set(range(2, 9))
    assert most[49] == 8 or most[50] == 8
    assert most[25] == pytest.approx(5, abs=1)
