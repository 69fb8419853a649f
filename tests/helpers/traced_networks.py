"""Small networks traced once a session (a trace takes seconds), their quantization plans, and what feeds them."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import torch
from shared_traces import trace_segment, trace_start
from small_networks import TASK, checkpoint, network

from hrm_edge.data.puzzles import PuzzleSet, generate_puzzles
from hrm_edge.exporters.quantize.plan import Calibrator, Plan, Recipe
from hrm_edge.models import HRM, quantized_layers

# Between them: every kind of network and of position, all ways to mix tokens, prefixes of 0 to 3 tokens, given and
# derived, one and several identifiers, N and T of 1 to 3, unequal layers, both halting rules.
CONFIGS = {
    "grid": {"no_ACT_continue": True, "H_cycles": 1, "L_cycles": 1},
    "rope": {"pos_encodings": "rope", "puzzle_emb_ndim": 32, "H_layers": 2},
    "learned": {
        "pos_encodings": "learned",
        "puzzle_emb_ndim": 40,
        "num_puzzle_identifiers": 5,
        "H_cycles": 1,
        "L_cycles": 3,
    },
    "trm": {"kind": "trm", "pos_encodings": "rope", "puzzle_emb_ndim": 32, "puzzle_emb_len": 3, "H_cycles": 1},
    "mixer": {
        "kind": "trm",
        "mlp_t": True,
        "pos_encodings": "none",
        "no_ACT_continue": True,
        "H_cycles": 1,
        "L_cycles": 1,
    },
    "convolution": {"conv_kernel": 3, "pos_encodings": "none", "puzzle_emb_ndim": 32, "puzzle_emb_len": 2},
    "units": {"conv_kernel": 1, "unit_means": True, "puzzle_emb_ndim": 32, "H_cycles": 1},
    "recurrent": {"kind": "recurrent", "pos_encodings": "learned", "H_cycles": 1},
    "direct": {"kind": "direct", "no_ACT_continue": True},
}
# A fused layer of the checkpoint → its parts, as many rows of the weight each.
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@functools.cache
def _traced(name: str) -> tuple[HRM, bytes, bytes]:
    model = network(**CONFIGS[name])
    return model, trace_start(model).SerializeToString(), trace_segment(model).SerializeToString()


def traced(name: str) -> tuple[HRM, onnx.ModelProto, onnx.ModelProto]:
    """Name of a config → (model, start graph, segment graph); the graphs are copies."""
    model, start, segment = _traced(name)
    return model, onnx.ModelProto.FromString(start), onnx.ModelProto.FromString(segment)


@functools.cache
def calibration() -> PuzzleSet:
    return generate_puzzles(TASK, 16, 7, "ordinary")


@functools.cache
def plan(name: str, recipe: Recipe | None = None) -> Plan:
    """A plan of a config, from a few puzzles."""
    model, _, segment = traced(name)
    return Calibrator(checkpoint(model), segment, calibration()).plan(recipe or Recipe())


@functools.cache
def weight_plan(name: str, precision: str) -> Plan:
    """A weight-only plan of a config."""
    model, _, segment = traced(name)
    return Calibrator(checkpoint(model), segment, calibration()).weight_plan(precision)


def expected_products(model: HRM) -> list[str]:
    """Names that the products of the blocks must have, from the network alone; in no particular order."""
    config = model.config
    N, T = config.H_cycles, config.L_cycles
    calls = {"H_level": N, "L_level": N * T + (N if config.kind == "trm" else 0)}
    names = []
    for layer in quantized_layers(model):
        parent, _, last = layer.rpartition(".")
        for part in PARTS.get(last, (last,)):
            names += [f"{parent}.{part}/{call}" for call in range(calls[layer.split(".")[0]])]
    return names


def float_weights(model: HRM) -> dict[str, np.ndarray]:
    """Name of a part's weight → float32[K, N] as a segment multiplies with it, from the checkpoint's own."""
    found = {}
    for layer in quantized_layers(model):
        parent, _, last = layer.rpartition(".")
        parts = PARTS.get(last, (last,))
        for part, weight in zip(
            parts, np.split(model.get_submodule(layer).weight.numpy(), len(parts)), strict=True
        ):
            scale = np.float32(model.config.head_dim**-0.5) if part == "q_proj" else np.float32(1)
            found[f"{parent}.{part}.weight"] = (weight * scale).T
    return found


@torch.inference_mode()
def feeds(model: HRM, rows: int = 6) -> dict[str, np.ndarray]:
    """Inputs of a segment that has one behind it: states as they are in the middle of thinking."""
    questions = TASK.generate(rows, np.random.default_rng(3))[0]
    ids = torch.zeros(rows, dtype=torch.int32) if model.config.num_puzzle_identifiers > 1 else None
    e, (z_H, z_L) = model.embed(torch.from_numpy(questions), ids), model.initial_state(rows)
    z_H, z_L, _, _ = model.segment(z_H, z_L, e)
    return {"z_H": z_H.numpy(), "z_L": z_L.numpy(), "e": e.numpy()}


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy whose inner values of these names are outputs too."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    there = {value.name for value in copy.graph.output}
    info = onnx.helper.make_tensor_value_info
    copy.graph.output.extend(info(n, onnx.TensorProto.FLOAT, None) for n in dict.fromkeys(names) if n not in there)
    return copy


def stored_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.SerializeToString()) for tensor in model.graph.initializer)
