"""A checkpoint that is exported in no time."""

import pytest


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    from small_networks import TASK, network  # needs torch

    from hrm_edge.models import save_checkpoint

    held_out = {"seed": 5, "difficulty": "ordinary", "n": 40}
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    return save_checkpoint(folder, network(H_cycles=1, L_cycles=1), TASK.name, "card", {"held_out": held_out})
