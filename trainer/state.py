"""Everything a killed run needs to go on exactly where its last save was."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import recover_folder
from .distributed import World

FORMAT_VERSION = 1


def save_state(folder: Path, world: World, shared: dict[str, Any], own: dict[str, Any]) -> None:
    """Replace ``folder`` by this step's state: ``shared`` from rank 0, ``own`` from every rank.

    The ranks write into one hidden sibling, wait for each other, then rank 0 renames it: a kill at any
    moment leaves either the old state or the new one, never a mixture of ranks or steps.
    """
    scratch = folder.parent / f".{folder.name}.next"
    if world.rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    world.barrier()
    torch.save(own, scratch / f"rank{world.rank}.pt")
    if world.rank == 0:
        meta = {"format_version": FORMAT_VERSION, "world_size": world.size}
        torch.save({**shared, **meta}, scratch / "shared.pt")
    world.barrier()
    if world.rank == 0:
        recover_folder(folder)
        old = folder.parent / f".{folder.name}.old"
        if folder.exists():
            folder.rename(old)
        scratch.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    world.barrier()


def load_state(folder: Path, world: World) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The last whole state ``(shared, own)``, or None where there is none."""
    if world.rank == 0:
        recover_folder(folder)
    world.barrier()
    if not folder.exists():
        return None
    try:
        shared = torch.load(folder / "shared.pt", weights_only=True, map_location="cpu")
        if shared["format_version"] > FORMAT_VERSION:
            raise InputError(f"{folder}: written by a newer hrm-edge; upgrade to resume")
        if shared["world_size"] != world.size:
            raise InputError(
                f"{folder}: was saved by {shared['world_size']} processes and there are {world.size} now; "
                "resume with the same number"
            )
        return shared, torch.load(folder / f"rank{world.rank}.pt", weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{folder}: the saved training state cannot be read ({str(error).splitlines()[0]}); "
            "delete the folder to start again"
        ) from None


def rng_to_text(rng: np.random.Generator) -> str:
    """A numpy generator's state as JSON (its 128-bit integers do not fit a tensor)."""
    return json.dumps(rng.bit_generator.state)


def rng_from_text(text: str) -> np.random.Generator:
    rng = np.random.default_rng(0)
    rng.bit_generator.state = json.loads(text)
    return rng
