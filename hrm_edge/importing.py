"""Checkpoints of the public HRM and TRM code: read, measured against what their authors say, and written back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .data.choose import evaluated_puzzles
from .data.leaks import distinct_puzzles
from .data.public_layout import names_of
from .data.puzzles import PuzzleSet
from .errors import GateFailed, InputError
from .files import Check, check_place, check_replaceable, entries, replacing_folder
from .identifiers import hash_of_names
from .measure.accuracy import Score, check_match, evaluate
from .measure.statistics import interval, percent
from .models import HRM, Checkpoint, load_checkpoint, save_checkpoint
from .models.checkpoint import NUMBERING, require_replaceable
from .models.engine import TorchEngine
from .models.public import import_public, require_written, write_public
from .models.weights import find_weights
from .progress import Progress, Say
from .tasks import Task
from .text import code


@dataclass(frozen=True)
class Imported:
    """What came of an import: the checkpoint's folder, what it is, and how it answered (None: nobody asked)."""

    path: Path
    about: str
    score: Score | None


def import_checkpoint(
    weights: Path | str,
    output: Path | str,
    *,
    config: Path | None = None,
    task: str | None = None,
    step: int | None = None,
    key: str | None = None,
    data: Path | None = None,
    n: int | None = None,
    expect_exact: float | None = None,
    force: bool = False,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Imported:
    """Turn a public checkpoint into a checkpoint folder at ``output``, whole or not at all.

    Args:
        weights: the trainer's `step_N` file, or the folder that holds it.
        config: `all_config.yaml`; None: the one beside the weights.
        task: None: as the config's data_path tells.
        step: of several files in the folder, this; None: the last.
        key: of several tables in the file, this.
        data: puzzles to measure it on, ``n`` of them, and whose identifiers it then knows.
        expect_exact: the part of them that it must solve, as its authors say: their exact_accuracy.
        force: replace a checkpoint that stands at ``output``.

    Raises:
        InputError: what was given is no such checkpoint, leaves a choice, or does not fit the data.
        GateFailed: it solves fewer puzzles than expected; nothing is published.
    """
    weights, output = Path(weights), Path(output)
    _check_measuring(data, n, expect_exact)
    _check_output(output, require_replaceable, force)
    file = find_weights(weights, step)
    model, found = import_public(weights, config, task, step=step, key=key, say=say)
    about = describe(model, found)
    say(about)
    metadata: dict[str, Any] = {"imported_from": file.name}
    if names := _names(data if data is not None else file.parent, model):
        metadata[NUMBERING] = names
    score, how = None, "Its accuracy was not measured here: see `hrm-edge eval`."
    if data is not None:
        score, puzzles = _measured(Checkpoint(model, found, "", metadata, "", file), data, n, say, progress)
        name, share, count = _as_published(score)
        low, high = interval(round(share * count), count)
        shown = f"{name} {percent(share)} of {count} puzzles"
        sure = f"95 %: {percent(low)} to {percent(high)}"
        if expect_exact is not None and share < expect_exact:
            more = "; n is too small to settle it, so ask more with --n" if high >= expect_exact else ""
            raise GateFailed(
                f"{file}: {shown} from {puzzles.name} ({sure}), less than the {percent(expect_exact)} expected"
                f"{more}; see whether the positions and cycles in its all_config.yaml are those of its training; "
                "nothing was published"
            )
        say(f"  {shown} from {puzzles.name} ({sure})")
        how = f"Measured at its import: {shown} from {code(puzzles.name)} ({sure})."
    card = f"# {model.config.title} for {found.name}\n\n{about}; imported from {code(file.name)}. {how}\n"
    return Imported(save_checkpoint(output, model, found.name, card, metadata, result=True), about, score)


def convert_checkpoint(
    checkpoint: Path | str, output: Path | str, *, force: bool = False, say: Say = lambda line: None
) -> Path:
    """Write a checkpoint in the layout of the public code, whole or not at all; returns the weights' file.

    ``force`` replaces what an earlier conversion wrote at ``output``. InputError where the public code has no such
    network, or where what was written does not read back as it was.
    """
    output = Path(output)
    _check_output(output, require_written, force)
    opened = load_checkpoint(checkpoint)
    with replacing_folder(output, require_written, result=True) as scratch:
        file = write_public(opened, scratch)
        back, task = import_public(scratch)
        weights, theirs = opened.model.state_dict(), back.state_dict()
        same = all(torch.equal(tensor, theirs[name]) for name, tensor in weights.items())
        if not same or back.config != opened.config or task is not opened.task:
            raise InputError(
                f"{opened.path}: does not read back from the public layout as it was; nothing was written"
            )
    say(f"{len(weights)} weights and the config read back from it exactly as they are in {opened.path}")
    return output / file.name


def describe(model: HRM, task: Task) -> str:
    """What a network is, in a line: kind, parameters, positions, identifiers, N, T, segments."""
    config = model.config
    table = config.num_puzzle_identifiers * config.puzzle_emb_ndim
    count = sum(tensor.numel() for tensor in model.parameters())
    mixed = "" if config.mixer.name == "self_attn" else f", tokens mixed by {config.mixer.name}"
    return (
        f"{config.title} for {task.name}: {count:,} parameters ({table:,} of them puzzle embeddings), positions "
        f"{config.pos_encodings}{mixed}, {config.num_puzzle_identifiers} puzzle "
        f"identifier{'s'[: config.num_puzzle_identifiers > 1]}, N {config.H_cycles}, T {config.L_cycles}, at most "
        f"{config.halt_max_steps} segments"
    )


def _check_output(output: Path, check: Check, force: bool) -> None:
    """InputError where nothing may be written, or something stands there that nobody said to replace."""
    check_replaceable(output, check)
    check_place(output)
    if not force and output.is_dir() and entries(output):
        raise InputError(f"{output} exists; choose another name, or replace it with --force")


def _check_measuring(data: Path | None, n: int | None, expect_exact: float | None) -> None:
    """What only measuring reads must not be given in vain; asked before any work."""
    for flag, value in (("--expect-exact", expect_exact), ("--n", n)):
        if value is not None and data is None:
            raise InputError(f"{flag}: needs the puzzles to measure on; give them with --data")
    if expect_exact is not None and not 0 <= expect_exact <= 1:
        raise InputError(f"--expect-exact {expect_exact:g}: is a part of all puzzles, from 0 to 1, as in 0.87")


def _measured(
    checkpoint: Checkpoint, data: Path, n: int | None, say: Say, progress: Progress | None
) -> tuple[Score, PuzzleSet]:
    """How a checkpoint that is not written yet answers the puzzles, as `hrm-edge eval` counts."""
    engine = TorchEngine(checkpoint)
    given = evaluated_puzzles(checkpoint.task, checkpoint, data, n, progress=progress)
    puzzles = distinct_puzzles(given, say)
    check_match(engine, puzzles)
    return evaluate(engine, puzzles, progress=progress).total, puzzles


def _as_published(score: Score) -> tuple[str, float, int]:
    """(name, part, of how many) of the figure that authors publish: answers that equal those given, if any are."""
    if score.exact_accuracy is None:
        return "exact", score.exact, score.n
    return "exact_accuracy", score.exact_accuracy, score.labelled


def _names(folder: Path, model: HRM) -> str | None:
    """A hash of whose the model's puzzle embeddings are, as names beside the weights or the data tell."""
    count = model.config.num_puzzle_identifiers
    names = names_of(folder) if count > 1 else None
    return hash_of_names(names) if names is not None and len(names) == count else None
