"""A toy bundle, its puzzles in a file, and what is right."""

import pytest
import toys
from job_workers import ROWS, SEED, SHARD

from hrm_edge.jobs import folder, run


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    built = run.job_of
    monkeypatch.setattr(run, "job_of", lambda *given: folder.replace(built(*given), shard_rows=SHARD))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toys.write_hollow_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def questions():
    return toys.puzzles(ROWS, seed=SEED)


@pytest.fixture
def place(tmp_path, questions):
    lines = toys.TASK.format_many(questions)
    (tmp_path / "in.csv").write_text("id,question\n" + "".join(f"{n},{text}\n" for n, text in enumerate(lines)))
    return tmp_path


@pytest.fixture(scope="module")
def expected(questions):
    """By the engine alone, one call a puzzle."""
    engine, found = toys.host_engine(), []
    for question in questions:
        made = engine.solve(question[None])
        found.append(
            {
                "question": toys.TASK.format(question),
                "answer": toys.TASK.format(made.tokens[0]),
                "verified": bool(toys.TASK.verify(question[None], made.tokens)[0]),
                "steps": int(made.steps[0]),
                "halted": bool(made.halted[0]),
                "variant": 0,
                "segments": int(made.steps[0]),
            }
        )
    return found
