"""Any network as a checkpoint: wrapped, traced, and known by what it computes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
from torch import nn

from ..errors import InputError
from ..models import Checkpoint
from ..models.network import WRAPPED, Wrapped
from ..models.source import build_network, give_weights, reason
from ..models.weights import read_weights_of
from ..tasks import Task
from .graph.layers import mark_heads
from .graph.trace import ensure_free_rows, trace_segment, trace_start
from .targets.onnx import serialized


def network_checkpoint(
    network: nn.Module,
    task: Task,
    *,
    name: str | None = None,
    halt_max_steps: int | None = None,
    card: str = "",
) -> Checkpoint:
    """A network that keeps the contract of :class:`hrm_edge.models.network.Network`, as what can be exported.

    Args:
        network: any ``torch.nn.Module`` with ``start`` and ``segment``; it is copied, and stays as it is.
        task: what it was trained on.
        name: what bundles of it are called, the name of its class by default.
        halt_max_steps: segments at most, if not what the network itself says.
        card: what a person should know of it.

    Raises:
        InputError: it does not keep the contract, or holds what cannot be traced.
    """
    model = Wrapped(network, task, halt_max_steps).requires_grad_(False)
    start, segment = traced(model)
    facts = json.dumps([task.name, model.config.to_dict()], sort_keys=True).encode()
    digest = hashlib.sha256(facts + serialized(start) + serialized(segment)).hexdigest()
    return Checkpoint(model, task, card, {}, digest, Path(name or type(network).__name__))


def traced(model: Wrapped) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Another's network as its start and its segment, traced once."""
    if model.graphs is None:
        model.graphs = _traced(model)
    start, segment = model.graphs
    return start, segment


def _traced(model: Wrapped) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    what = model.config.name
    try:
        start, segment = trace_start(model), trace_segment(model)
        if not any("e" in node.input for node in segment.graph.node):
            model.reads_e = False
            segment = trace_segment(model)
    except InputError:
        raise
    except Exception as error:  # the tracer's, which share no base
        raise InputError(f"network {what}: cannot be traced as a static graph ({reason(error)})") from error
    ensure_free_rows(start, what, "start")
    ensure_free_rows(segment, what, "segment")
    layers = mark_heads(segment, f"{WRAPPED}.", model.layers)
    model.quantized_layers = tuple(layers)
    return start, segment


def load_network(spec: str, task: Task, weights: Path | None = None, key: str | None = None) -> Checkpoint:
    """``--network`` and ``--weights`` as a checkpoint; the weights may stand in any wrapper (see `import`)."""
    network = build_network(spec, task)
    if weights is not None:
        give_weights(network, read_weights_of(weights, network.state_dict().keys(), key), spec)
    return network_checkpoint(network, task, name=spec.rpartition(":")[2].rpartition(".")[2])
