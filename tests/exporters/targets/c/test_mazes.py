"""A maze's rules in C: what `hrm_verify` says of an answer is what the task says of it."""

import ctypes
import subprocess

import numpy as np
import pytest
import torch
from c_sources import COMPILERS, WARNINGS
from toys import manifest

from hrm_edge.exporters.build import trace
from hrm_edge.exporters.graph.edit import copied
from hrm_edge.exporters.graph.passes import fix_batch
from hrm_edge.exporters.targets.c.source import write_source
from hrm_edge.halting import VERIFIED
from hrm_edge.models import Checkpoint, HRMConfig
from hrm_edge.models.checkpoint import build_model
from hrm_edge.portable import portable_facts
from hrm_edge.tasks import get_task

SIZES = ["maze-5x6", "maze-9x5"]
pytestmark = pytest.mark.skipif(not COMPILERS, reason="no C compiler")


@pytest.fixture(scope="module", params=SIZES)
def maze(request, tmp_path_factory):
    """(Task, library of a network that nobody trained)"""
    task, folder = get_task(request.param), tmp_path_factory.mktemp("maze")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "H_cycles": 1, "L_cycles": 1}
    config = HRMConfig(vocab_size=task.vocab_size, seq_len=task.seq_len, halt_max_steps=4, **shape)
    model = build_model(config, task).eval().requires_grad_(False)
    single = [copied(graph) for graph in trace(Checkpoint(model, task, "", {}, "0" * 64, folder))]
    for graph in single:
        fix_batch(graph, 1)
    made = write_source(*single, task, name="maze", max_think_steps=4, no_ACT_continue=False)
    (folder / "hrm.h").write_text(made.header)
    (folder / "hrm.c").write_text(made.source)
    flags = [*WARNINGS, "-O1", "-fPIC", "-shared", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    command = [COMPILERS[0], *flags, "hrm.c", "-o", "hrm.so", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "#define HRM_CAN_VERIFY 1 " in made.header
    return task, ctypes.CDLL(str(folder / "hrm.so"))


def told(library, question, answer) -> bool:
    boards = [np.ascontiguousarray(board, np.int32) for board in (question, answer)]
    return bool(library.hrm_verify(*(ctypes.c_void_p(board.ctypes.data) for board in boards)))


def boards(task, count):
    """Mazes with their answers, and what is near: one cell changed, in answer, in question or in both; detours."""
    rng = np.random.default_rng(7)
    questions, answers = task.generate(count, rng)
    for question, answer in zip(questions, answers, strict=True):
        yield question, answer
        yield question, question
        for side in ("answer", "question", "both"):
            cell, token = rng.integers(task.seq_len), rng.integers(0, task.vocab_size + 1)
            q, a = question.copy(), answer.copy()
            if side != "question":
                a[cell] = token
            if side != "answer":
                q[cell] = token
            yield q, a
        walls = rng.choice(np.flatnonzero(question == 1), 4, replace=False)
        opened = question.copy()
        opened[walls] = 2  # there may be a shorter way now
        yield opened, np.where(answer == 5, 5, opened)
        other = task.solve(opened)
        yield opened, other
        yield question, np.where(question == 2, 5, question)


def test_it_judges_answers_as_the_task_does(maze):
    task, library = maze
    seen = [(bool(task.verify(q[None], a[None])[0]), told(library, q, a)) for q, a in boards(task, 60)]
    assert [ours for _, ours in seen] == [theirs for theirs, _ in seen]
    assert 100 < sum(right for right, _ in seen) < len(seen) - 100


def test_a_bundle_of_a_loop_on_the_host_may_be_asked_for_it():
    task = get_task(SIZES[0])
    facts = {"task": task.name, "vocabulary": tuple(task.vocabulary)}
    assert portable_facts(manifest(loop="host", **facts), task)["halting"]["modes"]["verified"] == VERIFIED.number
    assert "verified" not in portable_facts(manifest(loop="graph", **facts), task)["halting"]["modes"]
