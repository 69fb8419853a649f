"""Networks of others are trained as this project's own: by their own states, q heads and first states."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import run as run_command
from foreign_networks import Attending, ConvMixer, LoopedEncoder, SingleZ

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.export import GateOptions, export_bundle
from hrm_edge.exporters.options import ExportOptions
from hrm_edge.exporters.search.decide import Quantizing
from hrm_edge.models import load_checkpoint, quantization_of, quantized_layers
from hrm_edge.models.engine import TorchEngine
from hrm_edge.models.fake_quant import quantize_model
from hrm_edge.models.network import bare
from hrm_edge.models.source import NetworkSource
from hrm_edge.runtimes import load_engine
from hrm_edge.tasks import get_task
from hrm_edge.trainer import load_recipe, train
from hrm_edge.trainer.data import Sampler, Source
from hrm_edge.trainer.distributed import World
from hrm_edge.trainer.run import Run
from hrm_edge.trainer.slots import Slots

pytestmark = pytest.mark.usefixtures("short_runs")

TASK = get_task("sudoku-4x4")
DATA = ["generated:60"]
NETWORKS = ["short", "LoopedEncoder", "ConvMixer"]
QUICK = ["train.batch_size=8", "train.log_every=1", "train.eval_puzzles=4", "train.final_puzzles=4"]


def small(task):
    return SingleZ(task, width=32, heads=2, L_cycles=1, layers=1)


def short(task):
    return SingleZ(task, width=32, heads=2, H_cycles=1, L_cycles=1, layers=1)


def counting(task):
    return LoopedEncoder(task, tolerance=None)


class Drawn(LoopedEncoder):
    """Answers by more than its weights."""

    def __init__(self, task):
        super().__init__(task)
        self.drawn = torch.randn(48)

    def start(self, tokens):
        first, e = super().start(tokens)
        return first, e + self.drawn


FACTORIES = {each.__name__: each for each in (Drawn, small, short, counting, LoopedEncoder, ConvMixer, Attending)}


def recipe(name, *settings):
    assert globals()[name] is FACTORIES[name]
    return load_recipe(TASK, "tiny", None, [*QUICK, *settings], NetworkSource(f"{__name__}:{name}"))


def run(output, name, *settings, initial=None):
    return train(TASK, *recipe(name, *settings), DATA, output, "cpu", None, initial)


def rows(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in lines if "loss" in row]


# -- against a loop in plain PyTorch -----------------------------------------------------------------------------


PLAIN = ["train.interleave=1", "train.schedule=constant", "train.warmup_steps=0", "train.ema_decay=0.0"]
PLAIN += ["train.grad_clip=0.0", "train.rollout=2", "train.steps=100", "train.augment=false", "train.lr=1e-2"]
PLAIN += ["arch.halt_max_steps=2", "arch.halt_exploration_prob=0"]


def plain_losses(network, sampler, config, steps, most):
    """The loss of each step: segments with detached states, cross-entropy, and binary cross-entropy for each q."""
    optimizer = torch.optim.AdamW(network.parameters(), config.lr, (config.beta1, config.beta2), weight_decay=0.1)
    count, losses = config.batch_size, []
    tokens = labels = torch.zeros(count, TASK.seq_len, dtype=torch.long)
    states, done, taken = None, torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.long)
    for step in range(steps):
        total = 0
        for segment in range(config.rollout):
            rng = np.random.default_rng([config.seed, step + 1, segment])
            if done.any():
                new, answers, _ = (torch.from_numpy(drawn).long() for drawn in sampler.draw(rng, count))
                tokens, labels = (torch.where(done[:, None], a, b) for a, b in ((new, tokens), (answers, labels)))
                taken = taken.where(~done, 0)
            e, *begin = network.start(tokens)
            if states is not None:
                fresh = (taken == 0).float()
                begin = [
                    b * fresh.view(-1, *[1] * (b.ndim - 1)) + s * (1 - fresh).view(-1, *[1] * (b.ndim - 1))
                    for b, s in zip(begin, states, strict=True)
                ]
            outputs = network.segment(*begin, e)
            states, logits = [z.detach() for z in outputs[: len(begin)]], outputs[len(begin)]
            q = outputs[len(begin) + 1] if len(outputs) > len(begin) + 1 else None
            taken = taken + 1
            done = taken >= most
            loss = F.cross_entropy(logits.transpose(1, 2), labels)
            if q is not None:
                right = (logits.argmax(-1) == labels).all(-1).float()
                halting = F.binary_cross_entropy_with_logits(q[:, 0], right)
                stops = q[:, 0] > (q[:, 1] if q.shape[1] == 2 else 0)
                if q.shape[1] == 2:
                    with torch.no_grad():
                        ahead = network.segment(*states, e)[-1]
                    worth = torch.where(taken >= most, ahead[:, 0], ahead.amax(1))
                    halting = halting + F.binary_cross_entropy_with_logits(q[:, 1], worth.sigmoid())
                loss = loss + config.halt_loss_weight * halting
                done = done | stops
            total = total + loss / config.rollout
        losses.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize("name", ["small", "counting", "ConvMixer"])
def test_losses_are_those_of_a_plain_loop(name):
    source, config = recipe(name, *PLAIN)
    torch.manual_seed(0)
    model = source.build(TASK).train()
    torch.manual_seed(0)
    network = FACTORIES[name](TASK)
    sampler = Sampler(TASK, [Source("x", *TASK.generate(20, np.random.default_rng(0)), 1.0)], augment=False)
    alone = World(0, 1, torch.device("cpu"))
    training = Run(TASK, config, alone, model, sampler, [Slots.empty(model, 8, alone.device)], None)
    training.fill()
    ours = [float(training.train_step()[0]) for _ in range(6)]
    theirs = plain_losses(network, sampler, config, 6, most=2)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < ours[0]
    for (what, weight), theirs in zip(bare(model).named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(weight, theirs, atol=2e-4, rtol=1e-3, msg=what)
    torch.manual_seed(0)
    untrained = FACTORIES[name](TASK).parameters()
    for (what, weight), before in zip(network.named_parameters(), untrained, strict=True):
        assert not torch.equal(weight, before), what  # the first state's parameters learn, too


# -- whole runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request, tmp_path_factory):
    """A run of three steps that was interrupted after two, beside one that was not."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = [
        "train.interleave=2",
        "train.schedule=constant",
        "train.accumulate=2",
        "train.segment_curriculum=0.5",
    ]
    run(folder / "whole", request.param, *settings, "train.steps=4", "train.save_every=3")
    run(folder / "parts", request.param, *settings, "train.steps=3", "train.save_every=3")
    run(folder / "parts", request.param, *settings, "train.steps=4", "train.save_every=3")
    return folder


def test_a_resumed_run_is_the_very_same_run(trained):
    whole, parts = (rows(trained / name) for name in ("whole", "parts"))
    assert len(whole) == 4
    assert [row | {"lr": 0} for row in whole[3:]] == [row | {"lr": 0} for row in parts[3:]]
    a, b = (torch.load(trained / name / "state" / "rank0.pt", weights_only=True) for name in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    hashes = {load_checkpoint(trained / name).content_hash for name in ("whole", "parts")}
    assert len(hashes) == 1


def test_a_run_is_a_checkpoint_that_exports_and_answers_as_pytorch(trained, tmp_path):
    checkpoint = load_checkpoint(trained / "whole")
    assert checkpoint.metadata["steps"] == 4
    assert "halt_margin" in checkpoint.metadata or not checkpoint.config.learns_halting
    assert not any(weight.requires_grad for weight in checkpoint.model.parameters())
    export_bundle(checkpoint, ExportOptions.for_target("onnx", "fp32", "graph"), tmp_path / "b", GateOptions(None))
    questions = generate_puzzles(TASK, 6, 5).questions
    for how in ({"halt": "learned"}, {"halt": "fixed", "max_think_steps": 3}):
        ours, theirs = (
            load_engine(tmp_path / "b").solve(questions, **how),
            TorchEngine(checkpoint).solve(questions, **how),
        )
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.steps, theirs.steps)
        np.testing.assert_allclose(ours.q, theirs.q, atol=1e-4)


def test_a_run_goes_on_from_another(trained, tmp_path):
    first = load_checkpoint(trained / "whole")
    still = ["train.lr=1e-12", "train.weight_decay=0.0", "train.ema_decay=0.0", "train.steps=1"]
    arch, config = load_recipe(TASK, "tiny", None, [*QUICK, *still], first.model.source)
    second = load_checkpoint(train(TASK, arch, config, DATA, tmp_path / "run", "cpu", None, first))
    for name, weight in bare(second.model).state_dict().items():
        torch.testing.assert_close(weight, bare(first.model).state_dict()[name])
    assert second.metadata["recipe"]["started_from"] == first.content_hash
    assert "Stage 2: 1 steps" in second.card


def test_the_margin_lowers_what_says_halt():
    torch.manual_seed(0)
    model = NetworkSource(f"{__name__}:ConvMixer").build(TASK).requires_grad_(False)
    e, *state = model.start(torch.from_numpy(generate_puzzles(TASK, 2, 0).questions))
    before = model.segment(*state, e)[-1]
    model.distrust(1.5)
    after = model.segment(*state, e)[-1]
    torch.testing.assert_close(before - after, torch.tensor([[1.5, 0.0]]).expand(2, 2))
    again = model.source.build(TASK)
    assert again.config.halt_margin == 1.5


def test_what_is_drawn_at_random_is_kept(tmp_path):
    with pytest.raises(InputError, match="made anew with the same weights it answers otherwise"):
        run(tmp_path / "run", "Drawn", "train.steps=1")


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": SingleZ(TASK).state_dict(), "ema": SingleZ(TASK).state_dict()}, "step_7.pt")
    settings = [part for setting in (*QUICK, "train.steps=1") for part in ("--set", setting)]
    return ["train", "--task", TASK.name, "--preset", "tiny", "--data", DATA[0], "-o", "run", *settings]


def test_from_the_command_line(command, capsys):
    network = ["--network", "foreign_networks:SingleZ", "--weights", "step_7.pt", "--key", "ema"]
    still = ["--set", "train.lr=1e-12", "--set", "train.weight_decay=0.0", "--set", "train.ema_decay=0.0"]
    code, _, err = run_command(capsys, *command, *network, *still)
    assert code == 0, err
    assert "next: hrm-edge export run" in err
    saved = torch.load("step_7.pt", weights_only=True)["ema"]
    torch.testing.assert_close(bare(load_checkpoint("run").model).state_dict(), saved)
    puzzles = generate_puzzles(TASK, 12, 5)
    lines = [f"{TASK.format(q)},{TASK.format(a)}" for q, a in zip(puzzles.questions, puzzles.answers, strict=True)]
    with open("p.csv", "w") as file:
        file.write("question,answer\n" + "\n".join(lines) + "\n")
    assert run_command(capsys, "eval", "run", "--data", "p.csv", "--n", "8")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "step_7.pt"], "--weights: has no meaning without --network"),
        (["--network", "foreign_networks:SingleZ", "--key", "ema"], "--key: has no meaning without --weights"),
        (["--network", "foreign_networks:SingleZ", "--from", "sudoku-9x9"], "not both"),
        (["--network", "foreign_networks:SingleZ", "--weights", "step_7.pt"], "--key"),
        (
            ["--network", "foreign_networks:SingleZ", "--set", "arch.hidden_size=3"],
            "arch.hidden_size is its factory's",
        ),
        (["--network", "foreign_networks:SingleZ", "--set", "arch.halt_max_steps=0"], "halt_max_steps is '0'"),
        (["--network", "foreign_networks:Nobody"], "cannot be imported"),
    ],
)
def test_mistakes_are_one_line(command, capsys, arguments, said):
    code, _, err = run_command(capsys, *command, *arguments)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


# -- quantization-aware ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Attending", *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS)])
def test_int8_answers_as_the_tuned_model_says(name, tmp_path):
    """Every inner product in int8 with the trained scales, and what they come to is the fake-quantized model's."""
    first = load_checkpoint(run(tmp_path / "first", name, "train.steps=2"))
    tuning = ["train.qat=learned", "train.steps=3", "train.lr=1e-3"]
    tuned = load_checkpoint(run(tmp_path / "tuned", name, *tuning, initial=first))
    found = quantization_of(tuned)
    assert list(found.activations) == quantized_layers(first.model) != []
    assert found.started_from == first.content_hash
    assert {*tuned.metadata} >= {"accuracy", "accuracy_quantized", "accuracy_start"}
    options = ExportOptions.for_target("onnx", "int8", "host")
    made = export_bundle(
        tuned, options, tmp_path / "b", GateOptions(None), Quantizing(calibration=8, sensitivity=0, max_drop=None)
    )
    assert {layer.name for layer in made.quantization.layers} == set(found.activations)
    assert made.products.found == made.products.expected >= len(found.activations)
    assert {site.scale for site in made.quantization.sites} == set(found.activations.values())
    ships = quantize_model(tuned.model, found.activations, learned=False)
    questions = generate_puzzles(TASK, 16, 5).questions
    how = {"halt": "fixed", "max_think_steps": 2}
    ours = load_engine(tmp_path / "b").solve(questions, **how)
    theirs, plain = (
        TorchEngine(dataclasses.replace(tuned, model=each)).solve(questions, **how) for each in (ships, tuned.model)
    )
    assert (ours.tokens == theirs.tokens).mean() > 0.97
    error = np.abs(ours.q - theirs.q).mean()
    assert error <= 0.3 * np.abs(plain.q - theirs.q).mean() or error < 1e-4


def test_tuning_resumes_exactly(tmp_path):
    first = load_checkpoint(run(tmp_path / "first", "ConvMixer", "train.steps=2"))
    settings = ["train.qat=learned", "train.schedule=constant", "train.save_every=2"]
    run(tmp_path / "whole", "ConvMixer", *settings, "train.steps=4", initial=first)
    for steps in (2, 4):
        run(tmp_path / "parts", "ConvMixer", *settings, f"train.steps={steps}", initial=first)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    whole, parts = (quantization_of(load_checkpoint(tmp_path / name)) for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize("field", ["bf16", "compile"])
def test_tuning_is_eager_and_in_float32(tmp_path, field):
    first = load_checkpoint(run(tmp_path / "first", "ConvMixer", "train.steps=1"))
    with pytest.raises(InputError, match=r"drop train\.bf16 and train\.compile"):
        run(
            tmp_path / "tuned",
            "ConvMixer",
            "train.qat=learned",
            f"train.{field}=true",
            "train.steps=1",
            initial=first,
        )
