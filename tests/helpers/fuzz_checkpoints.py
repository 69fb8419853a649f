"""Readers of networks' checkpoints: this project's own, and the public code's."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import asdict
from pathlib import Path

from fuzz_changes import binary, header, lines, structure
from fuzz_readers import Read, Reader, registering, to

READERS: dict[str, Reader] = {}
reader = registering(READERS)


def _checkpoint(folder: Path) -> Path:
    import torch
    from small_networks import network

    from hrm_edge.models import quantized_layers, save_checkpoint
    from hrm_edge.trainer import load_recipe

    torch.set_num_threads(1)
    model = network(puzzle_emb_ndim=32, num_puzzle_identifiers=3)
    scales = dict.fromkeys(quantized_layers(model), 0.5)
    tuned = {"bits": 8, "activations": scales, "weights": "per-channel minmax", "from": "ab", "learned": True}
    arch, recipe = load_recipe("sudoku-4x4", "tiny", None, ["train.steps=1"])
    metadata = {
        "recipe": {"task": "sudoku-4x4", "arch": arch.to_dict(), "train": asdict(recipe)},
        "sources": ["generated:40 (40)"],
        "accuracy": {"generated-ordinary": {"n": 200, "exact_by_segments": {"1": 0.5, "16": 1.0}}},
        "steps": 10,
        "train_seconds": 3.5,
        "halt_margin": 3.0,
        "held_out": {"seed": 20260101, "difficulty": "ordinary", "n": 1000},
        "quantization": tuned,
        "puzzle_identifiers": "0-2",
        "author": "somebody",
        "license": "MIT",
    }
    return save_checkpoint(folder / "m", model, "sudoku-4x4", "", metadata)


@reader("checkpoint config", structure, 0.2)
def _checkpoint_config(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.data.choose import gate_puzzles
    from hrm_edge.exporters.describe import licence
    from hrm_edge.models import load_checkpoint, quantization_of
    from hrm_edge.trainer.card import describe

    path = _checkpoint(folder)
    own = json.loads((path / "config.json").read_text())["metadata"]

    def read(content: bytes, which: int) -> object:
        (path / "config.json").write_bytes(content)
        checkpoint = load_checkpoint(path)
        describe({**own, "earlier": checkpoint.metadata}, checkpoint.model)
        licence(checkpoint).encode()
        gate_puzzles(checkpoint, n=1)
        return checkpoint.kept_identifiers, quantization_of(checkpoint)

    return [(path / "config.json").read_bytes()], read


@reader("checkpoint weights", header, 0.2)
def _checkpoint_weights(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.models import load_checkpoint

    path = _checkpoint(folder)
    weights = path / "model.safetensors"
    return [weights.read_bytes()], to(weights, lambda _: load_checkpoint(path))


YAML = b"""\
arch:
  name: hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1
  loss: {name: losses@ACTLossHead, loss_type: stablemax_cross_entropy}
  H_cycles: 2
  L_cycles: 2
  H_layers: 1
  L_layers: 1
  hidden_size: 16
  num_heads: 2
  expansion: 4
  pos_encodings: rope
  halt_max_steps: 16
  halt_exploration_prob: 0.1
  puzzle_emb_ndim: 16
data_paths: [data/sudoku-extreme-1k-aug-1000]
lr: 1e-4
when: 2025-01-01
"""


@reader("YAML", lines, 0.5)
def _yaml(folder: Path) -> tuple[list[bytes], Read]:
    from hrm_edge.models.config import HRMConfig
    from hrm_edge.models.public import read_config

    def read(file: Path) -> object:
        _, fields, data = read_config(file)
        return HRMConfig.from_dict({"vocab_size": 11, "seq_len": 81, **fields}), data

    return [YAML], to(folder / "all_config.yaml", read)


@reader("public checkpoint", binary, 0.2)
def _public(folder: Path) -> tuple[list[bytes], Read]:
    import published
    import torch
    from safetensors.torch import save

    from hrm_edge.models.public import import_public

    torch.set_num_threads(1)
    model = published.sudoku_trm(puzzle_emb_len=16, no_ACT_continue=True)
    arch = {name: model.config.to_dict()[name] for name in published.NAMED}
    place = published.published(folder / "public", model, arch)
    seeds = [(place / "step_7").read_bytes()]
    for how in (False, True):
        made = io.BytesIO()
        wrapped = {"model": model.state_dict(), "step": 3, "args": argparse.Namespace(lr=1.0)}
        torch.save(wrapped, made, _use_new_zipfile_serialization=how)
        seeds.append(made.getvalue())
    seeds.append(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    return seeds, to(place / "step_7", import_public)
