"""A segment calls blocks of one make over and over: one of them is traced, and written at every call.

A trace takes most of a second a block, and published networks call thirty in a segment.
"""

from __future__ import annotations

import copy

import onnx
import onnxscript.optimizer
import torch
from onnx_ir.passes import common
from torch import Tensor, nn
from torch.func import functional_call

from ...models import HRM
from ...models.hrm import Block, Rope
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


class OneBlock(nn.Module):
    """A segment with stand-ins for its blocks, and one of the blocks, of no use to the segment, as a last output.

    In that block are stand-ins for the tensors in which the blocks differ. :func:`call_blocks` completes the graph.
    """

    def __init__(self, segment: HRM):
        super().__init__()
        blocks = {name: part for name, part in segment.named_modules() if isinstance(part, Block)}
        own = {name: dict((*block.named_parameters(), *block.named_buffers())) for name, block in blocks.items()}
        makes = {tuple((name, t.dtype, t.shape) for name, t in tensors.items()) for tensors in own.values()}
        ensure(len(makes) == 1, "OneBlock: the blocks are not of one make")
        (self.block, *_), (first, *others) = blocks.values(), own.values()
        self.prefixes = {"segment.": "", "block.": f"{next(iter(blocks))}."}  # of names here → in the segment
        self.differ = {name: t for name, t in first.items() if not all(torch.equal(t, o[name]) for o in others)}
        self.tensors = {f"{block}.{name}": tensors[name] for block, tensors in own.items() for name in self.differ}
        self.segment = copy.deepcopy(segment)
        for block in blocks:
            self.segment.set_submodule(block, _Call(block))

    def forward(self, z_H: Tensor, z_L: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        h = _stand_in("Given", [z_H], z_H)
        tensors = {name: _stand_in("Tensor", [], tensor, name) for name, tensor in self.differ.items()}
        return *self.segment(z_H, z_L, e), functional_call(self.block, tensors, (h, self.segment.rope))


def call_blocks(model: onnx.ModelProto, network: OneBlock) -> None:
    """Write the block that was traced beside a segment at every call in it, with the tensors of the one called."""
    graph = model.graph
    stands = {node.output[0]: node for node in graph.node if node.domain == DOMAIN}
    (h,) = (output for output, node in stands.items() if node.op_type == "Given")
    tensors = {output: _of(node) for output, node in stands.items() if node.op_type == "Tensor"}
    result = graph.output.pop().name
    body = _behind(graph, result, set(stands))
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
    ensure(not any(node.domain == DOMAIN for node in graph.node), "call_blocks: something still stands for another")
    _fold(model)


def _of(node: onnx.NodeProto) -> str:
    return attribute(node, "of").decode()


def _behind(graph: onnx.GraphProto, result: str, given: set[str]) -> list[onnx.NodeProto]:
    """The nodes, in their order, that a value is computed by from given ones."""
    wanted, found = {result}, []
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
