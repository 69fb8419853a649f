"""The float reference: the definition, row by row; and a cache that is used when right and never when not."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
import torch

from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.measure import cache as answer_cache
from hrm_edge.measure import reference
from hrm_edge.measure.reference import has_reference_answers, reference_answers
from hrm_edge.models import HRMConfig, build_model, load_checkpoint, save_checkpoint
from hrm_edge.models.engine import TorchEngine
from hrm_edge.runtimes import HostLoop
from hrm_edge.runtimes.engine import joined
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")
N = 40  # puzzles
SMALL = {"hidden_size": 32, "num_heads": 2, "H_layers": 1, "L_layers": 1, "halt_max_steps": 6}


def made(path, **changes):
    """A checkpoint with random weights whose halting head stops different rows at different segments."""
    torch.manual_seed(9)
    config = HRMConfig(TASK.vocab_size, TASK.seq_len, **{**SMALL, **changes})
    model = build_model(config, TASK)
    torch.nn.init.normal_(model.q_head.weight, std=1.0)
    torch.nn.init.zeros_(model.q_head.bias)
    if config.prefix_len:
        torch.nn.init.normal_(model.puzzle_emb.weight)
    return load_checkpoint(save_checkpoint(path, model, TASK.name, "# random"))


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small only get slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return made(tmp_path_factory.mktemp("ck") / "m")


@pytest.fixture(scope="module")
def puzzles():
    return generate_puzzles(TASK, N, seed=0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def one_by_one(checkpoint, tokens, limit, halt):
    """The definition, one puzzle at a time and without any batching."""
    model, rows = checkpoint.model, []
    for question in tokens:
        x = torch.from_numpy(question[None])
        e, (z_H, z_L) = model.embed(x), model.initial_state(1)
        for step in itertools.count(1):
            z_H, z_L, logits, q = model.segment(z_H, z_L, e)
            guess = logits.argmax(-1)[0].int().numpy()
            learned = q[0, 0] > (0 if checkpoint.config.no_ACT_continue else q[0, 1])
            stop = {"learned": learned, "verified": TASK.verify(question[None], guess[None])[0], "fixed": False}
            if stop[halt] or step == limit:
                break
        rows.append((guess, step, q[0].numpy()))
    return (np.array(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("halt", ["learned", "fixed", "verified"])
def test_is_the_definition(checkpoint, puzzles, halt):
    tokens, steps, q = one_by_one(checkpoint, puzzles.questions, 6, halt)
    answers = TorchEngine(checkpoint).solve(puzzles.questions, halt=halt)
    np.testing.assert_array_equal(answers.steps, steps)
    np.testing.assert_array_equal(answers.tokens, tokens)
    np.testing.assert_allclose(answers.q, q, atol=1e-4)
    if halt == "learned":
        assert len(set(steps)) > 2, "rows must halt at different segments for this to mean something"


def test_no_ACT_continue_halts_on_a_positive_q(tmp_path, puzzles):
    checkpoint = made(tmp_path / "m", no_ACT_continue=True)
    answers = TorchEngine(checkpoint).solve(puzzles.questions)
    np.testing.assert_array_equal(answers.halted, answers.q[:, 0] > 0)
    assert set(answers.steps[~answers.halted]) <= {6}


def test_agrees_with_the_host_loop(checkpoint, puzzles):
    model = checkpoint.model

    def start(tokens):
        e, (z_H, z_L) = model.embed(torch.from_numpy(tokens)), model.initial_state(len(tokens))
        return [t.numpy() for t in (e, z_H, z_L)]

    def segment(*state):
        return [t.numpy() for t in model.segment(*(torch.from_numpy(np.ascontiguousarray(a)) for a in state))]

    host = HostLoop(TASK, 6, start, segment, backend="toy", slots=7)
    a, b = (engine.solve(puzzles.questions, trace=True) for engine in (host, TorchEngine(checkpoint)))
    for name in ("tokens", "steps", "halted", "trace"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_allclose(a.q, b.q, atol=1e-4)


def test_trace_ends_with_the_answer_and_repeats_after_halting(checkpoint, puzzles):
    answers = TorchEngine(checkpoint).solve(puzzles.questions, trace=True)
    assert answers.trace.shape == (answers.steps.max(), N, TASK.seq_len)
    for row, step in enumerate(answers.steps):
        assert (answers.trace[step - 1 :, row] == answers.tokens[row]).all()


def test_puzzle_identifiers_reach_the_model(tmp_path, puzzles):
    engine = TorchEngine(made(tmp_path / "m", num_puzzle_identifiers=3, puzzle_emb_ndim=32))
    few = puzzles.questions[:4]
    first, other = (engine.solve(few, halt="fixed", puzzle_identifiers=np.full(4, k)) for k in (0, 2))
    np.testing.assert_array_equal(engine.solve(few, halt="fixed").q, first.q)
    assert not np.allclose(first.q, other.q)
    with pytest.raises(InputError, match="between 0 and 2"):
        engine.solve(few, puzzle_identifiers=np.full(4, 3))


def test_several_threads_get_the_same_answers(checkpoint, puzzles):
    engine, results = TorchEngine(checkpoint), []
    threads = [threading.Thread(target=lambda: results.append(engine.solve(puzzles.questions))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((r.tokens == results[0].tokens).all() for r in results)
    assert len(results) == 3


# -- cache -----------------------------------------------------------------------------------------------


@pytest.fixture
def solved(monkeypatch):
    """Counts how often the reference really computes."""
    calls = []
    compute = reference._computed
    monkeypatch.setattr(reference, "_computed", lambda *a, **k: calls.append(1) or compute(*a, **k))
    return calls


def same(a, b):
    return all((getattr(a, f.name) == getattr(b, f.name)).all() for f in dataclasses.fields(a) if f.name != "trace")


def test_second_run_reads_the_cache(checkpoint, puzzles, cache, solved):
    assert not has_reference_answers(checkpoint, puzzles)
    first = reference_answers(checkpoint, puzzles)
    assert has_reference_answers(checkpoint, puzzles)
    assert same(first, reference_answers(checkpoint, puzzles))
    assert len(solved) == 1
    assert len(list((cache / "reference").iterdir())) == 1, "one whole file, no leftovers"


def test_whatever_the_answers_depend_on_is_in_the_key(checkpoint, puzzles, cache, solved, tmp_path):
    reference_answers(checkpoint, puzzles)
    reference_answers(checkpoint, puzzles, max_think_steps=2)
    reference_answers(checkpoint, puzzles, halt="fixed")
    reference_answers(checkpoint, puzzles.select(np.arange(5)))
    reference_answers(made(tmp_path / "other", expansion=2.0), puzzles)
    assert len(solved) == 5
    reference_answers(checkpoint, puzzles, max_think_steps=6)  # the default, spelled out
    renamed = PuzzleSet(TASK, puzzles.questions, puzzles.answers, ["x"] * N, "renamed")
    reference_answers(checkpoint, renamed)
    assert len(solved) == 5


def test_everything_that_computes_answers_is_in_the_key():
    names = {"/".join(file.parts[-2:]) for file in answer_cache.code_files()}
    assert {
        "loops/host.py",
        "runtimes/engine.py",
        "sudoku/task.py",
        "tasks/base.py",
        "hrm_edge/halting.py",
    } <= names
    assert {"models/layers.py", "models/mixers.py", "models/engine.py", "measure/accuracy.py"} <= names
    assert {"exporters/emulator.py", "targets/openvino.py", "solve/retries.py", "hrm_edge/identifiers.py"} <= names


def test_other_code_cpu_packages_and_identifiers_are_computed_again(
    checkpoint, puzzles, cache, solved, monkeypatch
):
    reference_answers(checkpoint, puzzles)
    for number, (name, other) in enumerate(
        [
            ("code_hash", lambda: "other code"),
            ("cpu_arithmetic", lambda: "x86-64, AVX2"),
            ("version_of", lambda package: "0.1"),
            ("_task_code", lambda task: ["other task"]),
        ]
    ):
        with monkeypatch.context() as patch:
            patch.setattr(answer_cache, name, other)
            reference_answers(checkpoint, puzzles)
        assert len(solved) == number + 2
    cut = dataclasses.replace(checkpoint, metadata={**checkpoint.metadata, "puzzle_identifiers": "0"})
    reference_answers(cut, puzzles)
    longer = dataclasses.replace(checkpoint.config, halt_max_steps=7)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.model, "config", longer)
        reference_answers(checkpoint, puzzles, max_think_steps=6)
    assert len(solved) == 7


@pytest.mark.parametrize("threads", [1, 3])
def test_answers_are_those_of_one_thread_bit_for_bit_however_many_there_are(
    checkpoint, puzzles, cache, solved, threads, monkeypatch
):
    """As many callers, each on rows of its own; afterwards PyTorch has as many threads as before."""
    monkeypatch.setattr(reference, "ROWS", 7)
    expected = [TorchEngine(checkpoint).solve(puzzles.questions[first : first + 7]) for first in range(0, N, 7)]
    seen = []
    torch.set_num_threads(threads)
    found = reference_answers(checkpoint, puzzles, progress=lambda what, done, total: seen.append((done, total)))
    assert torch.get_num_threads() == threads
    assert same(found, joined(expected))
    assert seen == [(min(7 * (i + 1), N), N) for i in range(len(expected))]
    torch.set_num_threads(4 - threads)
    assert has_reference_answers(checkpoint, puzzles)


def test_another_s_network_is_asked_by_one_caller_at_a_time(checkpoint, puzzles, cache, monkeypatch):
    """It may keep on itself what it computes with."""
    monkeypatch.setattr(reference, "HRM", type(None))
    torch.set_num_threads(3)
    with reference._callers(checkpoint) as (count, rows, _):
        assert (count, rows) == (1, 64)
    assert same(reference_answers(checkpoint, puzzles), TorchEngine(checkpoint).solve(puzzles.questions))
    assert has_reference_answers(checkpoint, puzzles)
    torch.set_num_threads(2)
    assert not has_reference_answers(checkpoint, puzzles)


def test_the_code_of_a_task_that_does_not_ship_counts():
    class Own(type(TASK)):
        pass

    own = object.__new__(Own)
    assert len(answer_cache._task_code(own)) == len(answer_cache._task_code(TASK)) + 1


@pytest.mark.parametrize("wrong", ["rows", "cells", "dtype", "missing"])
def test_a_whole_file_with_other_arrays_is_computed_again(checkpoint, puzzles, cache, solved, wrong, monkeypatch):
    right = reference_answers(checkpoint, puzzles)
    (file,) = (cache / "reference").iterdir()
    other = {
        "rows": lambda a: dataclasses.replace(a, steps=a.steps[:-1]),
        "cells": lambda a: dataclasses.replace(a, tokens=a.tokens[:, 1:]),
        "dtype": lambda a: dataclasses.replace(a, tokens=a.tokens.astype(np.int64)),
        "missing": lambda a: a,
    }[wrong](right)
    if wrong == "missing":
        with monkeypatch.context() as patch:
            patch.setattr(answer_cache, "_FIELDS", ("tokens", "steps"))
            file.write_bytes(answer_cache._to_bytes(other))
    else:
        file.write_bytes(answer_cache._to_bytes(other))
    assert same(right, reference_answers(checkpoint, puzzles))
    assert len(solved) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "folder"])
def test_a_damaged_cache_is_computed_again(checkpoint, puzzles, cache, solved, damage):
    right = reference_answers(checkpoint, puzzles)
    (file,) = (cache / "reference").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes({"flip": bytes(content), "cut": content[:-9], "empty": b"", "text": b"no"}[damage])
    assert same(right, reference_answers(checkpoint, puzzles))
    assert len(solved) == 2
    if damage != "folder":
        assert same(right, reference_answers(checkpoint, puzzles))
        assert len(solved) == 2


def test_a_cache_that_cannot_be_written_is_done_without(checkpoint, puzzles, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HRM_EDGE_CACHE", str(tmp_path / "file"))
    assert len(reference_answers(checkpoint, puzzles).steps) == N
    assert "not cached" in capsys.readouterr().err


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("HRM_EDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert answer_cache.cache_folder() == tmp_path / "hrm-edge"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert answer_cache.cache_folder().parent.name == ".cache"


def test_nobody_waits_for_the_other_threads_segments_where_one_fails(tmp_path, cache, puzzles, monkeypatch):
    """Nor at Ctrl-C, which comes out of the same loop: at paper size they are minutes."""
    checkpoint, many = made(tmp_path / "m"), 10**5
    think, others, asked = checkpoint.model.segment, threading.Event(), []

    def segment(*arrays):
        if len(arrays[0]) == 8:
            assert others.wait(60)
            raise KeyboardInterrupt
        asked.append(None)
        others.set()
        return think(*arrays)

    monkeypatch.setattr(checkpoint.model, "segment", segment)
    monkeypatch.setattr(reference, "ROWS", 8)
    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        reference_answers(checkpoint, puzzles.select(np.arange(12)), max_think_steps=many, halt="fixed")
    assert torch.get_num_threads() == 2
    assert len(asked) < many
