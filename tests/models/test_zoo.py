"""The models that ship: listed without torch, loadable, as good as their cards say, the same as bundles."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hrm_edge.data.puzzles import generate_puzzles
from hrm_edge.errors import InputError
from hrm_edge.models import load_checkpoint
from hrm_edge.zoo import list_zoo, read_card, zoo_models

NAMES = [path.name for path in zoo_models()]


def test_listing_needs_no_torch():
    code = "import sys; from hrm_edge.zoo import list_zoo; print(len(list_zoo()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(NAMES)), "False"]


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_the_checkpoints_own(name):
    (row,) = (row for row in list_zoo() if row.name == name)
    checkpoint = load_checkpoint(name)
    assert row.parameters == sum(p.numel() for p in checkpoint.model.parameters())
    assert row.task == checkpoint.task.name
    assert row.size_mb < 20
    assert read_card(name) == checkpoint.card
    json.dumps(row.to_dict())


def test_unknown_name_lists_what_ships():
    with pytest.raises(InputError, match=NAMES[0]):
        read_card("nonsense")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_card_tells_the_truth(name):
    """Solved anew on puzzles that neither training nor the card saw, within four standard errors."""
    from hrm_edge.models.engine import TorchEngine

    checkpoint = load_checkpoint(name)
    promised = checkpoint.metadata["accuracy"]["generated-ordinary"]["exact_by_segments"]["16"]
    puzzles = generate_puzzles(checkpoint.task, 60, seed=77)
    answers = TorchEngine(checkpoint).solve(puzzles.questions, 16, halt="fixed").tokens
    found = float((answers == puzzles.answers).all(axis=1).mean())
    assert abs(found - promised) < 4 * np.sqrt(0.25 / len(puzzles))
    right = checkpoint.task.verify(puzzles.questions, answers)
    assert (right == (answers == puzzles.answers).all(axis=1)).all()
