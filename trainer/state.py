"""Everything a killed run needs to go on exactly where its last save was."""

from __future__ import annotations

import contextlib
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import entries, replacing_folder, scratch_of
from ..models.stored import save_pickled
from ..workspace import standing
from .distributed import World

FORMAT_VERSION = 4  # slots name a network's state tensors


def save_state(folder: Path, world: World, shared: dict[str, Any], slots: dict[str, torch.Tensor]) -> None:
    """Replace ``folder`` by this step's state: ``shared`` from rank 0, every rank's ``slots``.

    The ranks write into one folder beside it, wait for each other, then rank 0 renames it: a kill at any
    moment leaves either the old state or the new one, never a mixture of ranks or steps.
    """
    with contextlib.ExitStack() as replacing:
        if world.rank == 0:
            replacing.enter_context(replacing_folder(folder, require_state))
        world.barrier()
        scratch = scratch_of(folder)
        if not scratch.is_dir():
            raise InputError(
                f"{folder}: process {world.rank} does not see it; all nodes must share the run's folder"
            )
        save_pickled(slots, scratch / f"rank{world.rank}.pt")
        if world.rank == 0:
            meta = {"format_version": FORMAT_VERSION, "world_size": world.size}
            save_pickled({**shared, **meta}, scratch / "shared.pt")
        world.barrier()
    world.barrier()


def require_state(folder: Path) -> None:
    """InputError where a folder holds anything but a run's state; what is in the files shows in reading."""
    others = sorted(name for name in entries(folder) if not re.fullmatch(r"shared\.pt|rank\d+\.pt", name))
    if others:
        raise InputError(f"{folder}: holds {others[0]!r}, which is no training state; choose another --output")


def load_state(folder: Path, world: World) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """The last whole state, ``shared`` and this rank's part of the slots, or None where there is none.

    It may have been saved by any number of processes: their slots are joined in order and shared out anew.
    """
    folder = standing(folder)
    if not folder.exists():
        return None
    try:
        shared = _read(folder / "shared.pt")
        if shared["format_version"] > FORMAT_VERSION:
            raise InputError(f"{folder}: written by a newer hrm-edge; upgrade to resume")
        parts = [_read(folder / f"rank{rank}.pt") for rank in range(shared["world_size"])]
        if shared["format_version"] == 1:  # which kept each rank's random numbers beside its slots
            parts = [part["slots"] for part in parts]
        if shared["format_version"] < 3:  # which had one batch
            parts = [{name: field[:, None] for name, field in part.items()} for part in parts]
        slots = {name: torch.cat([part[name] for part in parts]).chunk(world.size) for name in parts[0]}
        return shared, {name: chunks[world.rank].clone() for name, chunks in slots.items()}
    except (OSError, RuntimeError, KeyError, IndexError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{folder}: the saved training state cannot be read ({str(error).splitlines()[0]}); "
            "delete the folder to start again"
        ) from None


def _read(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True, map_location="cpu")
