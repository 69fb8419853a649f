"""How many dimensions the states use: the participation ratio (Σλ)² / Σλ² of the covariance of z_H and of z_L.

λ are the covariance's eigenvalues: D equal ones give D, a single one gives 1 (paper, section on the brain). What is
a sample is not published, and it decides the figure; README.md beside this file has what candidates gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.choose import any_puzzles
from ..errors import InputError
from ..identifiers import require_same, rows_of
from ..models import HRM, Checkpoint, build_model, load_checkpoint
from ..progress import Progress
from .bench import random_config

GROWTH = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
STATES = ("z_H", "z_L")
_ROWS = 4  # puzzles rolled out together: at paper size their activations take some 20 MB


@dataclass(frozen=True)
class Moments:
    """What a covariance needs of its samples [n, D], so that sets can be joined."""

    n: int
    total: np.ndarray  # float64 [D]
    products: np.ndarray  # float64 [D, D]

    @classmethod
    def of(cls, samples: np.ndarray) -> Moments:
        wide = samples.astype(np.float64)
        return cls(len(wide), wide.sum(0), wide.T @ wide)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.products + other.products)

    def participation(self) -> float:
        """(Σλ)² / Σλ² of the covariance; NaN where the samples do not vary. Needs no eigenvalue: tr(C)² / ‖C‖²."""
        mean = self.total / self.n
        covariance = self.products / self.n - np.outer(mean, mean)
        trace = float(np.trace(covariance))
        if trace <= 1e-9 * float(np.trace(self.products)) / self.n:
            return float("nan")
        return trace**2 / float((covariance**2).sum())


@dataclass(frozen=True)
class Point:
    """The participation ratio at one number of trajectories: mean, least and most over disjoint sets."""

    trajectories: int
    sets: int
    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class Participation:
    """One model's participation ratios; `growth` by state ("z_H", "z_L"), fewest trajectories first."""

    model: str
    hidden_size: int
    segments: int
    growth: dict[str, tuple[Point, ...]]


def networks_and_puzzles(
    checkpoint: str | None, random_weights: str | None, data: Path | None, n: int, seed: int
) -> tuple[list[tuple[str, HRM]], tuple[np.ndarray, np.ndarray | None]]:
    """(name, network) of a checkpoint and of its untrained twin, or of a size with random weights alone; and the
    puzzles int32[n, S] to follow them on, with their rows int32[n] in the tables of embeddings, or None."""
    if (checkpoint is None) == (random_weights is None):
        raise InputError("give a checkpoint, or --random-weights paper, but not both")
    trained: list[Checkpoint] = []
    if checkpoint is not None:
        trained.append(load_checkpoint(checkpoint))
        config, task = trained[0].hrm.config, trained[0].task
    elif random_weights is not None:
        config, task = random_config(random_weights)
    torch.manual_seed(seed)
    networks = [(model.name, model.hrm.eval()) for model in trained]
    networks.append(("untrained", build_model(config, task).eval()))
    puzzles = any_puzzles(task, n, data, trained[0] if trained else None, seed)
    rows = puzzles.identifiers
    if rows is not None and trained:
        require_same(puzzles.numbering, trained[0].numbering, puzzles.name)
        rows = rows_of(rows, trained[0].kept_identifiers)
    return networks, (puzzles.questions, rows)


def participation(
    model: HRM,
    tokens: np.ndarray,
    identifiers: np.ndarray | None = None,
    *,
    name: str = "",
    progress: Progress | None = None,
) -> Participation:
    """Participation ratios of `model`'s states on puzzles `tokens` int32[n, S], halting off.

    `identifiers` int32[n] are the puzzles' rows in the model's table of embeddings; None: all row 0. A puzzle's
    samples are its states of every cell (prefix left out) at the end of each of `halt_max_steps` segments. k
    trajectories are pooled for k = 1, 2, 5, 10, … and n; smaller sets are averaged over the disjoint ones.
    """
    if not len(tokens):
        raise InputError("no puzzles to follow")
    if model.config.kind == "direct":
        raise InputError(f"{name}: a transformer of one pass has no states to measure")
    known = model.config.num_puzzle_identifiers
    if identifiers is not None and identifiers.max() >= known:
        raise InputError(f"{name}: has puzzle identifiers 0 to {known - 1}, not {identifiers.max()}")
    moments = _moments(model, tokens, identifiers, name, progress)
    n = len(tokens)
    counts = sorted({k for k in GROWTH if k < n} | {n})
    # A plain recurrent transformer hands z_L through: a state that never changes has no dimensions to count.
    growth = {
        state: tuple(_point(found, k) for k in counts)
        for state, found in moments.items()
        if np.isfinite(sum(found[1:], found[0]).participation())
    }
    return Participation(name, model.config.hidden_size, model.config.halt_max_steps, growth)


@torch.inference_mode()
def _moments(
    model: HRM, tokens: np.ndarray, identifiers: np.ndarray | None, name: str, progress: Progress | None
) -> dict[str, list[Moments]]:
    """By state, each puzzle's moments."""
    config, device = model.config, model.H_init.device
    found: dict[str, list[Moments]] = {state: [] for state in STATES}
    for begin in range(0, len(tokens), _ROWS):
        rows = slice(begin, begin + _ROWS)
        own = None if identifiers is None else torch.from_numpy(identifiers[rows]).long().to(device)
        e = model.embed(torch.from_numpy(tokens[rows]).long().to(device), own)
        states = model.initial_state(len(e))
        ends: dict[str, list[np.ndarray]] = {state: [] for state in STATES}
        for _ in range(config.halt_max_steps):
            states = model.steps(*states, e, 0, config.H_cycles * config.L_cycles)
            for state, values in zip(STATES, states, strict=True):
                ends[state].append(values[:, config.prefix_len :].float().cpu().numpy())
        for state, parts in ends.items():
            trajectories = np.stack(parts, axis=1)  # [b, segments, S, D]
            found[state] += [Moments.of(row.reshape(-1, config.hidden_size)) for row in trajectories]
        if progress is not None:
            progress(f"trajectories of {name}", min(begin + _ROWS, len(tokens)), len(tokens))
    return found


def _point(moments: Sequence[Moments], k: int) -> Point:
    values = []
    for begin in range(0, len(moments) - k + 1, k):
        total = moments[begin]
        for more in moments[begin + 1 : begin + k]:
            total = total + more
        values.append(total.participation())
    return Point(k, len(values), float(np.mean(values)), min(values), max(values))
