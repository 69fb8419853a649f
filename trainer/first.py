"""What a run starts with: an architecture that fits the data, and its first weights."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import sha256
from ..models import HRM, Checkpoint, HRMConfig, build_model, load_checkpoint
from ..models.checkpoint import NUMBERING, load_weights
from ..models.deduce import DeduceConfig
from ..models.grow import with_added_blocks
from ..models.network import Wrapped, bare
from ..models.source import NetworkSource, code_hash, give_weights
from ..models.weights import read_weights_of
from ..tasks import Task
from .config import TrainConfig
from .data import identifiers_needed, numbering

# A network of this family by its config, or another by what makes it.
Architecture = HRMConfig | NetworkSource | DeduceConfig


def starting_point(
    task: Task, start_from: Path | None, network: str | None, weights: Path | None, key: str | None
) -> tuple[Checkpoint | None, Any]:
    """What `hrm-edge train` starts from, by its flags: a checkpoint, and the architecture for `load_recipe`.

    Each may be None: fresh weights, and a preset's architecture.
    """
    if network is None:
        for flag, value in (("--weights", weights), ("--key", key)):
            if value is not None:
                raise InputError(f"{flag}: has no meaning without --network")
        if start_from is None:
            return None, None
        initial = load_checkpoint(start_from)
        return initial, initial.model.source if isinstance(initial.model, Wrapped) else initial.hrm.config
    if start_from is not None:
        raise InputError("give either --from, which names its network, or --network, not both")
    source = NetworkSource(network)
    if weights is None:
        if key is not None:
            raise InputError("--key: has no meaning without --weights")
        return None, source
    return with_weights(source, task, weights, key), source


def with_weights(source: NetworkSource, task: Task, file: Path, key: str | None = None) -> Checkpoint:
    """Another's network with the weights of a file, which may stand in any wrapper, as what a run starts from."""
    model = source.build(task)
    network = bare(model)
    give_weights(network, read_weights_of(file, network.state_dict().keys(), key), source.factory)
    told = f"{source.to_dict()} {code_hash(network, source.factory)} {sha256(file)} {key}"
    digest = hashlib.sha256(told.encode()).hexdigest()
    return Checkpoint(model.requires_grad_(False), task, "", {}, digest, file)


def with_identifiers(
    arch: Architecture, data: list[str], task: Task, initial: Checkpoint | None
) -> tuple[Architecture, bool]:
    """The architecture with as many puzzle embeddings as the data name puzzles, and whether they start anew.

    They do where ``initial`` has those of other puzzles, as its record of their names tells, or else their count.
    Another's network has as many as it has.
    """
    needed = identifiers_needed(data, task)
    if not isinstance(arch, HRMConfig):
        return arch, False
    count = arch.num_puzzle_identifiers
    others = False
    if initial is not None and needed > 1:
        theirs = initial.metadata.get(NUMBERING)  # checkpoints of other code, and of earlier versions, do not say
        of_another_size = initial.config.num_puzzle_identifiers != needed
        others = of_another_size if theirs is None else theirs != numbering(data, task)
        if others and count == initial.config.num_puzzle_identifiers:
            count = 1
    if needed > 1 and count == 1:
        return dataclasses.replace(arch, num_puzzle_identifiers=needed), others
    if needed > count:
        raise InputError(f"the data name {needed} puzzles, but arch.num_puzzle_identifiers is {count}")
    return arch, others


def first_model(
    task: Task,
    arch: Architecture,
    config: TrainConfig,
    data: list[str],
    initial: Checkpoint | None,
    other_puzzles: bool,
) -> HRM | Wrapped:
    """The model that a run starts with; where ``initial`` knows other puzzles, with their embeddings anew."""
    torch.manual_seed(config.seed)
    if not isinstance(arch, HRMConfig):
        return _first_network(task, arch, data, initial)
    model = build_model(arch, task)
    if initial is None:
        torch.nn.init.constant_(model.q_head.bias, config.halt_bias)
    else:
        weights = initial.model.state_dict()
        if other_puzzles:
            weights |= {k: w for k, w in model.state_dict().items() if k.startswith("puzzle_emb.")}
        load_weights(model, with_added_blocks(weights, model), str(initial.path))
    return model


def _first_network(
    task: Task, source: NetworkSource | DeduceConfig, data: list[str], initial: Checkpoint | None
) -> Wrapped:
    model = source.build(task)
    needed, count = identifiers_needed(data, task), model.config.num_puzzle_identifiers
    if needed > count:
        raise InputError(
            f"the data name {needed} puzzles, but num_puzzle_identifiers of {source.factory} is {count}"
        )
    if initial is not None:
        load_weights(model, initial.model.state_dict(), str(initial.path))
    if isinstance(source, NetworkSource):
        _require_reproducible(model, source, task)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise InputError(
            f"--network {source.factory}: has no weight that requires a gradient; nothing can be trained"
        )
    return model


@torch.no_grad()
def _require_reproducible(model: Wrapped, source: NetworkSource, task: Task) -> None:
    """InputError where a network's answers depend on more than its weights: its checkpoint would be another one."""
    with torch.random.fork_rng():
        torch.manual_seed(1 + torch.initial_seed())
        again = source.build(task)
    load_weights(again, model.state_dict(), source.factory)
    tokens = torch.arange(2 * task.seq_len).view(2, -1) % (task.vocab_size - 1) + 1
    answers = []
    for each in (model, again):
        training = each.training
        e, *state = each.eval().start(tokens)
        answers.append(each.segment(*state, e))
        each.train(training)
    if any(not torch.allclose(one, other, atol=1e-5, equal_nan=True) for one, other in zip(*answers, strict=True)):
        raise InputError(
            f"--network {source.factory}: made anew with the same weights it answers otherwise; keep what is drawn "
            "at random in parameters or buffers (not persistent=False)"
        )
