"""The models that ship: listed without torch, loadable, as good as their cards say, the same as bundles."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from hrm_edge import zoo
from hrm_edge.cli import main
from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.measure.artifact import open_artifact
from hrm_edge.models import load_checkpoint
from hrm_edge.models.checkpoint import resolve_checkpoint
from hrm_edge.zoo import list_zoo, read_card, zoo_models

NAMES = [path.name for path in zoo_models()]


def test_listing_needs_no_torch():
    code = "import sys; from hrm_edge.zoo import list_zoo; print(len(list_zoo()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(NAMES)), "False"]


def test_opening_a_checkpoint_reads_in_no_compiler():
    """torch's takes a second, and everything that opens one would wait for it.

    A candidate-state reasoner is wrapped as networks of others are, whose operations are counted when opened.
    """
    names = [name for name in NAMES if load_checkpoint(name).config.kind != "network"]
    assert len(names) > 4
    code = """
import sys
from hrm_edge.models import load_checkpoint
for name in sys.argv[1:]: load_checkpoint(name)
print({"sympy", "torch._dynamo"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_the_checkpoints_own(name):
    (row,) = (row for row in list_zoo() if row.name == name)
    checkpoint = load_checkpoint(name)
    assert row.parameters == sum(p.numel() for p in checkpoint.model.parameters())
    assert row.task == checkpoint.task.name
    assert row.size_mb < 20
    measured = checkpoint.metadata["accuracy"]["generated-ordinary"]
    assert (row.exact, row.n) == (measured["exact_by_segments"]["16"], measured["n"])
    assert read_card(name) == checkpoint.card
    json.dumps(row.to_dict())


def test_unknown_name_lists_what_ships():
    with pytest.raises(InputError, match=NAMES[0]):
        read_card("nonsense")


def test_a_wheel_says_where_the_others_are(monkeypatch, capsys):
    where = "the others are folders in models/zoo of a clone or of the sdist"
    for ask in (read_card, resolve_checkpoint, open_artifact):
        with pytest.raises(InputError) as here:
            ask("nonsense")
        assert where not in str(here.value)  # a clone has them all
        with monkeypatch.context() as wheel:
            wheel.setattr(zoo, "from_source", lambda: False)
            with pytest.raises(InputError, match=f"^nonsense: no such .*; {where}$"):
                ask("nonsense")
    monkeypatch.setattr(zoo, "from_source", lambda: False)
    with pytest.raises(SystemExit):
        main(["models"])
    assert where in capsys.readouterr().out


def fewest_right(promised: float, n: int) -> int:
    """Of n puzzles: a model that solves so many as promised solves fewer but 3 times in 100 000 (four sigma)."""
    chances = (math.comb(n, k) * promised**k * (1 - promised) ** (n - k) for k in range(n + 1))
    return sum(total < 3.2e-5 for total in itertools.accumulate(chances))


def puzzles_needed(promised: float, fewer: float = 0.25) -> int:
    """As many as tell a model from one that solves so much of all puzzles fewer."""
    return next(n for n in itertools.count(1) if fewest_right(promised, n) >= (promised - fewer) * n)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_card_tells_the_truth(name):
    """Solved anew on puzzles that neither training nor the card saw, until enough are solved."""
    from hrm_edge.models.engine import TorchEngine

    checkpoint = load_checkpoint(name)
    promised = checkpoint.metadata["accuracy"]["generated-ordinary"]["exact_by_segments"]["16"]
    # A large board takes ten times as long as another: fewer of them, which tell a coarser difference.
    fewer = 0.25 if checkpoint.task.seq_len < 400 else 0.4
    puzzles = generate_puzzles(checkpoint.task, puzzles_needed(promised, fewer), seed=77)
    engine, needed, found = TorchEngine(checkpoint), fewest_right(promised, len(puzzles)), 0
    for first in range(0, len(puzzles), 4):
        some = puzzles.select(np.arange(first, min(first + 4, len(puzzles))))
        answers = engine.solve(some.questions, 16, halt="fixed").tokens
        right = (answers == some.answers).all(axis=1)
        assert (checkpoint.task.verify(some.questions, answers) == right).all()
        found += right.sum()
        if found >= needed:
            return
    pytest.fail(f"{found} of {len(puzzles)} were solved, where {promised:.1%} are promised")


def test_too_few_would_be_noticed():
    """60 puzzles of a rate that nobody knew before told no smaller difference."""
    for promised in (0.6, 0.75, 0.9, 0.975):
        n = puzzles_needed(promised)
        assert fewest_right(promised, n) / n > promised - 4 * np.sqrt(0.25 / 60)
        assert n <= 60
