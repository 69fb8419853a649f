"""A checkpoint with fewer puzzle embeddings: of thousands in training, a device needs those it is asked about."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch

from ..errors import InputError
from ..identifiers import format_ranges
from .checkpoint import KEPT_IDENTIFIERS, TRAINED_IDENTIFIERS, Checkpoint


def keep_identifiers(checkpoint: Checkpoint, identifiers: np.ndarray) -> Checkpoint:
    """The same network with the rows of ``identifiers`` (int[K]) alone, and row 0, which stands for no puzzle.

    Its engines, and those of bundles made from it, still take the identifiers it was trained with: the metadata
    say which row is whose. The content hash stays, as the answers do.
    """
    config = checkpoint.hrm.config
    table = config.num_puzzle_identifiers
    if checkpoint.kept_identifiers is not None:
        raise InputError(f"{checkpoint.path}: has been cut down to some of its puzzle identifiers already")
    if table == 1:
        raise InputError(f"{checkpoint.path}: was trained without puzzle identifiers, so none can be chosen")
    kept = np.union1d([0], identifiers).astype(np.int32)
    if kept[-1] >= table:
        raise InputError(f"{checkpoint.path}: has puzzle identifiers 0 to {table - 1}, not {kept[-1]}")
    # Not the table, which may be most of the memory there is.
    network = checkpoint.hrm
    weight = network.puzzle_emb.weight.detach()
    model = copy.deepcopy(network, {id(network.puzzle_emb): torch.nn.Identity()})
    model.puzzle_emb = torch.nn.Embedding.from_pretrained(weight[torch.from_numpy(kept).long()], freeze=True)
    model.config = dataclasses.replace(config, num_puzzle_identifiers=len(kept))
    metadata = {**checkpoint.metadata, KEPT_IDENTIFIERS: format_ranges(kept), TRAINED_IDENTIFIERS: table}
    return dataclasses.replace(checkpoint, model=model, metadata=metadata)
