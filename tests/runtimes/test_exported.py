"""Really exported networks: every backend and loop answers like PyTorch, and rows do not touch each other."""

import functools
import threading
from pathlib import Path

import numpy as np
import pytest
import shared_traces

from hrm_edge.errors import InputError
from hrm_edge.runtimes import HALT_MODES, load_engine
from hrm_edge.solve.scheduler import Scheduler
from hrm_edge.tasks import get_task

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from ungated import build_bundle  # noqa: E402

from hrm_edge.exporters import build  # noqa: E402
from hrm_edge.exporters.options import ExportOptions  # noqa: E402
from hrm_edge.models import HRM, Checkpoint, HRMConfig  # noqa: E402
from hrm_edge.models.engine import TorchEngine  # noqa: E402

pytestmark = pytest.mark.slow

TASK = get_task("sudoku-4x4")
QUESTIONS = TASK.generate(11, np.random.default_rng(5))[0]
FEW = [("onnx", "host"), ("openvino", "graph")]  # tracing takes seconds
KINDS = [(target, loop) for target in ("onnx", "openvino") for loop in ("host", "graph")]


def checkpoint(**changes) -> Checkpoint:
    """A small network whose halting head has an opinion, so that rows stop after different segments."""
    torch.manual_seed(3)
    values = {"hidden_size": 32, "num_heads": 2, "H_layers": 1, "L_layers": 1, "pos_encodings": "grid"}
    config = HRMConfig(vocab_size=TASK.vocab_size, seq_len=TASK.seq_len, halt_max_steps=6, **{**values, **changes})
    model = HRM(config, TASK.position_ids).eval()
    with torch.no_grad():
        model.q_head.weight.normal_(std=0.5)
        if config.puzzle_emb_ndim:
            model.puzzle_emb.weight.normal_()
        model.q_head.bias.copy_(torch.tensor([-2.1, 2.1]))
    return Checkpoint(model, TASK, card="", metadata={}, content_hash="0" * 64, path=Path("small"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(checkpoint, its engine) for each kind of bundle, written once and from one trace per checkpoint."""
    patch = pytest.MonkeyPatch()
    for name in ("trace_start", "trace_segment"):
        patch.setattr(build, name, getattr(shared_traces, name))
    sources = {False: checkpoint(), True: checkpoint(num_puzzle_identifiers=3, puzzle_emb_ndim=32)}

    @functools.cache
    def bundle(target, loop, batch, several):
        folder = tmp_path_factory.mktemp("bundle")
        build_bundle(sources[several], ExportOptions(target, "fp32", loop, batch), folder, "small")
        return folder

    @functools.cache
    def engine(target, loop, batch=None, several=False, threads=1, streams=1):
        folder = bundle(target, loop, batch, several)
        return sources[several], load_engine(folder, threads=threads, streams=streams)

    yield engine
    patch.undo()


@pytest.mark.parametrize(("target", "loop"), KINDS)
@pytest.mark.parametrize("halt", HALT_MODES)
def test_like_pytorch(exported, target, loop, halt):
    source, engine = exported(target, loop)
    wanted = TorchEngine(source).solve(QUESTIONS, halt=halt, trace=True)
    answers = engine.solve(QUESTIONS, halt=halt, trace=True)
    for name in ("tokens", "steps", "halted", "trace"):
        assert np.array_equal(getattr(answers, name), getattr(wanted, name)), name
    assert np.allclose(answers.q, wanted.q, atol=2e-3)  # an untrained network magnifies rounding
    if halt == "learned":
        assert len(set(wanted.steps.tolist())) > 2  # or the comparison would show little


@pytest.mark.parametrize(("target", "loop"), KINDS)
def test_rows_are_bit_for_bit_the_same_alone_and_together(exported, target, loop):
    _, engine = exported(target, loop)
    together = engine.in_whole_calls().solve(QUESTIONS)
    for row in range(len(QUESTIONS)):
        alone = engine.solve(QUESTIONS[row : row + 1])
        assert np.array_equal(alone.tokens[0], together.tokens[row])
        assert alone.steps[0] == together.steps[row]
        assert np.array_equal(alone.q[0], together.q[row])


@pytest.mark.parametrize(("target", "loop"), FEW)
def test_a_fixed_batch(exported, target, loop):
    _, free = exported(target, loop)
    _, fixed = exported(target, loop, 4)
    assert fixed.batch == 4
    one, two = free.solve(QUESTIONS), fixed.solve(QUESTIONS)
    assert np.array_equal(one.tokens, two.tokens)
    assert np.array_equal(one.steps, two.steps)


@pytest.mark.parametrize(("target", "loop"), FEW)
def test_puzzle_identifiers(exported, target, loop):
    source, engine = exported(target, loop, several=True)
    identifiers = np.arange(len(QUESTIONS)) % 3
    wanted = TorchEngine(source).solve(QUESTIONS, puzzle_identifiers=identifiers)
    answers = engine.solve(QUESTIONS, puzzle_identifiers=identifiers)
    assert np.array_equal(answers.tokens, wanted.tokens)
    assert np.array_equal(answers.steps, wanted.steps)
    assert not np.array_equal(answers.tokens, engine.solve(QUESTIONS).tokens)
    with pytest.raises(InputError, match="between 0 and 2"):
        engine.solve(QUESTIONS, puzzle_identifiers=identifiers + 1)


@pytest.mark.parametrize(("target", "loop"), KINDS)
def test_neither_streams_nor_threads_change_a_number(exported, target, loop):
    """What a scheduler answers is what was gated: bit for bit that of one stream with all threads."""
    with Scheduler(exported(target, loop, threads=2, streams=2)[1]) as scheduler:
        outcomes = list(scheduler.map(QUESTIONS))
    for threads in (1, 2):
        _, engine = exported(target, loop, threads=threads)
        alone = [engine.solve(question[None]) for question in QUESTIONS]
        for answers, outcome in zip(alone, outcomes, strict=True):
            assert np.array_equal(answers.tokens[0], outcome.tokens)
            assert np.array_equal(answers.q[0], outcome.q)
            assert (answers.steps[0], answers.halted[0]) == (outcome.steps, outcome.halted)


@pytest.mark.parametrize(("target", "loop"), KINDS)
def test_from_several_threads(exported, target, loop):
    _, engine = exported(target, loop)
    wanted = engine.solve(QUESTIONS)
    wrong = []

    def work(number):
        rows = np.roll(np.arange(len(QUESTIONS)), number)
        if not np.array_equal(engine.solve(QUESTIONS[rows]).tokens, wanted.tokens[rows]):
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
