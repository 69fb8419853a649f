"""Any network as a checkpoint: wrapped, traced, and known by what it computes."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import Checkpoint
from ..models.network import WRAPPED, Wrapped
from ..models.weights import read_weights_of
from ..tasks import Task
from .graph.layers import mark_heads
from .graph.passes import BATCH
from .graph.trace import trace_segment, trace_start
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
    model = Wrapped(network, task, halt_max_steps)
    start, segment = _traced(model)
    facts = json.dumps([task.name, model.config.to_dict()], sort_keys=True).encode()
    digest = hashlib.sha256(facts + serialized(start) + serialized(segment)).hexdigest()
    model.graphs = (start, segment)  # what told it from others need not be traced again to be exported
    return Checkpoint(model, task, card, {}, digest, Path(name or type(network).__name__))


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
        raise InputError(f"network {what}: cannot be traced as a static graph ({_reason(error)})") from error
    for method, graph in (("start", start), ("segment", segment)):
        sizes = {
            value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.graph.input, *graph.graph.output)
        }
        if sizes != {BATCH}:
            raise InputError(
                f"network {what}: {method} fixes the number of rows; take it as x.shape[0] rather than len(x), and "
                "keep the batch first in all that it gives"
            )
    layers = mark_heads(segment, f"{WRAPPED}.")
    model.quantized_layers = tuple(layers)
    return start, segment


def _reason(error: BaseException) -> str:
    """The innermost cause's first line: what the tracer says around it tells of itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def load_network(spec: str, task: Task, weights: Path | None = None, key: str | None = None) -> Checkpoint:
    """``--network`` and ``--weights`` as a checkpoint; the weights may stand in any wrapper (see `import`)."""
    network = build_network(spec, task)
    if weights is not None:
        _load(network, read_weights_of(weights, network.state_dict().keys(), key), spec)
    return network_checkpoint(network, task, name=spec.rpartition(":")[2].rpartition(".")[2])


def build_network(spec: str, task: Task, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The network that ``package.module:factory`` makes, with weights.

    ``factory`` is a function or a class; where it takes an argument without a default, it is given the task.
    """
    factory = _factory(spec)
    try:
        network = factory(task) if _wants_task(factory) else factory()
    except Exception as error:
        raise InputError(f"--network {spec}: fails ({_reason(error)})") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"--network {spec}: gives {type(network).__name__}, and must give a torch.nn.Module")
    if weights is not None:
        _load(network, weights, spec)
    return network


def _factory(spec: str) -> Callable[..., Any]:
    module, _, name = spec.partition(":")
    if not module or not name:
        raise InputError(f"--network {spec}: write package.module:factory, where factory() gives the network")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise InputError(
            f"--network {spec}: cannot be imported ({_reason(error)}); is its folder on PYTHONPATH?"
        ) from error
    if not callable(found):
        raise InputError(f"--network {spec}: is {type(found).__name__}, not a function or a class")
    return found


def _wants_task(factory: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.default is inspect.Parameter.empty and each.kind in kinds for each in parameters)


def _load(network: nn.Module, weights: Mapping[str, Tensor], spec: str) -> None:
    """All weights, and no others."""
    expected = network.state_dict()
    for problem, names in (
        ("lack", set(expected) - set(weights)),
        ("hold another", set(weights) - set(expected)),
    ):
        if names:
            raise InputError(f"--network {spec}: the weights {problem} {min(names)!r} ({len(names)} such)")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"--network {spec}: weight {name!r} is {list(tensor.shape)}, and {list(expected[name].shape)} in "
                "the network"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise InputError(f"--network {spec}: weight {name!r} is not finite (NaN or infinite)")
    network.load_state_dict(dict(weights))
