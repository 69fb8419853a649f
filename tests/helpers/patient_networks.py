"""A small network that never halts: what nobody trained halts at random, and a little noise moves that by more than
any gate allows."""

from pathlib import Path

import numpy as np
import onnx
import torch
from small_networks import TASK, network
from traced_networks import CONFIGS, traced

from hrm_edge.models import save_checkpoint

PATIENCE = (-50.0, 0.0)


def save_patient(folder: Path) -> Path:
    """Its checkpoint, which names its own held-out puzzles."""
    model = network(**CONFIGS["grid"])
    model.q_head.bias[:] = torch.tensor(PATIENCE)
    held_out = {"seed": 5, "difficulty": "ordinary", "n": 40}
    return save_checkpoint(folder, model, TASK.name, "card", {"held_out": held_out})


def patient_graphs() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Its start and segment, from a trace of the same network with another halting bias."""
    _, start, segment = traced("grid")
    return start, with_bias(segment, PATIENCE)


def with_bias(segment: onnx.ModelProto, bias: tuple[float, float]) -> onnx.ModelProto:
    """The segment, its halting bias changed."""
    (tensor,) = (tensor for tensor in segment.graph.initializer if tensor.name == "q_head.bias")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(bias, np.float32), tensor.name))
    return segment
