"""The participation ratio against numpy's eigenvalues, and what is sampled of a network's states."""

import numpy as np
import pytest
import torch

from hrm_edge.analysis.participation import Moments, participation
from hrm_edge.analysis.plots import participation_picture
from hrm_edge.analysis.tables import participation_table
from hrm_edge.errors import InputError
from hrm_edge.models import HRMConfig, build_model
from hrm_edge.tasks import get_task

TASK = get_task("sudoku-4x4")


def by_eigenvalues(samples: np.ndarray) -> float:
    values = np.linalg.eigvalsh(np.cov(samples, rowvar=False))
    return float(values.sum() ** 2 / (values**2).sum())


def test_known_covariances() -> None:
    axes = np.eye(6)
    isotropic = np.concatenate([axes, -axes]) + 3.0  # its covariance is a multiple of the identity
    assert Moments.of(isotropic).participation() == pytest.approx(6)
    line = np.outer(np.linspace(-1, 2, 50), np.arange(1.0, 7.0)) - 5.0
    assert Moments.of(line).participation() == pytest.approx(1)
    assert np.isnan(Moments.of(np.full((9, 4), 2.5)).participation())


def test_joined_moments_are_those_of_all_samples() -> None:
    samples = np.random.default_rng(0).normal(size=(90, 5)) * [1, 2, 3, 4, 5] + [9, 0, 0, -9, 0]
    joined = Moments.of(samples[:20]) + Moments.of(samples[20:50]) + Moments.of(samples[50:])
    assert joined.participation() == pytest.approx(by_eigenvalues(samples))


def config(**changes: object) -> HRMConfig:
    sizes = {"vocab_size": TASK.vocab_size, "seq_len": TASK.seq_len, "hidden_size": 16, "num_heads": 2}
    few = {"H_layers": 1, "L_layers": 1, "halt_max_steps": 3, "puzzle_emb_ndim": 16, **changes}
    return HRMConfig.from_dict({**sizes, **few})


def tokens(n: int) -> np.ndarray:
    return TASK.generate(n, np.random.default_rng(1))[0]


@torch.inference_mode()
def test_samples_are_every_cell_at_every_segments_end() -> None:
    torch.manual_seed(0)
    model = build_model(config(), TASK).eval()
    puzzles = tokens(6)
    found = participation(model, puzzles, name="m")
    e = model.embed(torch.from_numpy(puzzles).long())
    z_H, z_L = model.initial_state(6)
    ends = []
    for _ in range(3):
        z_H, z_L, *_ = model.segment(z_H, z_L, e)
        ends.append(torch.stack([z_H, z_L])[:, :, 1:])  # one token of prefix
    for state, by_segment in zip(("z_H", "z_L"), torch.stack(ends, dim=1).numpy(), strict=True):
        points = {point.trajectories: point for point in found.growth[state]}
        assert list(points) == [1, 2, 5, 6]
        assert points[6].mean == pytest.approx(by_eigenvalues(by_segment.reshape(-1, 16)), rel=1e-4)
        pairs = [by_eigenvalues(by_segment[:, i : i + 2].reshape(-1, 16)) for i in (0, 2, 4)]
        assert points[2].sets == 3
        assert points[2].mean == pytest.approx(np.mean(pairs), rel=1e-4)
        assert (points[2].least, points[2].most) == pytest.approx((min(pairs), max(pairs)), rel=1e-4)
    assert len(participation_table([found]).rows) == 4
    assert participation_picture([found, found], "svg").startswith(b"<?xml")


def test_a_state_that_never_changes_is_left_out() -> None:
    model = build_model(config(kind="recurrent"), TASK).eval()
    assert list(participation(model, tokens(2)).growth) == ["z_H"]
    direct = build_model(config(kind="direct", H_cycles=1, L_cycles=1, halt_max_steps=1), TASK).eval()
    with pytest.raises(InputError, match="no states"):
        participation(direct, tokens(2))
