"""A segment takes its steps, and they call blocks of one make, over and over: one of each is traced.

A trace takes most of a second a block and a tenth of one a step, and published networks call thirty blocks in a
segment. Everything is written as often as it happens, so only that, and no tracing, grows with N x T.
"""

from __future__ import annotations

import copy

import onnx
import onnxscript.optimizer
import torch
from onnx import helper
from onnx_ir.passes import common
from torch import Tensor, nn
from torch.func import functional_call

from ...models import HRM
from ...models.hrm import Block, Rope
from ...runtimes.loops import NEXT
from .edit import attribute, ensure, initializers, rename, replace_nodes, tensor_of
from .passes import drop_unused, run

DOMAIN = "hrm_edge.trace"  # of operators that stand in a trace for what is put there afterwards


def _stand_in(operator: str, inputs: list[Tensor], like: Tensor, name: str = "") -> Tensor:
    """A node in the trace, whose output has the type and shape of a tensor."""
    kind = f"{DOMAIN}::{operator}"
    return torch.onnx.ops.symbolic(kind, inputs, {"of": name}, dtype=like.dtype, shape=like.shape, version=1)


class _Call(nn.Module):
    """Stands where a block is called."""

    def __init__(self, block: str):
        super().__init__()
        self.block = block

    def forward(self, h: Tensor, rope: Rope) -> Tensor:
        return _stand_in("Call", [h], h, self.block)


class OneOfEach(nn.Module):
    """What a segment does over and over, once each and side by side: its kinds of step, its heads, a block.

    In the steps are stand-ins for blocks, in the block, which is of no use to the steps, for the tensors in which
    the blocks differ. :func:`write_segment` makes the graph of a segment of it.
    """

    def __init__(self, segment: HRM):
        super().__init__()
        blocks = {name: part for name, part in segment.named_modules() if isinstance(part, Block)}
        own = {name: dict((*block.named_parameters(), *block.named_buffers())) for name, block in blocks.items()}
        makes = {tuple((name, t.dtype, t.shape) for name, t in tensors.items()) for tensors in own.values()}
        ensure(len(makes) == 1, "OneOfEach: the blocks are not of one make")
        (self.block, *_), (first, *others) = blocks.values(), own.values()
        self.prefixes = {"segment.": "", "block.": f"{next(iter(blocks))}."}  # of names here → in the segment
        self.differ = {name: t for name, t in first.items() if not all(torch.equal(t, o[name]) for o in others)}
        self.tensors = {f"{block}.{name}": tensors[name] for block, tensors in own.items() for name in self.differ}
        self.segment = copy.deepcopy(segment)
        for block in blocks:
            self.segment.set_submodule(block, _Call(block))
        N, T = segment.config.H_cycles, segment.config.L_cycles
        # Which of T steps it is decides what a step does. A segment of another form is one of a kind.
        stepwise = type(segment).segment is HRM.segment
        self.order = [i % T if i % T == T - 1 else 0 for i in range(N * T)] if stepwise else []
        self.kinds = sorted(set(self.order))
        self.names = (*(name + NEXT for name in segment.state), "logits", "q")  # of a segment's outputs
        states = [f"{name}/{kind}" for kind in self.kinds for name in segment.state]
        self.outputs = (*states, "logits", "q", "block") if self.order else (*self.names, "block")

    def forward(self, z_H: Tensor, z_L: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        segment = self.segment
        if self.order:
            states = [z for kind in self.kinds for z in segment.steps(z_H, z_L, e, kind, kind + 1)]
            made = (*states, *segment.heads(z_H))
        else:
            made = segment(z_H, z_L, e)
        h = _stand_in("Given", [z_H], z_H)
        tensors = {name: _stand_in("Tensor", [], tensor, name) for name, tensor in self.differ.items()}
        return *made, functional_call(self.block, tensors, (h, segment.rope))


def write_segment(model: onnx.ModelProto, network: OneOfEach) -> None:
    """Make the graph of a segment from the trace of what it does over and over."""
    _call_blocks(model, network)
    if network.order:
        _take_steps(model.graph, network)
        drop_unused(model)


def _call_blocks(model: onnx.ModelProto, network: OneOfEach) -> None:
    """Write the block that was traced at every call in the steps, with the tensors of the one called."""
    graph = model.graph
    stands = {node.output[0]: node for node in graph.node if node.domain == DOMAIN}
    (h,) = (output for output, node in stands.items() if node.op_type == "Given")
    tensors = {output: _of(node) for output, node in stands.items() if node.op_type == "Tensor"}
    result = graph.output.pop().name
    body = _behind(graph, {result}, set(stands))
    own = _depending(body, {h, *tensors})
    nodes: dict[str, onnx.NodeProto] = {}  # by its first output
    for node in graph.node:
        if node.op_type == "Call" and node.domain == DOMAIN:
            names = {output: f"{_of(node)}.{name}" for output, name in tensors.items()}
            names |= {output: f"{node.output[0]}/{output}" for output in own}
            names |= {h: node.input[0], result: node.output[0]}
            written = [_renamed(each, names) for each in body]
        else:
            written = [node]
        for each in written:
            nodes.setdefault(each.output[0], each)  # what all calls share, as the batch's size, once
    replace_nodes(graph, list(nodes.values()))
    for here, there in network.prefixes.items():
        rename(
            graph, {t.name: there + t.name.removeprefix(here) for t in graph.initializer if t.name.startswith(here)}
        )
    graph.initializer.extend(tensor_of(t.detach().numpy(), name) for name, t in network.tensors.items())
    drop_unused(model)
    ensure(not any(node.domain == DOMAIN for node in graph.node), "write_segment: something still stands in")
    _fold(model)


def _take_steps(graph: onnx.GraphProto, network: OneOfEach) -> None:
    """Write the steps that were traced in the order in which a segment takes them, and its heads behind them."""
    inputs = [value.name for value in graph.input]
    state = list(network.segment.state)
    # What is the same, as a state that a step leaves as it was, comes out under several names.
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    results = [same.get(value.name, value.name) for value in graph.output]
    parts = [results[i : i + len(state)] for i in range(0, len(results), len(state))]  # by step, heads last
    bodies = [_behind(graph, set(part), set(inputs)) for part in parts]
    # The size of a state is the same before every step, and is written once.
    sizes = {n.output[0] for n in graph.node if n.op_type == "Shape" and n.input[0] in state}
    owns = [_depending([n for n in body if n.output[0] not in sizes], set(state)) for body in bodies]
    nodes: dict[bytes, onnx.NodeProto] = {}  # by what it does: nothing is computed twice
    now = {name: name for name in state}  # a state's name in the trace → its name by then

    def write(part: int, names: dict[str, str]) -> None:
        for node in bodies[part]:
            written = _renamed(node, {} if node.output[0] in sizes else names)
            what = helper.make_node(node.op_type, written.input, [], domain=node.domain)
            what.attribute.extend(node.attribute)
            known = nodes.setdefault(what.SerializeToString(deterministic=True), written)
            names |= dict(zip(node.output, known.output, strict=True))

    for step, kind in enumerate(network.order):
        part = network.kinds.index(kind)
        names = now | {name: f"{name}/{step}" for name in owns[part]}
        write(part, names)
        now = {z: names.get(out, out) for z, out in zip(state, parts[part], strict=True)}
    write(-1, dict(now))
    outputs = [*graph.output[: len(state)], *graph.output[-len(parts[-1]) :]]
    kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in outputs]
    own, named = {output for node in nodes.values() for output in node.output}, dict[str, str]()
    written = list(nodes.values())
    for value, made, name in zip(kept, (*now.values(), *parts[-1]), network.names, strict=True):
        value.name = name
        if made in own and made not in named:
            named[made] = name
        else:  # the segment hands it through, or gives it under two names
            written.append(helper.make_node("Identity", [made], [name]))
    replace_nodes(graph, written)
    rename(graph, named)
    del graph.output[:]
    graph.output.extend(kept)


def _of(node: onnx.NodeProto) -> str:
    return attribute(node, "of").decode()


def _behind(graph: onnx.GraphProto, results: set[str], given: set[str]) -> list[onnx.NodeProto]:
    """The nodes, in their order, that values are computed by from given ones."""
    wanted, found = set(results), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output) and node.output[0] not in given:
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _depending(nodes: list[onnx.NodeProto], given: set[str]) -> set[str]:
    """The values that nodes, in their order, compute from given ones."""
    found = set(given)
    for node in nodes:
        if found.intersection(node.input):
            found.update(node.output)
    return found - given - {""}


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """A copy that reads and makes values of these names."""
    node = onnx.NodeProto.FromString(node.SerializeToString())
    for side in (node.input, node.output):
        side[:] = [names.get(name, name) for name in side]
    return node


def _fold(model: onnx.ModelProto) -> None:
    """Compute what depends on stored tensors alone, as the tracer does where it sees them."""
    stored = initializers(model.graph)
    if any(n.op_type != "Transpose" and all(name in stored for name in n.input) for n in model.graph.node):
        onnxscript.optimizer.fold_constants(model)
        run(common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0), model)
